"""Model B of the paper's repository page: CC3M, CC12M and RedCaps12M (25.9 million pairs), the caption loss alone."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.train = [
        base.train_set("gcc3m", "data/gcc3m/*.tar"),
        base.train_set("gcc12m", "data/gcc12m/*.tar"),
        base.train_set("redcap12m", "data/redcap12m/*.tar"),
    ]
    config.data.prompts = 0
    config.data.caption_tokens = 24.0  # an estimate, see data inspect
    return config.lock()
