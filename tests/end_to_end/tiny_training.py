"""The configuration of the runs in this folder: real scenes, a model that compiles in seconds, all noise on."""

from configs import base


def get_config():
    config = base.get_config()
    config.update_from_flattened_dict({
        "model.dtype": "float32",
        "model.image.image_size": 32, "model.image.patch_size": 8, "model.image.width": 16, "model.image.heads": 2,
        "model.image.depths": (1, 0), "model.image.group_tokens": (4, 0), "model.image.output_groups": (4, 0),
        "model.text.length": 16, "model.text.width": 8, "model.text.heads": 2, "model.text.depth": 1,
        "model.projector.hidden": 16, "model.projector.features": 8,
        "data.batch": 16, "data.group": 2, "data.prompts": 1, "data.tagger": "pattern", "data.threads": 1,
        "optim.lr_batch": 16, "optim.lr": 1e-3,
        "train.steps": 40, "train.warmup_steps": 4, "train.log_every": 1, "checkpoint.every": 10, "checkpoint.keep": 2,
        "eval.every": 0, "eval.tasks": ("scenes",), "eval.size": 32, "eval.window": 32, "eval.stride": 16,
        "eval.batch": 8,
    })
    return config.lock()
