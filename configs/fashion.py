"""Real photographs anywhere: scenes of Fashion-MNIST's garments, 96x96 pixels, minutes on two CPU cores.

What differs from the drawn scenes: a garment is known by its shape alone, not by colour or texture.
"""

from ml_collections import ConfigDict

from configs import base, scenes


def get_config() -> ConfigDict:
    config = scenes.get_config().unlock()

    image = config.model.image
    image.patch_size = 12  # a garment is 4 x 4 patches; a pass costs less than half of one with patches of 8
    image.depths = (2, 0)  # a shape is what patches are to each other, so they must have looked at each other
    # Patches have deviation 1 before the positions are added. At 0.02 where a patch lies is not to be told for the
    # first hundreds of steps, and no shape can be learnt.
    image.position_std = 0.5
    config.model.text.length = 24  # the longest caption

    config.data.train = [base.train_set("fashion", "runs/fashion/train-*.tar")]
    config.data.prompts = 2
    config.data.pack_length = 24
    config.data.caption_tokens = 11.0
    config.data.prompt_tokens = 6.0

    config.train.steps = 1200
    config.eval.every = 0  # the validation set is for the end
    config.eval.tasks = ("fashion",)
    config.eval.data_root = "runs/fashion"
    return config.lock()
