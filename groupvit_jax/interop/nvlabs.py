"""Weights under the names of the original code's training checkpoints.

They are those of the port in `transformers` under other names (`huggingface` has the one table of tensors), but for
two things: queries, keys and values of a block are one matrix, and the projectors are convolutions over one pixel. The
names are those that `convert_groupvit_nvlab_to_hf.py` of `transformers` (Apache-2.0) knows.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from groupvit_jax.interop.inert import Inert

BLOCK, STAGE = "img_encoder.layers.{s}.blocks.{i}", "vision_model.encoder.stages.{s}"
LAYER = STAGE + ".layers.{i}"
TEXT_BLOCK, TEXT = "text_encoder.transformer.resblocks.{i}", "text_model.encoder.layers.{i}"
# The original's name, the port's; the first that fits counts. Three of the port, by {qkv}, are one of the original.
NAMES = (
    ("img_encoder.pos_embed", "vision_model.embeddings.position_embeddings"),
    ("img_encoder.patch_embed.proj.{rest}", "vision_model.embeddings.patch_embeddings.projection.{rest}"),
    ("img_encoder.patch_embed.norm.{rest}", "vision_model.embeddings.layernorm.{rest}"),
    (BLOCK + ".norm1.{rest}", LAYER + ".layer_norm1.{rest}"),
    (BLOCK + ".attn.qkv.{rest}", LAYER + ".self_attn.{qkv}_proj.{rest}"),
    (BLOCK + ".attn.proj.{rest}", LAYER + ".self_attn.out_proj.{rest}"),
    (BLOCK + ".norm2.{rest}", LAYER + ".layer_norm2.{rest}"),
    (BLOCK + ".mlp.{rest}", LAYER + ".mlp.{rest}"),
    ("img_encoder.layers.{s}.downsample.pre_assign_attn.attn.proj.{rest}",
     STAGE + ".downsample.pre_assign_attn.attn.out_proj.{rest}"),
    ("img_encoder.layers.{s}.{rest}", STAGE + ".{rest}"),  # group tokens and the rest of grouping
    ("img_encoder.norm.{rest}", "vision_model.layernorm.{rest}"),
    ("text_encoder.token_embedding.{rest}", "text_model.embeddings.token_embedding.{rest}"),
    ("text_encoder.positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (TEXT_BLOCK + ".ln_1.{rest}", TEXT + ".layer_norm1.{rest}"),
    (TEXT_BLOCK + ".attn.in_proj_{rest}", TEXT + ".self_attn.{qkv}_proj.{rest}"),
    (TEXT_BLOCK + ".attn.out_proj.{rest}", TEXT + ".self_attn.out_proj.{rest}"),
    (TEXT_BLOCK + ".ln_2.{rest}", TEXT + ".layer_norm2.{rest}"),
    (TEXT_BLOCK + ".mlp.c_fc.{rest}", TEXT + ".mlp.fc1.{rest}"),
    (TEXT_BLOCK + ".mlp.c_proj.{rest}", TEXT + ".mlp.fc2.{rest}"),
    ("text_encoder.ln_final.{rest}", "text_model.final_layer_norm.{rest}"),
    ("img_projector.linear_out.{rest}", "visual_projection.3.{rest}"),
    ("img_projector.linear_hidden.{rest}", "visual_projection.{rest}"),
    ("text_projector.linear_out.{rest}", "text_projection.3.{rest}"),
    ("text_projector.linear_hidden.{rest}", "text_projection.{rest}"),
)
CONVOLUTION = re.compile(r"(img|text)_projector\.linear_(hidden\.0|out)\.weight")
FIELDS = {"s": r"(?P<s>\d+)", "i": r"(?P<i>\d+)", "rest": "(?P<rest>.+)", "qkv": "(?P<qkv>[qkv])"}


@functools.cache
def pattern(template: str) -> re.Pattern:
    """Matches the names that a template stands for."""
    parts = re.split(r"\{(\w+)\}", template)  # text and fields by turns
    return re.compile("".join(FIELDS[part] if i % 2 else re.escape(part) for i, part in enumerate(parts)))


def is_original(state: Mapping[str, np.ndarray]) -> bool:
    return any(name.startswith("img_encoder.") for name in state)


def matched(name: str, side: int) -> tuple[str, str, dict[str, str]] | None:
    """The row of NAMES that a name of its side (0: the original's, 1: the port's) fits, and its fields."""
    found = ((*row, match.groupdict()) for row in NAMES if (match := pattern(row[side]).fullmatch(name)))
    return next(found, None)


def to_port(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The original's state dict -> the port's; what has no other name there keeps its own."""
    out = {}
    for name, x in state.items():
        _, port, fields = matched(name, 0) or (None, "", {})
        if CONVOLUTION.fullmatch(name) and x.shape[2:] == (1,):
            x = x[..., 0]
        if "{qkv}" not in port:
            out[port.format(**fields) or name] = x
        elif x.ndim and len(x) % 3 == 0:
            out |= {port.format(qkv=part, **fields): y for part, y in zip("qkv", np.split(x, 3))}
        else:
            out[name] = x
    return out


def from_port(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The port's state dict -> the original's; what has no other name there keeps its own."""
    out = {}
    for name, x in state.items():
        original, port, fields = matched(name, 1) or ("", "", {})
        theirs, part = original.format(**fields) or name, fields.get("qkv")
        if part == "q":
            x = np.concatenate([state[port.format(**fields | {"qkv": each})] for each in "qkv"])
        elif CONVOLUTION.fullmatch(theirs):
            x = x[..., None]
        if part in (None, "q"):
            out[theirs] = x
    return out


def heads_of(config: Any) -> tuple[int | None, int | None]:
    """The attention heads of the image and the text tower that a training checkpoint's pickled configuration tells of,
    as `torch_files` reads it; None where it does not."""
    node = config
    for key in ("model", "img_encoder", "num_heads"):
        node = opened(node)
        node = node.get(key) if isinstance(node, dict) else None
    node = opened(node)
    heads = opened(node[0]) if isinstance(node, list | tuple) and node else node  # one number, or one a stage
    return (heads if type(heads) is int and heads > 0 else None), None


def opened(node: Any) -> Any:
    """What an inert object of a configuration library holds (omegaconf, yacs, mmcv, mmengine, addict, ml_collections):
    dict, list or value."""
    for _ in range(4):  # one such object may be in another
        if isinstance(node, Inert):
            node = node.entries or node.items or node.state or node.args
            node = node[0] if isinstance(node, tuple) and node else node  # mmcv's: the content, then where it was
        if isinstance(node, dict):
            node = next((node[key] for key in ("_content", "_val", "_fields") if key in node), node)
    return node
