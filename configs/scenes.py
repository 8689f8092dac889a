"""The quickstart: drawn scenes of 96x96 pixels, a one-stage GroupViT of width 64, minutes on two CPU cores."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.dtype = "float32"

    image = config.model.image
    image.image_size = 96
    image.patch_size = 8
    image.width = 64
    image.heads = 4
    image.depths = (1, 0)  # a block after grouping would mix the segments again
    image.group_tokens = (16, 0)
    image.output_groups = (8, 0)
    image.drop_path = 0.0
    # At the start a linear map's gain is 0.02 * sqrt(384) = 0.39 at any width, and what passes two of them shrinks to
    # 0.15. So the assignment's logits begin at deviation 0.15, far under the 1.28 of the Gumbel noise: grouping is by
    # chance. A gain of 8 lifts them to the noise's size.
    image.assignment_gain = 8.0
    # Likewise what is assigned to a group begins at about a tenth of the group token it joins, and the token knows
    # the whole picture, not the group's pixels: every group would be named after the picture. 0.1 evens them out.
    image.residual_gain = 0.1

    text = config.model.text
    text.length = 20  # the longest caption of a scene
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
    config.data.pack_length = 32
    config.data.caption_tokens = 11.0  # the mean is 9.4
    config.data.prompt_tokens = 6.0  # they have 8, and half of a group's are another's
    config.data.threads = 1

    config.augment.crop_area = (1.0, 1.0)  # a crop would leave out what the caption names
    config.augment.randaugment = 0.0  # colours are what tells these things apart
    config.augment.erase = 0.0

    config.optim.lr = 1e-3
    config.optim.lr_start = 1e-5
    config.optim.lr_end = 2e-5
    config.optim.lr_batch = 128
    config.train.steps = 600
    config.train.warmup_steps = 50
    config.train.log_every = 20
    config.checkpoint.every = 100

    ev = config.eval
    ev.every = 200
    ev.tasks = ("scenes",)
    ev.data_root = "runs/scenes"
    ev.size = ev.window = 96
    ev.stride = 48
    ev.long = 384
    return config.lock()
