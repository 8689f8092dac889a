"""The paper's ablations on CC12M alone: `configs/cc12m_30e.py` (two stages) or `configs/cc12m_30e.py:one_stage`."""

from ml_collections import ConfigDict

from configs import base
from groupvit_jax.errors import InputError


def get_config(variant: str = "two_stage") -> ConfigDict:
    config = base.get_config()
    config.data.train = [base.train_set("gcc12m", "data/gcc12m/*.tar")]
    if variant == "one_stage":  # the paper, section 4.1: 64 group tokens, grouped once, after the sixth block
        config.model.image.depths = (6, 6)
        config.model.image.group_tokens = (64, 0)
        config.model.image.output_groups = (8, 0)
    elif variant != "two_stage":
        raise InputError(f"configs/cc12m_30e.py:{variant}: the variants are one_stage and two_stage")
    return config.lock()
