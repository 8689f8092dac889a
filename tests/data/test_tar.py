"""The tar format: the members that tarfile, and GNU tar, write; damage; what is no tar; writing."""

import bz2
import gzip
import io
import random
import subprocess
import tarfile

import pytest

from groupvit_jax.data.tar import Damaged, NotTar, members, write_tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_of(files, form=tarfile.PAX_FORMAT, **about):
    """The bytes of a tar of (name, content) or TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, **about) as tar:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                tar.addfile(file)
                continue
            member = tarfile.TarInfo(file[0])
            member.size = len(file[1])
            tar.addfile(member, io.BytesIO(file[1]))
    return stream.getvalue()


def walk(data, window=1 << 14):
    """The members of a tar and where it breaks off, None if it does not; reads go up and stay inside."""
    found, before = [], [0]

    def read(offset, size):
        assert before[0] <= offset and offset + size <= len(data)
        before[0] = offset
        return data[offset : offset + size]

    try:
        for member in members(read, len(data), window):
            found.append(member)
    except Damaged as damage:
        return found, damage.offset
    return found, None


def expected(data):
    """The same by tarfile."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]


def info(name, kind=tarfile.REGTYPE, **fields):
    member = tarfile.TarInfo(name)
    member.type = kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member


FILES = [("0.jpg", b"p" * 1000), ("0.txt", b""), ("folder/1.png", b"q" * 512), ("größe.txt", b"r" * 511),
         ("x" * 99, b"1"), ("y" * 100, b"2"), ("a/" * 45 + "z" * 60, b"3" * 513)]


@pytest.mark.parametrize("window", [512, 700, 1024, 1 << 20])
@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_that_tarfile_finds(form, window):
    data = tar_of(FILES, FORMATS[form])
    assert walk(data, window) == (expected(data), None) and len(expected(data)) == 7


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_of_any_length_are_read(form):
    names = [f"{'n' * length}/{length}.jpg" for length in (90, 94, 95, 250, 256, 5000, 20_000)]
    data = tar_of([(name, b"picture") for name in names], FORMATS[form])
    assert [name for name, _, _ in walk(data, 2048)[0]] == names and walk(data, 2048) == (expected(data), None)


def test_times_in_fractions_and_other_pax_records_are_passed_over():
    comment = {"comment": "a size=3 or path=x of its own"}
    data = tar_of([info(f"{i}.jpg", mtime=1.5 + i, pax_headers=comment) for i in range(5)])
    assert walk(data) == (expected(data), None) and len(walk(data)[0]) == 5


def test_global_pax_records_hold_for_all_that_follow():
    data = tar_of([("a.jpg", b"p"), ("b.jpg", b"q")], pax_headers={"path": "same.jpg", "comment": "all"})
    assert [name for name, _, _ in walk(data)[0]] == ["same.jpg"] * 2 and walk(data)[0] == expected(data)


def test_links_devices_and_folders_are_no_members():
    files = [info("d", tarfile.DIRTYPE), ("a.jpg", b"p"), info("s.jpg", tarfile.SYMTYPE, linkname="a.jpg"),
             info("h.jpg", tarfile.LNKTYPE, linkname="l" * 300), info("f", tarfile.FIFOTYPE), ("b.jpg", b"q" * 600)]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar_of(files, form)
        assert walk(data) == (expected(data), None) and [m[0] for m in walk(data)[0]] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sizes_above_8_gib_are_read(form):
    """Base 256 in GNU's format, a PAX record in the other."""
    size = 9 << 30
    member = info("large.bin", size=size)
    head = member.tobuf(FORMATS[form], "utf-8", "strict")
    tail = tar_of([("next.jpg", b"p")])
    place = len(head) + size

    def read(offset, size):
        return head[offset : offset + size] if offset < place else tail[offset - place : offset - place + size]

    found = list(members(read, place + len(tail), 4096))
    assert found == [("large.bin", len(head), size), ("next.jpg", place + 512, 1)]


def test_checksums_of_signed_bytes_are_accepted():
    data = bytearray(tar_of([("größe.jpg", b"p")], tarfile.GNU_FORMAT))
    signed = tarfile.calc_chksums(bytes(data[:512]))[1]
    data[148:156] = b"%06o\0 " % signed
    assert walk(bytes(data)) == (expected(bytes(data)), None)


