"""Checksums of a folder's files, in a file `SHA256SUMS` that `sha256sum --check` reads, too."""

import errno
import hashlib
import os
import pathlib
import re

NAME = "SHA256SUMS"
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)  # what reading a damaged file may give
REWRITTEN = ("_CHECKPOINT_METADATA", "commit_success.txt")  # what Orbax writes at the top once all else is there


def write(folder: pathlib.Path) -> None:
    """Makes the file, of all files below `folder` but Orbax's last ones, and sees it onto the disk."""
    lines = [f"{digest(path)}  {path.relative_to(folder)}\n" for path in sorted(folder.rglob("*"))
             if path.is_file() and str(path.relative_to(folder)) not in (NAME, *REWRITTEN)]
    with (folder / NAME).open("w") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def problem(folder: pathlib.Path, within: str = "") -> str | None:
    """What is wrong with the files of `folder` whose paths begin so, by its checksums; None if nothing is, or if it has
    none. Raises OSError where they cannot be read for another reason, as of a network's."""
    if not (folder / NAME).exists():
        return None
    if not (lines := (folder / NAME).read_text(errors="replace").splitlines()):
        return f"{NAME} is empty"
    for line in lines:
        entry = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if not entry:
            return f"{NAME} is damaged"
        if not entry[2].startswith(within):
            continue
        path = folder / entry[2]
        try:
            if digest(path) != entry[1]:
                return f"{entry[2]} is not what was written"
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return f"{entry[2]} cannot be read ({error.strerror})"
    return None


def digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
