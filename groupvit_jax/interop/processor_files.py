"""The files from which `transformers` makes the processor of a model: CLIP's tokenizer and image transform.

They are written from the vendored vocabulary alone, as `CLIPProcessor.save_pretrained` would write them, so that
`AutoProcessor`, `AutoTokenizer` and `CLIPTokenizer` read them, of versions 4 and 5. `transformers` is not needed.
"""

import json
from pathlib import Path
from typing import Any

from groupvit_jax.data import tokenizer
from groupvit_jax.data.images import MEAN, STD
from groupvit_jax.data.tokenizer import END, START
from groupvit_jax.errors import InputError

BEGIN_WORD, END_WORD = "<|startoftext|>", "<|endoftext|>"
# As in `transformers`, whose version 4 takes the tokenizer from its file and version 5 knows it by its name.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
NOTICE = "vocab.json, merges.txt and tokenizer.json are the byte-pair vocabulary of CLIP (https://github.com/openai/CLIP):"


def processor_files(side: int, length: int) -> dict[str, bytes]:
    """Name -> contents of the files for a model of images of `side` pixels and texts of up to `length` tokens.

    Raises InputError for a side below 1 or a length without room for start and end token.
    """
    if side < 1 or length < 2:
        raise InputError(f"no processor for images of {side} pixels and texts of {length} tokens: give 1 and 2 or more")
    vocabulary, merges = spelled_vocabulary()
    return {
        "preprocessor_config.json": as_json(image_transform(side)),
        "tokenizer_config.json": as_json(tokenizer_config(length)),
        "tokenizer.json": as_json(tokenizer_file(vocabulary, merges)),
        "vocab.json": as_json(vocabulary),
        "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode(),
        "NOTICE": f"{NOTICE}\n\n{licence()}".encode(),
    }


def as_json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def spelled_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Spelling -> id, and the merges in the order in which they were learned. A byte is written as one visible
    character: itself where it is visible, else the next from 256 on; a word ends with `</w>`."""
    visible = [c for c in map(chr, range(256)) if c.isprintable() and c != " "]
    characters = visible + [chr(256 + i) for i in range(256 - len(visible))]
    spelling, merges = characters + [c + "</w>" for c in characters], []
    for left, right in tokenizer.vocabulary().merges:
        merges.append((spelling[left], spelling[right]))
        spelling.append(spelling[left] + spelling[right])
    spelling += [BEGIN_WORD, END_WORD]
    return {word: i for i, word in enumerate(spelling)}, merges


def licence() -> str:
    """CLIP's, from the notice beside the vocabulary."""
    notice = (Path(tokenizer.__file__).parent / "vocabulary" / "NOTICE").read_text(encoding="utf-8")
    return notice[notice.index("MIT License") :]


def image_transform(side: int) -> dict[str, Any]:
    """ImageNet's evaluation transform, as `Model.encode_image` applies it (evals/classification.py): the short side to
    256/224 of the size, bilinear and antialiased, then the centre. CLIP's own is bicubic, with other means."""
    return {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "CLIPProcessor", "do_convert_rgb": True,
        "do_resize": True, "size": {"shortest_edge": round(side * 256 / 224)}, "resample": 2,  # PIL's BILINEAR
        "do_center_crop": True, "crop_size": {"height": side, "width": side},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD,
    }


def tokenizer_config(length: int) -> dict[str, Any]:
    """Padding repeats the end of the text, whose first is where the text tower reads."""
    special = {"bos_token": BEGIN_WORD, "eos_token": END_WORD, "pad_token": END_WORD, "unk_token": END_WORD}
    return special | {
        "tokenizer_class": "CLIPTokenizer", "processor_class": "CLIPProcessor", "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }


def tokenizer_file(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """`tokenizer.json`, the format of the `tokenizers` library."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": word} | flags for word, i in ((BEGIN_WORD, START), (END_WORD, END))],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": {"type": "RobertaProcessing", "sep": [END_WORD, END], "cls": [BEGIN_WORD, START],
                           "trim_offsets": False, "add_prefix_space": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": END_WORD, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": merges},
    }
