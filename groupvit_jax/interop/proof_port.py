"""Our model and the port in `transformers` beside each other, on the same random images and texts."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError
from groupvit_jax.interop import nvlabs, sizes
from groupvit_jax.interop.proof import Difference, difference
from groupvit_jax.models import two_towers
from groupvit_jax.models.layers import unit

CLOSE = 2e-5  # logits of two groups so close: rounding decides which of them a patch belongs to, and either is right
IMAGES, TEXTS = 8, 8


def compare(config: ConfigDict, variables: Mapping[str, Any], port: Any) -> list[Difference]:
    """Our model of `config.model` and the port, a `GroupViTModel`, on fixed random images and texts in float32.

    Raises InputError when every image has a patch whose group hangs on rounding.
    """
    images, tokens = inputs(config)
    ours, theirs = run_ours(config, variables, images, tokens), run_port(port, images, tokens)
    decided = np.ones(IMAGES, bool)
    for name, soft in theirs.items():
        if name.startswith("assignment"):
            second, first = np.sort(np.log(np.maximum(soft, 1e-30)), axis=1)[:, -2:].swapaxes(0, 1)  # [b n]
            decided &= (first - second).min(axis=1) > CLOSE if soft.shape[1] > 1 else True
    if not decided.any():
        raise InputError("cannot compare: in every test image two groups claim a patch equally, as in an untrained "
                         "model; --verify=off writes it all the same")
    return [difference(name, *(x if name.startswith("text") else x[decided] for x in (ours[name], y)))
            for name, y in theirs.items()]


def inputs(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """Normalised images [b s s 3] of coarse and fine noise, tokens int64 [t l] of several lengths."""
    rng, image, text = np.random.default_rng(0), config.image, config.text
    p, side = image.patch_size, image.image_size // image.patch_size
    coarse = rng.standard_normal((IMAGES, side, side, 3)).repeat(p, axis=1).repeat(p, axis=2)
    images = coarse + 0.5 * rng.standard_normal(coarse.shape)
    tokens, end = np.zeros((TEXTS, text.length), np.int64), text.vocabulary - 1
    for row, n in zip(tokens, rng.integers(min(3, text.length), text.length, TEXTS, endpoint=True)):
        row[:n] = [end - 1, *rng.integers(1, end - 1, n - 2), end]
    return images.astype(np.float32), tokens


def run_ours(config: ConfigDict, variables: Mapping[str, Any], images: np.ndarray, tokens: np.ndarray
             ) -> dict[str, np.ndarray]:
    """On the CPU, where the port runs: elsewhere float32 products may have fewer bits."""
    config = ConfigDict(config.to_dict() | {"dtype": "float32"})
    model = two_towers.build(config, multi_label=False)
    params = {name: x for name, x in variables["params"].items() if name != "multi_label_scale"}

    # Runs once: compiled quickly rather than well.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def forward(variables: dict[str, Any], images: jax.Array, tokens: jax.Array) -> dict[str, jax.Array]:
        features = model.apply(variables, images, method="encode_image")
        text = model.apply(variables, tokens[:, None], method="encode_text")[:, 0]
        image_embedding = unit(model.apply(variables, features.pooled, method="project_image"))
        text_embedding = unit(model.apply(variables, text, method="project_text"))
        logits = model.apply(variables, method="logit_scale") * jnp.matmul(image_embedding, text_embedding.T)
        assignments = {f"assignment {s}": soft for s, soft in enumerate(features.assignments)}
        return assignments | {
            "segment tokens": features.segments, "pooled image": features.pooled, "image embedding": image_embedding,
            "text feature": text, "text embedding": text_embedding, "logits": logits}

    with jax.default_device(jax.local_devices(backend="cpu")[0]), jax.default_matmul_precision("highest"):
        variables = jax.device_get({"params": params, "batch_stats": variables["batch_stats"]})
        return jax.device_get(forward(variables, images, tokens.astype(np.int32)))


def run_port(port: Any, images: np.ndarray, tokens: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        out = port(input_ids=torch.from_numpy(tokens), output_attentions=True,
                   pixel_values=torch.from_numpy(images).permute(0, 3, 1, 2))
    vision = out.vision_model_output
    theirs = {f"assignment {s}": soft for s, soft in enumerate(vision.attentions)}
    theirs |= {"segment tokens": vision.last_hidden_state, "pooled image": vision.pooler_output,
               "image embedding": out.image_embeds, "text feature": out.text_model_output.pooler_output,
               "text embedding": out.text_embeds, "logits": out.logits_per_image}
    return {name: x.numpy() for name, x in theirs.items()}


def port_of(state: Mapping[str, np.ndarray], model: ConfigDict, theirs: Mapping[str, Any] | None = None) -> Any:
    """A `GroupViTModel` of `config.model` with the tensors of a state dict, of the sizes in `theirs` where that, a
    `config.json` that somebody else wrote, has others. Nothing else of it reaches `transformers`, which would fetch and
    run code that it names (`attn_implementation`)."""
    import torch
    import transformers

    tensors = {name: torch.from_numpy(np.array(x, np.float32)) for name, x in state.items()
               if name != "multi_label_logit_scale"}
    ours = sizes.port_config(model)
    try:
        port = transformers.GroupViTModel(transformers.GroupViTConfig(**overlaid(ours, theirs or {})))
        missing, unexpected = port.load_state_dict(tensors, strict=False)
    except Exception as error:  # it checks its configuration in many ways
        raise InputError("transformers does not take these weights with their config.json "
                         f"({str(error).splitlines()[0]}); --verify=off writes it all the same") from None
    if wrong := [name for name in (*missing, *unexpected) if not name.endswith("num_batches_tracked")]:
        raise InputError(f"the port in transformers does not fit: {wrong[0]}; --verify=off writes it all the same")
    return port.eval()


def overlaid(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our `config.json` with their values of the sizes that it names."""
    names = ours.keys() - {"architectures", "model_type", "dtype"}
    return ours | {name: overlaid(ours[name], theirs[name]) if isinstance(ours[name], dict) else theirs[name]
                   for name in names & theirs.keys()}


def port_in(folder: pathlib.Path) -> Any:
    """The `GroupViTModel` in a Hugging Face folder that we wrote, as its users get it, in float32."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    loaded: Any = transformers.GroupViTModel.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    port, info = loaded
    wrong = [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[key]]
    if wrong:
        raise InputError(f"transformers does not find in {folder} what it needs, or more: {wrong[0]}; --verify=off "
                         "takes it all the same")
    return port.eval()


def port_in_checkpoint(path: pathlib.Path, config: ConfigDict) -> Any:
    """A `GroupViTModel` with what PyTorch reads from a .pth of the original code's names."""
    import torch

    state = torch.load(path, weights_only=True)["model"]
    return port_of(nvlabs.to_port({name: x.numpy() for name, x in state.items()}), config)
