"""The one exception that speaks to the user."""


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line that says what is wrong and names the remedy. The command line prints it and
    exits with code 2; from Python it is an ordinary ValueError.
    """
