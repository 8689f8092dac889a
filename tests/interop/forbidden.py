"""Notes whatever Python reports to its audit hooks while a file is read: reading opens files to read, nothing else."""

import codecs
import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_events, _thread = None, None
# Python imports its codecs at their first use, of whatever text; those of zips and pickles are used here.
for _name in ("cp437", "utf-8", "latin-1", "ascii", "raw-unicode-escape"):
    codecs.lookup(_name)


def _hook(event, args):
    if _events is None or threading.get_ident() != _thread:
        return
    if event != "builtins.id" and not (event == "open" and not args[2] & _WRITING):
        _events.append(event)


sys.addaudithook(_hook)  # once per process, as this module is imported once; a hook is never taken away


@contextlib.contextmanager
def nothing_runs() -> Iterator[None]:
    """Fails if, within it, this thread imports, compiles, executes, starts or writes anything, or whatever else is
    audited (https://docs.python.org/3/library/audit_events.html), whether or not an error follows."""
    global _events, _thread
    _events, _thread = [], threading.get_ident()
    try:
        yield
    finally:
        events, _events = _events, None
        assert not events, events
