"""The samples of a tar: its files that share a key, as WebDataset defines them.

The key is the path up to the first dot of its last part: `000000012.jpg` and `000000012.txt` are image and caption of
sample `000000012`. So img2dataset writes them.
"""

import collections
import json
from collections.abc import Callable, Iterable, Sequence

from groupvit_jax.data.bad import BadSample, read_caption
from groupvit_jax.data.tar import Damaged

IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTIONS = ("txt", "text", "caption", "json")  # of each the first that is not empty is taken
_KINDS = {kind: kind for kind in IMAGES + CAPTIONS}

Row = tuple[str, int, int, int, int, bool]  # key, image offset and size, caption offset and size, is it JSON


def group(members: Iterable[tuple[str, int, int]],
          on_caption: Callable[[int, int], None] | None = None) -> tuple[list[Row], dict[str, int]]:
    """The samples that have an image and a caption, in the order in which they begin, and what was left out.

    Args:
        members: (name, offset, size) of a tar's files; may end in tar.Damaged.
        on_caption: called with (offset, size) of each file that may be a caption, as soon as it is passed.
    Returns: rows; counts by kind of bad.KINDS.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    problems: collections.Counter[str] = collections.Counter()
    try:
        for name, offset, size in members:
            folder = name.rfind("/") + 1
            dot = name.find(".", folder)
            kind = _KINDS.get(name[dot + 1 :]) or _KINDS.get(name[dot + 1 :].lower())
            if kind is None or dot <= folder or size >> 31:  # nothing of 2 GiB is an image or a caption
                continue
            parts = samples.setdefault(name[:dot], {})
            if kind in parts:
                problems["duplicate key"] += 1
                continue
            parts[kind] = offset, size
            if on_caption and kind in CAPTIONS:
                on_caption(offset, size)
    except Damaged:
        problems["truncated shard"] += 1
    rows = []
    for key, parts in samples.items():
        if not (image := _first(parts, IMAGES)):
            problems["no image"] += 1
        elif not (caption := _first(parts, CAPTIONS)):
            problems["no caption"] += 1
        else:
            rows.append((key, *image, *caption, caption is parts.get("json")))
    return rows, dict(problems)


def _first(parts: dict[str, tuple[int, int]], kinds: Sequence[str]) -> tuple[int, int] | None:
    for kind in kinds:
        if kind in parts and parts[kind][1]:
            return parts[kind]
    return None


def caption_text(data: bytes, is_json: bool) -> str:
    """The caption in the bytes of a text file, or under "caption" in a JSON object. Raises BadSample."""
    if is_json:
        try:
            caption = json.loads(data).get("caption")
        except (ValueError, AttributeError, RecursionError):
            caption = None
        if not isinstance(caption, str):
            raise BadSample("empty caption", "no caption in its JSON")
        data = caption.encode("utf-8", "replace")
    return read_caption(data)
