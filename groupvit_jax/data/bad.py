"""What can be wrong with a sample, by kind: such a sample is replaced by another, and counted."""

KINDS = (  # found while a shard is indexed
         "truncated shard", "duplicate key", "no image", "no caption",
           # found when a sample is read
         "broken image", "image too large", "image too small", "empty caption", "binary caption")


class BadSample(Exception):
    """A sample that cannot be used. `kind` is one of KINDS; `sample` says which one, and why in words."""

    def __init__(self, kind: str, sample: str = ""):
        assert kind in KINDS, kind
        super().__init__(kind, sample)
        self.kind, self.sample = kind, sample

    def __str__(self) -> str:
        return f"{self.kind}: {self.sample}"


def read_caption(data: bytes) -> str:
    """The caption in the bytes of a text file, without blanks around it; what is no UTF-8 becomes U+FFFD.

    Raises BadSample where nothing is left, or the bytes are no text: a NUL among them, or more than one character in
    four that is no UTF-8 or a control character.
    """
    caption = data.decode("utf-8", "replace").strip()
    if not caption:
        raise BadSample("empty caption")
    odd = sum(c == "\ufffd" or (c < " " and c not in "\t\n\r") for c in caption)
    if "\0" in caption or 4 * odd > len(caption):
        raise BadSample("binary caption")
    return caption


def listed(counts: dict[str, int]) -> str:
    """ "12 x no caption, 3 x broken image", the most frequent first."""
    return ", ".join(f"{n:,} x {kind}" for kind, n in sorted(counts.items(), key=lambda item: -item[1]) if n)
