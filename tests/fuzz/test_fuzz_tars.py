"""Damaged tars and damaged indexes of tars: their samples, fewer of them, or one line; never wrong ones."""

import contextlib
import io
import os
import random
import tarfile

import pytest
from mutations import case, damaged, within

from groupvit_jax.data import index, tar
from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError

FORMATS = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
SIZES = [b"77777777777\0", b"-0000000001\0", b"99999999999\0", b"\x80\0\0\0" + b"\xff" * 8, b"\xff" * 12,
         b"0x" + b"7" * 10,
         b"\x80" + bytes(11), b" " * 11 + b"\0", b"0_1_0000000\0", b"+1000000000\0", b"17777777777\0",
         b"\xc2\xb2" + b"1" * 10]
NAMES = [b"../../etc/x.jpg", b"/etc/x.txt", b".jpg", b"..txt", b"\xff\xfe.jpg", b"a/./b.jpg", b"", b"0.jpg", b"\n.jpg",
         b"/" * 99]
RECORDS = [b"30 path=", b"99999999999999999999 path=x\n", b"12 size=-5\n", b"27 size=99999999999999999\n",
           b"-5 path=x\n",
           b"0 path=x\n", b"11 size=1e3\n", b"\xb2 path=x\n", b"13 size=1_00\n", b"5000 size=" + b"9" * 4990 + b"\n",
           b"9" * 5000 + b" size=1\n", b"22 GNU.sparse.major=1\n27 GNU.sparse.name=../x.jpg\n"]


def shard(rng: random.Random) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=rng.choice(FORMATS)) as out:
        for i in range(4):
            for ending, content in ((".jpg", b"picture %d" % i * 99), (".txt", b"a dog %d" % i), (".json", b"{}")):
                member = tarfile.TarInfo(rng.choice(("", "d" * 70 + "/" + "e" * 50 + "/")) + f"{i}{ending}")
                member.pax_headers = {"path": f"ü{i}{ending}"} if rng.random() < 0.3 else {}
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
    return file.getvalue()


def summed(header: bytes) -> bytes:
    """With the checksum that it should have."""
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def headers(data: bytes) -> list[int]:
    return [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]


def wrong_tar(rng: random.Random) -> bytes:
    data = bytearray(shard(rng))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not (places := headers(data)):
            break
        at, how = rng.choice(places), rng.randrange(7)
        if how == 0:
            data = bytearray(damaged(bytes(data), rng))
        elif how == 1:
            data[at + 124 : at + 136] = rng.choice(SIZES)
        elif how == 2:
            data[at : at + 100] = rng.choice(NAMES).ljust(100, b"\0")
        elif how == 3:
            data[at + 156] = rng.choice(b"01234567LKxXgSMNVD\0\xff")  # links, devices, sparse and about the next
        elif how == 4:
            data[at:at] = data[at : at + 512 * rng.randrange(1, 4)]
        elif how == 5:
            del data[at : at + 512 * rng.randrange(1, 4)]
        else:
            record, header = rng.choice(RECORDS), bytearray(512)
            header[:5], header[124:136], header[156] = b"pax/x", b"%011o\0" % len(record), rng.choice(b"xgL")
            header[257:265] = b"ustar\x0000"
            data[at:at] = summed(bytes(header)) + record.ljust(-(-len(record) // 512) * 512, b"\0")
    if rng.random() < 0.8:
        for at in headers(data):
            data[at : at + 512] = summed(bytes(data[at : at + 512]))
    return bytes(data)


def samples(path) -> list[dict | str]:
    """What a source gives; the kind of what it cannot."""
    source, found = TarSource(path), []
    for i in range(len(source)):
        try:
            found.append(source[i])
        except BadSample as error:
            found.append(error.kind)
    return found


def damaged_tars(folder: str) -> None:
    os.environ["GROUPVIT_CACHE"] = f"{folder}/cache"
    path = f"{folder}/x.tar"
    for seed in range(1500):
        rng = random.Random(seed)
        data = wrong_tar(rng)
        with case(seed, data), open(path, "wb") as file:
            file.write(data)
        with case(seed, data):
            with contextlib.suppress(tar.Damaged, tar.NotTar):
                for name, offset, size in tar.members(lambda at, n, data=data: data[at : at + n], len(data)):
                    assert isinstance(name, str) and 0 <= offset <= offset + size <= len(data)
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + index.SUFFIX)
            try:
                for sample in samples(path):
                    assert isinstance(sample, str) or sample["image"] in data  # its bytes alone, whatever names say
            except InputError as error:
                assert "\n" not in str(error).replace(path, "")
    assert sorted(os.listdir(folder)) == ["x.tar"] or sorted(os.listdir(folder)) == ["x.tar", "x.tar" + index.SUFFIX]


def test_damaged_tars_give_samples_or_one_line_in_bounded_memory(tmp_path):
    within(300, "test_fuzz_tars", "damaged_tars", tmp_path)


def damaged_indexes(folder: str, tagger: str) -> None:
    os.environ["GROUPVIT_CACHE"] = f"{folder}/cache"
    path, tagger = f"{folder}/a.tar", tagger or None
    pairs = [((f"{i}.jpg", b"picture %d" % i * (i + 1)), (f"{i}.txt", b"a dog %d" % i)) for i in range(40)]
    files = [file for pair in pairs for file in pair]
    for name in ("a", "b"):  # the second is of the same files in another order
        tar.write_tar(f"{folder}/{name}.tar", files if name == "a" else files[::-1])
        TarSource(f"{folder}/{name}.tar", tagger=tagger)
    good, other = (open(f"{folder}/{name}.tar{index.SUFFIX}", "rb").read() for name in "ab")
    right = samples(path)
    assert len(right) == 40
    for seed in range(600):
        data = other if seed == 0 else damaged(good, random.Random(seed))
        with case(seed, data):
            new = path + index.SUFFIX + ".new"  # what may be mapped stays as it is
            with open(new, "wb") as file:
                file.write(data)
            os.replace(new, path + index.SUFFIX)
            source = TarSource(path, tagger=tagger)
            assert [source[i] for i in range(len(source))] == (
                right if not tagger else [sample | {"words": source[0]["words"]} for sample in right])


@pytest.mark.parametrize("tagger", ["", "pattern"])
def test_a_damaged_index_is_made_again_and_gives_no_wrong_samples(tmp_path, tagger):
    within(300, "test_fuzz_tars", "damaged_indexes", tmp_path, tagger)
