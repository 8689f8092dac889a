"""A model of ours to the files that PyTorch's users expect: a Hugging Face folder, or the original code's `.pth`."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import safetensors.numpy
from ml_collections import ConfigDict

from groupvit_jax.interop import extras, huggingface, nvlabs, sizes, torch_writer
from groupvit_jax.interop.processor_files import processor_files

SEGMENT = pathlib.Path(__file__).with_name("torch_segment.py")


def write_folder(folder: pathlib.Path, config: ConfigDict, variables: Mapping[str, Any], step: int,
                 metrics: Mapping[str, Any], licence: str) -> None:
    """Into an empty folder what `GroupViTModel.from_pretrained` and `AutoProcessor.from_pretrained` load.

    config: the run's. step, metrics: of its training. licence: of the weights, as an SPDX identifier.
    Raises InputError for a model that the port cannot be.
    """
    port = sizes.port_config(config.model)
    state = huggingface.to_state_dict(variables, config.model)
    more = extras.of(config, variables, step, metrics, state)
    files = processor_files(config.model.image.image_size, config.model.text.length)
    files["model.safetensors"] = safetensors.numpy.save(state, {"format": "pt"})
    files["config.json"] = json.dumps(port, indent=2).encode()
    files["README.md"] = card(config, step, metrics, licence).encode()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    extras.write(more, folder)
    shutil.copyfile(SEGMENT, folder / "segment.py")


def write_checkpoint(path: pathlib.Path, config: ConfigDict, variables: Mapping[str, Any], step: int,
                     metrics: Mapping[str, Any]) -> None:
    """To a `.pth` {"model": state dict of the original code's names}, which `torch.load` reads.

    Raises InputError for a model that the original code cannot build.
    """
    sizes.port_config(config.model)
    state = huggingface.to_state_dict(variables, config.model, "multi_label_scale" in variables["params"])
    more = extras.of(config, variables, step, metrics, state)
    torch_writer.write(path, {"model": nvlabs.from_port(state), extras.KEY: extras.to_plain(more)})


def card(config: ConfigDict, step: int, metrics: Mapping[str, Any], licence: str) -> str:
    """The model card: what it is, what it was trained on, how well it does, how to use it."""
    image, text = config.model.image, config.model.text
    sets = [each["name"] for each in config.data.train] if "train" in config.data else []
    scores = {name: value for name, value in metrics.items()  # those without / are of the training
              if "/" in name and not name.endswith("/groups_used")}
    trained = f"{step:,} steps of {config.data.batch:,} pairs" if step else "not stated: the weights were imported"
    rows = [f"| {name.replace('/', ' ')} | {value:.1f} |" for name, value in scores.items()]
    return "\n".join([
        "---", "library_name: transformers", "pipeline_tag: zero-shot-image-classification",
        f"license: {licence or 'other'}", "tags: [groupvit, zero-shot-segmentation]", "---", "",
        "# GroupViT", "",
        f"A GroupViT (Xu et al., CVPR 2022): images of {image.image_size}x{image.image_size} pixels in patches of "
        f"{image.patch_size}, width {image.width}, stages of {list(image.depths)} blocks with "
        f"{list(image.group_tokens)} group tokens; texts of up to {text.length} tokens. Written by groupvit_jax.", "",
        "| | |", "|---|---|", f"| training data | {', '.join(sets) or 'not stated'} |", f"| training | {trained} |",
        f"| losses | {'caption and multi-label' if config.data.prompts else 'caption'} |",
        f"| licence of the weights | {licence or 'not stated: ask whoever trained them'} |", "",
        *(["Zero-shot scores in percent, in training:", "", "| score | |", "|---|---|", *rows, ""] if rows else
          ["No score was measured in training.", ""]),
        "```python", "from transformers import AutoProcessor, GroupViTModel", "",
        'model, processor = GroupViTModel.from_pretrained("."), AutoProcessor.from_pretrained(".")', "```", "",
        '`python segment.py photo.jpg --classes="cat,sofa"` labels every pixel as groupvit_jax does (windows, groups, '
        "five best classes); the model's own `output_segmentation` is something else.", ""])

