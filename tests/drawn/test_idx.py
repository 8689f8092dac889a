import gzip
import struct
import tracemalloc

import fashion_files
import numpy as np
import pytest

from groupvit_jax.drawn import idx
from groupvit_jax.errors import InputError

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
WHOLE = fashion_files.idx(IMAGES)


def read(tmp_path, data, shape=(4, 5)):
    path = tmp_path / "photos-idx3-ubyte"
    path.write_bytes(data)
    return idx.read(path, shape, "get it again")


@pytest.mark.parametrize("packed", [False, True])
def test_an_array_comes_back_compressed_or_not(tmp_path, packed):
    assert (read(tmp_path, gzip.compress(WHOLE) if packed else WHOLE) == IMAGES).all()
    labels = fashion_files.idx([3, 1, 4])
    assert read(tmp_path, gzip.compress(labels) if packed else labels, shape=()).tolist() == [3, 1, 4]


@pytest.mark.parametrize("data, message", [
    (b"", "is no IDX file"),
    (WHOLE[:3], "is no IDX file"),
    (WHOLE[:11], "is no IDX file"),
    (b"\x80\x04\x95" + WHOLE, "is no IDX file"),  # a pickle, not looked into
    (bytes((0, 0, 13, 3)) + WHOLE[4:], "is no IDX file of bytes"),  # floats
    (fashion_files.idx([1, 2, 3]), "with 3 dimension"),
    (fashion_files.idx(IMAGES[:, :3]), "holds 3 x 3 x 5 values, not N x 4 x 5"),
    (fashion_files.idx(IMAGES[:0]), "holds 0 x 4 x 5 values"),
    (WHOLE[:-1], "does not hold the 3 items"),
    (WHOLE + b"\0", "does not hold the 3 items"),
    (gzip.compress(WHOLE[:-1], mtime=0), "does not hold the 3 items"),
    (gzip.compress(WHOLE, mtime=0)[:-12], "is damaged"),
    (gzip.compress(WHOLE, mtime=0)[:20] + bytes(30), "is damaged"),
    (b"\x1f\x8b" + bytes(40), "is damaged"),
])  # fmt: skip
def test_a_file_that_is_none_is_named_with_the_remedy(tmp_path, data, message):
    with pytest.raises(InputError, match=f"photos-idx3-ubyte.* {message}.*get it again"):
        read(tmp_path, data)


def test_labels_that_are_none(tmp_path):
    with pytest.raises(InputError, match="holds no labels"):
        read(tmp_path, fashion_files.idx([]), shape=())


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError, match=f"{path} cannot be read.*get it again"):
            idx.read(path, (4, 5), "get it again")


def test_a_header_that_promises_gigabytes_costs_no_memory(tmp_path):
    tracemalloc.start()
    with pytest.raises(InputError, match="does not hold the 4000000000 items"):
        read(tmp_path, bytes((0, 0, 8, 3)) + struct.pack(">3I", 4_000_000_000, 4, 5) + bytes(100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_bomb_is_not_unpacked_beyond_what_its_header_promises(tmp_path):
    bomb = gzip.compress(WHOLE + bytes(50_000_000), 1)
    tracemalloc.start()
    with pytest.raises(InputError, match="does not hold the 3 items"):
        read(tmp_path, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
