"""The sizes of a model, read from its weights; and the port's `config.json`, from the sizes."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError

HEAD = 64  # channels of an attention head in every published model; weights do not tell
# What the port can be told to compute and this code does not.
FIXED = {"vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "assign_eps": 1.0, "num_channels": 3},
         "text_config": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}}


def model_config(state: Mapping[str, np.ndarray], heads: tuple[int | None, int | None] = (None, None)) -> ConfigDict:
    """The `config.model` of the port's state dict.

    heads: of the image and the text tower, None: one to 64 channels.
    Raises InputError that names a tensor which is missing or of a shape that no GroupViT has.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in state:
            raise InputError(f"the weights have no tensor {name}: they are not those of a whole GroupViT")
        if len(found := tuple(state[name].shape)) != rank:
            raise InputError(f"tensor {name} has shape {found}: a GroupViT's has {rank} axes")
        return found

    def count(pattern: str) -> int:
        """How many numbers from 0 on `(\\d+)` stands for."""
        found = {int(match[1]) for name in state if (match := re.match(pattern, name))}
        return max(found, default=-1) + 1

    if wrong := [each for each in heads if each is not None and (type(each) is not int or each < 1)]:
        raise InputError(f"{wrong[0]!r} is no number of attention heads")
    image, text = "vision_model", "text_model"
    width, _, patch, _ = shape(f"{image}.embeddings.patch_embeddings.projection.weight", 4)
    _, patches, _ = shape(f"{image}.embeddings.position_embeddings", 3)
    side = math.isqrt(patches)
    if side * side != patches or not patches:
        raise InputError(f"{image}.embeddings.position_embeddings has {patches} positions: they are of no square image")
    depths, tokens, groups = [], [], []
    for s in range(count(rf"{image}\.encoder\.stages\.(\d+)\.")):
        stage = f"{image}.encoder.stages.{s}"
        depths.append(count(rf"{re.escape(stage)}\.layers\.(\d+)\."))
        grouping = f"{stage}.group_token" in state
        tokens.append(shape(f"{stage}.group_token", 3)[1] if grouping else 0)
        groups.append(shape(f"{stage}.downsample.mlp_inter.fc2.weight", 2)[0] if grouping else 0)
    blocks = [f"{image}.encoder.stages.{s}.layers.0.mlp.fc1.weight" for s, depth in enumerate(depths) if depth]
    if not blocks or not any(tokens):
        raise InputError("the weights have no block or no grouping block: they are not those of a GroupViT")
    ratio = shape(blocks[0], 2)[0] / width
    ratio = ratio if int(ratio * width) == shape(blocks[0], 2)[0] else math.nextafter(ratio, math.inf)
    vocabulary, channels = shape(f"{text}.embeddings.token_embedding.weight", 2)
    hidden, _ = shape("visual_projection.0.weight", 2)
    heads = heads[0] or usual_heads(width, "image"), heads[1] or usual_heads(channels, "text")
    if width % heads[0] or channels % heads[1]:
        raise InputError(f"towers of width {width} and {channels} cannot have {heads[0]} and {heads[1]} heads: import "
                         "them with --heads=IMAGE,TEXT")
    return ConfigDict({
        "dtype": "float32",
        "image": {"image_size": side * patch, "patch_size": patch, "width": width,
                  "heads": heads[0], "mlp_ratio": ratio,
                  "depths": depths, "group_tokens": tokens, "output_groups": groups, "drop_path": 0.1},
        "text": {"vocabulary": vocabulary, "width": channels, "heads": heads[1],
                 "length": shape(f"{text}.embeddings.position_embedding.weight", 2)[0],
                 "depth": count(rf"{text}\.encoder\.layers\.(\d+)\.")},
        "projector": {"hidden": hidden, "features": shape("visual_projection.3.weight", 2)[0]}})


def usual_heads(width: int, tower: str) -> int:
    if width % HEAD:
        raise InputError(f"nothing says how many attention heads the {tower} tower of width {width} has: import it "
                         "with --heads=IMAGE,TEXT")
    return width // HEAD


def port_config(config: ConfigDict) -> dict[str, Any]:
    """The port's `config.json` of the model of `config.model`; InputError for one that the port cannot be."""
    image, text = config.image, config.text
    for m, g, following in zip(image.group_tokens, image.output_groups, image.group_tokens[1:]):
        if following and m != g:
            raise InputError(f"a stage with {m} group tokens and {g} output groups before another that groups: the "
                             "PyTorch models cannot be built so; make the two numbers equal")
    return {
        "architectures": ["GroupViTModel"], "model_type": "groupvit", "dtype": "float32",
        "projection_dim": config.projector.features, "projection_intermediate_dim": config.projector.hidden,
        "vision_config": FIXED["vision_config"] | {
            "model_type": "groupvit_vision_model", "image_size": image.image_size, "patch_size": image.patch_size,
            "hidden_size": image.width, "intermediate_size": int(image.mlp_ratio * image.width),
            "num_attention_heads": image.heads, "num_hidden_layers": sum(image.depths), "depths": list(image.depths),
            "num_group_tokens": list(image.group_tokens), "num_output_groups": list(image.output_groups),
            "assign_mlp_ratio": [0.5, image.mlp_ratio]},
        "text_config": FIXED["text_config"] | {
            "model_type": "groupvit_text_model", "vocab_size": text.vocabulary, "hidden_size": text.width,
            "intermediate_size": 4 * text.width, "num_attention_heads": text.heads, "num_hidden_layers": text.depth,
            "max_position_embeddings": text.length, "bos_token_id": text.vocabulary - 2,
            "eos_token_id": text.vocabulary - 1}}


def heads_of(port: Mapping[str, Any]) -> tuple[int, int]:
    """The attention heads of the image and the text tower in a `config.json`, which leaves out what is as published.

    InputError for what a config asks to be computed otherwise than here.
    """
    sections = {section: port.get(section) or {} for section in FIXED}
    for section, settings in FIXED.items():
        if not isinstance(sections[section], dict):
            raise InputError(f"config.json has no object at {section}: download it again")
        for name, value in settings.items():
            if (theirs := sections[section].get(name, value)) != value:
                raise InputError(f"config.json has {section}.{name}={theirs}: only {value} is computed here")
    return tuple(sections[section].get("num_attention_heads", usual)
                 for section, usual in (("vision_config", 6), ("text_config", 4)))
