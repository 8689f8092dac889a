"""Captions to token ids: CLIP's byte-pair encoding, id for id.

The published GroupViT reads text through CLIP's `SimpleTokenizer`, so its embedding table only means
something with exactly these ids. A text is cleaned, split into words, each word into bytes, and the bytes of
a word are merged pair by pair in the order in which the vocabulary learned the pairs.

Symbols are ids from the start, which keeps the tables small: 0-255 are the bytes, 256-511 the bytes that end
a word, then one id for each merge in its order, then the start and the end token.
"""

import gzip
import heapq
import html
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ftfy
import numpy as np
import regex

from groupvit_jax.errors import InputError

START = 49406
END = 49407  # the highest id: the text tower finds the end of a text by argmax
LENGTH = 77  # positions of the published text tower

_VOCABULARY = Path(__file__).parent / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
# CLIP's pattern. Ignoring case still matters after lower(): a long s is lower case and matches the s of 's.
_WORDS = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
_CACHED_CHUNKS = 65536  # 10 MB when full; captions repeat far fewer words
_CACHED_CHARACTERS = 32  # longer chunks are links, noise, or scripts without blanks: they do not come again


class Vocabulary(NamedTuple):
    """The tables of the encoding; symbols are ids."""

    of_byte: list[int]  # byte -> its id
    merges: dict[tuple[int, int], int]  # pair -> the id it becomes; a lower id was learned earlier
    spelling: list[bytes]  # id -> its bytes, a blank after those that end a word


@cache
def vocabulary() -> Vocabulary:
    """CLIP's vocabulary of 49,408 ids, read once per process (0.1 s, 20 MB)."""
    # The file writes a byte as one visible character: itself where it is visible, else the next from 256 on.
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in visible]
    order = visible + hidden
    characters = [chr(b) for b in visible] + [chr(256 + i) for i in range(len(hidden))]
    ids = {c: i for i, c in enumerate(characters + [c + "</w>" for c in characters])}
    spelling = [bytes([b]) for b in order]
    spelling += [b + b" " for b in spelling]

    lines = gzip.decompress(_VOCABULARY.read_bytes()).decode("utf-8").split("\n")
    merges = {}
    for line in lines[1 : START - 512 + 1]:  # a header comes first, and CLIP uses only some of the merges
        left, right = line.split()
        merges[ids[left], ids[right]] = ids[left + right] = len(spelling)
        spelling.append(spelling[ids[left]] + spelling[ids[right]])
    assert len(spelling) == START, len(spelling)
    return Vocabulary([order.index(b) for b in range(256)], merges, spelling)


def clean(text: str) -> str:
    """The text as CLIP sees it: mojibake repaired, HTML entities resolved, blanks collapsed, lower case."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split()).lower()  # most captions: the way below changes nothing else in them
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip().lower()


def merge(symbols: Iterable[int], merges: dict[tuple[int, int], int]) -> list[int]:
    """Byte-pair encoding of one word: join the pair learned first, leftmost first, until none is left.

    A merge only makes pairs that were learned after it, so a heap gives the order of CLIP's repeated scans,
    in n log n steps instead of n^2: a caption of 10,000 letters without a blank must not stop a loader.
    """
    symbols = [*symbols, -1]  # -1: the end of the word, and what has been joined to its left
    n = len(symbols) - 1
    before, after = list(range(-1, n)), list(range(1, n + 1))
    heap = [(merges[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in merges]
    heapq.heapify(heap)
    while heap:
        joined, i = heapq.heappop(heap)
        j = after[i] if symbols[i] >= 0 else n
        if merges.get((symbols[i], symbols[j])) != joined:
            continue  # one of the two has meanwhile been joined with another
        k = after[j]
        symbols[i], symbols[j], after[i] = joined, -1, k
        if k < n:
            before[k] = i
        for left, right in ((before[i], i), (i, k)):
            if left >= 0 and (new := merges.get((symbols[left], symbols[right]))) is not None:
                heapq.heappush(heap, (new, left))
    return [s for s in symbols if s >= 0]


class Tokenizer:
    """CLIP's tokenizer. Pickles to nothing: vocabulary and the bounded cache are each process's own."""

    def __init__(self) -> None:
        self._chunks: dict[str, list[int]] = {}

    def __reduce__(self) -> tuple:
        return Tokenizer, ()

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """The ids of a text, start and end token included: all, or at most `length`, of which the end is the last."""
        if not isinstance(text, str):
            raise InputError(f"a text must be a str, not {type(text).__name__}; decode bytes first")
        ids = [START]
        for chunk in clean(text).split(" "):  # no word of the pattern spans a blank
            known = self._chunks.get(chunk)
            ids += self._encode_chunk(chunk) if known is None else known
        ids.append(END)
        if length is not None and len(ids) > length:
            ids[length - 1 :] = [END]
        return ids

    def _encode_chunk(self, chunk: str) -> list[int]:
        of_byte, merges, _ = vocabulary()
        ids = []
        for word in _WORDS.findall(chunk):
            if word in _SPECIAL:
                ids.append(_SPECIAL[word])
                continue
            *symbols, last = (of_byte[b] for b in word.encode("utf-8"))
            ids += merge([*symbols, last + 256], merges)
        if len(chunk) <= _CACHED_CHARACTERS:
            if len(self._chunks) >= _CACHED_CHUNKS:
                self._chunks.clear()
            self._chunks[chunk] = ids
        return ids

    def __call__(self, texts: str | Sequence[str], length: int = LENGTH) -> np.ndarray:
        """Token ids for the text tower.

        Args:
          texts: t texts, or one (t = 1).
          length: positions l, at least 2.
        Returns: int32 [t l], zeros after the end token. A text that is too long loses its tail; the end token
          stays, in the last position.
        Raises: InputError for anything that is not text, or a length without room for start and end.
        """
        if length < 2:
            raise InputError(f"text length {length} has no room for start and end token; use 2 or more")
        texts = [texts] if isinstance(texts, str) else texts
        tokens = np.zeros((len(texts), length), np.int32)  # [t l]
        for row, text in zip(tokens, texts, strict=True):
            ids = self.encode(text, length)
            row[: len(ids)] = ids
        return tokens

    def decode(self, ids: Iterable[int]) -> str:
        """The cleaned text of one row of ids, up to its end token, single blanks between words.

        Bytes that are no UTF-8 (a character cut by truncation) become U+FFFD. InputError for an unknown id.
        """
        spelling = vocabulary().spelling
        parts = []
        for i in map(int, ids):
            if i == END:
                break
            if not 0 <= i <= END:
                raise InputError(f"token id {i} is not in CLIP's vocabulary, whose ids go from 0 to {END}")
            if i != START:
                parts.append(spelling[i])
        return b"".join(parts).decode("utf-8", errors="replace").strip()


_tokenizer = Tokenizer()


def tokenize(texts: str | Sequence[str], length: int = LENGTH) -> np.ndarray:
    """`Tokenizer.__call__` of the one instance that this process keeps: texts -> int32 [t l], CLIP's ids."""
    return _tokenizer(texts, length)
