"""Damage to bytes, drawn from a seed; and a process of its own whose memory is bounded."""

import contextlib
import os
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
STARTS = """
import importlib, resource, sys
sys.path[:0] = [{here!r}, {tests!r}]
call = getattr(importlib.import_module({module!r}), {function!r})
held = 2**31 + int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + {megabytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (held, resource.getrlimit(resource.RLIMIT_AS)[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
call(*sys.argv[1:])
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
assert grown < {megabytes}, f"took {{grown}} MB"
"""


@contextlib.contextmanager
def case(seed, what):
    """Says, where the block fails, which case it was: its seed and its input."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"case {seed}: {what!r}"[:2000])
        raise


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, overwritten, with a piece twice or away: one such thing, or a few."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3))):
        if not data:
            break
        at, length, how = rng.randrange(len(data)), rng.randrange(1, 64), rng.randrange(6)
        if how == 0:
            del data[at:]
        elif how == 1:
            for _ in range(rng.choice((1, 1, 3, 20))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == 2:  # where headers are
            for _ in range(3):
                data[rng.randrange(min(64, len(data)))] = rng.choice((0, 1, 127, 128, 255))
        elif how == 3:  # numbers, too large or none
            data[at : at + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), b"\0\1\0\0", b"\0\0\0\1"))
        elif how == 4:
            data[at:at] = data[rng.randrange(len(data)) :][:length]
        else:
            del data[at : at + length]
    return bytes(data)


def within(megabytes: int, module: str, function: str, *arguments) -> None:
    """Calls `module.function(*arguments)` in a process that may take so much memory on top of what it starts with; of
    addresses 2 GiB more, which threads reserve and do not use."""
    code = STARTS.format(here=str(HERE), tests=str(HERE.parent), module=module, function=function, megabytes=megabytes)
    ended = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                           env=os.environ | {"JAX_PLATFORMS": "cpu"}, timeout=300)
    assert ended.returncode == 0, ended.stderr[-5000:]
