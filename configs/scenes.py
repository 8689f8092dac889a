"""The quickstart: drawn scenes of 64x64 pixels, a one-stage GroupViT of width 64, minutes on two CPU cores."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.dtype = "float32"

    image = config.model.image
    image.image_size = 64
    image.patch_size = 8
    image.width = 64
    image.heads = 4
    image.depths = (1, 0)
    image.group_tokens = (16, 0)
    image.output_groups = (8, 0)
    image.drop_path = 0.0
    image.assignment_gain = 30.0
    image.residual_gain = 0.1

    text = config.model.text
    text.length = 24
    text.width = 64
    text.depth = 1
    text.heads = 4
    config.model.projector.hidden = 256
    config.model.projector.features = 64

    config.data.train = [base.train_set("scenes", "runs/scenes/train-*.tar")]
    config.data.batch = 128
    config.data.prompts = 1
    config.data.templates = ("a photo of a {}.",)
    config.data.tagger = "pattern"
    config.data.threads = 1

    config.augment.crop_area = (1.0, 1.0)
    config.augment.randaugment = 0.0
    config.augment.flip = 0.5
    config.augment.erase = 0.0

    config.optim.lr = 1e-3
    config.optim.lr_start = 1e-5
    config.optim.lr_end = 2e-5
    config.optim.lr_batch = 128
    config.train.steps = 1000
    config.train.warmup_steps = 50
    config.train.log_every = 50
    config.checkpoint.every = 250

    ev = config.eval
    ev.every = 250
    ev.tasks = ("scenes",)
    ev.data_root = "runs/scenes"
    ev.size = ev.window = 64
    ev.stride = 32
    ev.long = 256
    ev.batch = 64
    return config.lock()
