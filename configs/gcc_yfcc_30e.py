"""Model A of the paper: CC3M, CC12M and YFCC14M (28.7 million pairs), both losses, 30 epochs."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.train = [
        base.train_set("gcc3m", "data/gcc3m/*.tar"),
        base.train_set("gcc12m", "data/gcc12m/*.tar"),
        base.train_set("yfcc14m", "data/yfcc14m/*.tar"),
    ]
    config.data.caption_tokens = 36.0  # YFCC has titles and descriptions; an estimate: see data inspect
    return config.lock()
