"""The exceptions that speak to the user, each by one line and an exit code."""


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is one line that says what is wrong and names the remedy. The command line prints it and
    exits with code 2; from Python it is an ordinary ValueError.
    """


class RunAgain(Exception):
    """Training ended early and can go on: the same command continues from the newest checkpoint.

    The command line prints the message, one line, and exits with code 75 (sysexits' EX_TEMPFAIL), on which the launch
    scripts start it again.
    """

    code = 75