@pytest.mark.parametrize("field", [b"  1750\0 ", b"0001750 ", b"00001750"])
def test_checksums_are_read_as_any_program_writes_them(field):
    data = bytearray(tar_of([("a.jpg", b"p")], tarfile.GNU_FORMAT))
    value = tarfile.calc_chksums(bytes(data[:512]))[0]
    data[148:156] = field.replace(b"1750", b"%4o" % value) if value >= 0o1000 else field
    assert len(walk(bytes(data))[0]) == 1


@pytest.mark.parametrize("form", ["gnu", "ustar", "pax", "v7"])
def test_tars_of_gnu_tar_are_read(form, tmp_path):
    deep = "d" * 60 + "/" + "f" * (30 if form == "v7" else 140 if form != "ustar" else 90) + ".jpg"
    for name, content in [("0.jpg", b"p" * 700), ("0.txt", b"words"), (deep, b"q")]:
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(content)
    subprocess.run(["tar", f"--format={form}", "-cf", tmp_path / "a.tar", "-C", tmp_path / "in", "."], check=True)
    data = (tmp_path / "a.tar").read_bytes()
    assert walk(data)[1] is None and [(name.rstrip("/"), *rest) for name, *rest in walk(data)[0]] == expected(data)
    assert len(expected(data)) == 3


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_truncated_tar_the_whole_members_are_found_wherever_it_is_cut(form):
    data = tar_of(FILES, FORMATS[form])
    whole = expected(data)
    end = data.rindex(b"3" * 513) + 1024  # behind the last block that is not zero
    for length in [*range(0, 1100, 7), *range(1100, end + 512, 53), end, end + 511]:
        found, broken = walk(data[:length])
        assert found == [m for m in whole if m[1] + m[2] <= length], length
        assert broken is not None and broken < length + 512, length
    assert walk(data[: end + 512]) == (whole, None)


def test_a_broken_header_ends_the_members_and_is_located():
    data = bytearray(tar_of(FILES, tarfile.GNU_FORMAT))
    place = expected(bytes(data))[2][1] - 512
    data[place + 3] ^= 1
    assert walk(bytes(data)) == (expected(bytes(tar_of(FILES, tarfile.GNU_FORMAT)))[:2], place)


@pytest.mark.parametrize("form", FORMATS)
def test_flipped_bytes_never_do_more_than_end_the_members(form):
    data, draw = tar_of(FILES, FORMATS[form]), random.Random(0)
    for _ in range(1500):
        wrong = bytearray(data)
        for _ in range(draw.choice((1, 2, 8))):
            wrong[draw.randrange(512 if draw.random() < 0.1 else len(wrong))] = draw.randrange(256)
        try:
            found, _ = walk(bytes(wrong))
        except NotTar:
            continue
        assert all(offset + size <= len(wrong) and size >= 0 for _, offset, size in found)


@pytest.mark.parametrize("record", [b"9 path=a\n", b"99999 path=a\n", b"0 path=a\n", b"path=a\n", b"-5 path=a\n",
                                    b"12 size=-99\n", b"11 size=xx\n", b"\xff\xfe size=1"])
def test_a_broken_pax_record_ends_the_members(record):
    head = info("h", tarfile.XHDTYPE, size=len(record)).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    data = tar_of([("a.jpg", b"p")])[:1024] + head + record.ljust(512, b"\0") + tar_of([("b.jpg", b"q")])
    found, _ = walk(data)
    assert found[0] == ("a.jpg", 512, 1) and len(found) <= 2


@pytest.mark.parametrize("content, words", [
    (gzip.compress(tar_of(FILES)), "compressed.*gunzip"), (bz2.compress(tar_of(FILES) * 9), "compressed.*bunzip2"),
    (b"<html>not found</html>" * 50, "no tar"), (b"\xff" * 2000, "no tar"),
])  # fmt: skip
def test_what_is_no_tar_is_told_from_a_damaged_one(content, words):
    with pytest.raises(NotTar, match=words):
        walk(content.ljust(512, b"\1"))


def test_an_empty_tar_has_no_members_and_is_whole():
    assert walk(tar_of([])) == ([], None)


# ---------------------------------------------------------------- writing


def test_the_same_files_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", [("0.jpg", b"p"), ("0.txt", b"words")])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_an_interrupted_tar_leaves_no_tar(tmp_path):
    def breaks():
        yield "0.jpg", b"p"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tar(tmp_path / "a.tar", breaks())
    assert not (tmp_path / "a.tar").exists()
