"""The port in `transformers` with random weights, and our model with the same."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import torch
import transformers

from groupvit_jax.interop.huggingface import from_state_dict
from groupvit_jax.models.two_towers import TwoTowers, build

Port = transformers.GroupViTModel

PUBLISHED = dict(
    dtype="float32",
    image=dict(image_size=224, patch_size=16, width=384, heads=6, mlp_ratio=4.0, depths=(6, 3, 3),
               group_tokens=(64, 8, 0), output_groups=(64, 8, 0), drop_path=0.1),
    text=dict(vocabulary=49408, length=77, width=256, heads=4, depth=12),
    projector=dict(hidden=4096, features=256))
SMALL = dict(
    dtype="float32",
    image=dict(image_size=96, patch_size=16, width=48, heads=3, mlp_ratio=4.0, depths=(2, 1, 1),
               group_tokens=(12, 4, 0), output_groups=(12, 4, 0), drop_path=0.1),
    text=dict(vocabulary=49408, length=16, width=32, heads=2, depth=2),
    projector=dict(hidden=64, features=24))


def make_port(sizes: dict, seed: int = 0) -> Port:
    """The port, random everywhere: biases, norms, positions, group tokens, running statistics."""
    image, text, projector = sizes["image"], sizes["text"], sizes["projector"]
    vision = dict(
        image_size=image["image_size"], patch_size=image["patch_size"], hidden_size=image["width"],
        intermediate_size=int(image["width"] * image["mlp_ratio"]), num_attention_heads=image["heads"],
        depths=list(image["depths"]), num_hidden_layers=sum(image["depths"]),
        assign_mlp_ratio=[0.5, image["mlp_ratio"]],
        num_group_tokens=list(image["group_tokens"]), num_output_groups=list(image["output_groups"]))
    words = dict(
        vocab_size=text["vocabulary"], hidden_size=text["width"], intermediate_size=4 * text["width"],
        num_hidden_layers=text["depth"], num_attention_heads=text["heads"],
        max_position_embeddings=text["length"])
    config = transformers.GroupViTConfig(
        text_config=words, vision_config=vision, projection_dim=projector["features"],
        projection_intermediate_dim=projector["hidden"])
    port, rng = Port(config).eval(), np.random.default_rng(seed)
    state = {name: random_tensor(rng, name, tuple(x.shape)) for name, x in port.state_dict().items()}
    port.load_state_dict({name: torch.from_numpy(x) for name, x in state.items()})
    # The port's forward cannot ask its embeddings to resize the positions; they can.
    embeddings = port.vision_model.embeddings
    embeddings.forward = functools.partial(embeddings.forward, interpolate_pos_encoding=True)
    return port


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape)
    if name == "logit_scale":
        x = np.asarray(np.log(1 / 0.07))
    elif name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    elif name.endswith("running_var"):
        x = np.exp(0.3 * x)
    elif "embedding.weight" in name or "position_embeddings" in name:
        x = 0.5 * x
    elif name.endswith("group_token"):
        pass
    elif name.endswith("weight") and len(shape) == 1:  # of a norm
        x = 1 + 0.1 * x
    elif name.endswith("weight"):
        # Assignments by untrained weights are nearly uniform, which would hide mistakes: sharpen them.
        x = x * np.prod(shape[1:]) ** -0.5 * (3.0 if "assign.q_proj" in name else 1.0)
    else:  # biases and running means
        x = 0.1 * x
    return x.astype(np.float32)


def make_ours(sizes: dict, port: Port) -> tuple[TwoTowers, dict, ml_collections.ConfigDict]:
    config = ml_collections.ConfigDict(sizes)
    state = {name: x.numpy() for name, x in port.state_dict().items()}
    return build(config, multi_label=False), jax.tree.map(jnp.asarray, from_state_dict(state, config)), config
