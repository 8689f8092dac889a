"""Class names, palettes and prompt templates, as data files beside this one.

`KEY.tsv` has one class a line in label order: the name, a tab, its colour `r,g,b`; the first line is a comment.
`KEY.PROTOCOL.tsv` holds the names of one protocol where they differ from the data set's own; without colours.
"""

from pathlib import Path

import numpy as np

from groupvit_jax.errors import InputError

HERE = Path(__file__).parent
PROTOCOLS = ("groupvit", "tcl")


def names(key: str, protocol: str = "") -> list[str]:
    """The class names of data set `key` in label order, exactly as they are put into prompts."""
    own = HERE / f"{key}.{protocol}.tsv"
    return [name for name, _ in _rows(own if protocol and own.exists() else HERE / f"{key}.tsv")]


def palette(key: str) -> np.ndarray:
    """The data set's colours, uint8 [classes 3], red green blue."""
    return np.array([colour.split(",") for _, colour in _rows(HERE / f"{key}.tsv")]).astype(np.uint8)


def templates(protocol: str) -> list[str]:
    """The prompt templates of a protocol, each with one `{}`.

    groupvit: the one of the paper. tcl: CLIP's short list and two plurals (Cha et al., CVPR 2023).
    """
    if protocol == "groupvit":
        return ["a photo of a {}."]
    if protocol == "tcl":
        return [*lines("templates_subset.txt"), "a photo of many {}.", "a photo of {}s."]
    raise InputError(f"no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")


def lines(file: str) -> list[str]:
    """The lines of one of the text files here, such as `imagenet.txt`, without their ends."""
    return (HERE / file).read_text(encoding="utf-8").splitlines()


def _rows(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        known = sorted({p.name.split(".")[0] for p in HERE.glob("*.tsv")})
        raise InputError(f"no class list {path.stem!r}: there are {', '.join(known)}")
    rows = [line.partition("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:] if line]
    return [(name, colour) for name, _, colour in rows]
