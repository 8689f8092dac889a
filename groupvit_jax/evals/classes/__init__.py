"""Class names, palettes and prompt templates, as data files beside this one.

`KEY.tsv` has one class a line in label order: the name, a tab, its colour `r,g,b`; the first line is a comment.
`KEY.PROTOCOL.tsv` holds the names of one protocol where they differ from the data set's own; without colours.
"""

from pathlib import Path

import numpy as np

from groupvit_jax.data import captions
from groupvit_jax.errors import InputError

HERE = Path(__file__).parent
PROTOCOLS = ("groupvit", "tcl")
WITHOUT_BACKGROUND = {"voc20": "voc", "context59": "context"}  # the same lists, less their first line
TEMPLATES = ("photo", "subset", "full")


def names(key: str, protocol: str = "") -> list[str]:
    """The class names of data set `key` in label order, exactly as they are put into prompts."""
    if key == "imagenet":
        return lines("imagenet.txt")
    if key in WITHOUT_BACKGROUND:
        return names(WITHOUT_BACKGROUND[key], protocol)[1:]
    own = HERE / f"{key}.{protocol}.tsv"
    return [name for name, _ in _rows(own if protocol and own.exists() else HERE / f"{key}.tsv")]


def palette(key: str) -> np.ndarray:
    """The data set's colours, uint8 [classes 3], red green blue."""
    if key in WITHOUT_BACKGROUND:
        return palette(WITHOUT_BACKGROUND[key])[1:]
    return np.array([colour.split(",") for _, colour in _rows(HERE / f"{key}.tsv")]).astype(np.uint8)


def templates(protocol: str) -> list[str]:
    """The prompt templates of a protocol, each with one `{}`.

    groupvit: the one of the paper. tcl: CLIP's short list and two plurals (Cha et al., CVPR 2023).
    """
    if protocol == "groupvit":
        return template_set("photo")
    if protocol == "tcl":
        return [*template_set("subset"), "a photo of many {}.", "a photo of {}s."]
    raise InputError(f"no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")


def template_set(name: str) -> list[str]:
    """Templates by name: photo (the paper's one), subset (CLIP's 7 for ImageNet), full (CLIP's 80), or those in a file,
    one a line, each with `{}` for the class name. InputError for a file without such lines."""
    if name == "photo":
        return ["a photo of a {}."]
    if name == "subset":
        return lines("templates_subset.txt")
    if name == "full":
        return list(captions.TEMPLATES)
    if not Path(name).expanduser().is_file():
        raise InputError(f"no templates {name!r}: choose one of {', '.join(TEMPLATES)}, or name a file with one a line")
    found = read_lines(name)
    if wrong := [line for line in found if "{}" not in line]:
        raise InputError(f"{name}: {wrong[0][:40]!r} has no {{}} where the class name goes")
    return found


def read_lines(path: str) -> list[str]:
    """The lines of a text file that are not empty; InputError if it cannot be read or has none."""
    try:
        found = [line.strip() for line in Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({error}): give a text file, one line each") from None
    if not any(found):
        raise InputError(f"{path} is empty: give one line each")
    return [line for line in found if line]


def lines(file: str) -> list[str]:
    """The lines of one of the text files here, such as `imagenet.txt`, without their ends."""
    return (HERE / file).read_text(encoding="utf-8").splitlines()


def _rows(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        known = sorted({p.name.split(".")[0] for p in HERE.glob("*.tsv")})
        raise InputError(f"no class list {path.stem!r}: there are {', '.join(known)}")
    rows = [line.partition("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
    return [(name, colour) for name, _, colour in rows]
