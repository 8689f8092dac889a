"""Fuzzes `torch_files.read` with Atheris (libFuzzer for Python; https://github.com/google/atheris).

    python tests/interop/fuzz_torch_files.py CORPUS [-max_total_time=600] [libFuzzer's other flags]

CORPUS is a folder of files to start from, `test_fuzz.seeds` makes one; what reaches new code is added to it. Whatever
an input does but to be read or to end in an InputError of one line is a find: other errors, what Python's audit hooks
report, more than MEMORY on top of what it starts with, much time (-timeout).
"""

import io
import pathlib
import pickletools
import random
import resource
import sys
import tempfile
import zipfile

import atheris
import numpy as np
from forbidden import nothing_runs

from groupvit_jax.errors import InputError

with atheris.instrument_imports(include=["groupvit_jax.interop"]):
    from groupvit_jax.interop import torch_files
    from groupvit_jax.interop.inert import Inert
    from groupvit_jax.interop.torch_tensors import Tensor

# bytes. The kernel holds it to that: -rss_limit_mb counts the memory of whatever started this process as its own.
MEMORY = 2 << 30
LARGEST = 1 << 20  # numbers of a tensor that is read
VALUES = [b"N", b"\x88", b")", b"]", b"}", b"\x8f", b"K\x01", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\0",
          b"h\x00", b"h\x01", b"X\x01\x00\x00\x000", b"cos\nsystem\n", b"ctorch\nFloatStorage\n",
          b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n",
          b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_tensor_v3\n"]
BARE = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes if not opcode.arg]  # without an argument


def opcodes(data: bytes) -> list[int]:
    """Where the opcodes of the pickles begin that follow each other in `data`."""
    file, begins = io.BytesIO(data), []
    try:
        while True:
            begins += [at for _, _, at in pickletools.genops(file)]
    except ValueError:
        return begins or [0]


def edit(data: bytes, most: int, rng: random.Random) -> bytes:
    """Changes bits, or a few opcodes: away, twice, others before or instead of them, from elsewhere."""
    if rng.random() < 0.2:
        return atheris.Mutate(data, most)
    begins = [*opcodes(data), len(data)]

    def piece():
        at, length = rng.randrange(len(begins)), rng.choice((0, 1, 1, 1, 1, 2, 3, 8))
        return begins[at], begins[min(at + length, len(begins) - 1)]

    (start, end), (start2, end2) = piece(), piece()
    value, bare = rng.choice(VALUES), rng.choice(BARE)
    new = rng.choice((b"", data[start:end] * 2, data[start2:end2], value, value, bare, value + bare))
    return data[:start] + new + data[end:]


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """As libFuzzer would, but for a zip: in its pickle, whose checksum is then right again."""
    rng = random.Random(seed)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        if not records or rng.random() < 0.1:
            raise zipfile.BadZipFile
    except Exception:  # whatever zipfile finds in a broken one
        return edit(data, most, rng)[:most]
    which = rng.randrange(len(records)) if rng.random() < 0.1 else 0
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i, (name, content) in enumerate(records):
            archive.writestr(zipfile.ZipInfo(name), edit(content, most, rng) if i == which else content)
    return file.getvalue() if len(file.getvalue()) <= most else data


def walk(value):
    """Looks at everything that was read, and reads its tensors."""
    seen, left = {}, [value]
    while left:
        x = left.pop()
        if id(x) in seen:
            continue
        seen[id(x)] = x
        if type(x) is Tensor and np.prod(x.shape, dtype=float) < LARGEST:
            array = x.array()
            assert array.shape == x.shape and array.dtype == x.dtype and array.flags.c_contiguous
        elif type(x) is Inert:
            repr(x)
            left += [x.what, x.args, x.kwargs, x.state, x.items, x.entries]
        elif type(x) in (list, tuple, set, frozenset):
            left += x
        elif type(x) is dict:
            left += [*x, *x.values()]


def one_input(data: bytes) -> None:
    PATH.write_bytes(data)
    with nothing_runs():
        try:
            walk(torch_files.read(PATH))
        except InputError as error:
            assert "\n" not in str(error)


if __name__ == "__main__":
    already = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (already + MEMORY, already + MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        PATH = pathlib.Path(folder, "x.pth")
        atheris.Setup(sys.argv, one_input, custom_mutator=mutate)
        atheris.Fuzz()
