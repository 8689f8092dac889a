"""A stand-in for the model with decided groups, and small data sets in VOC's layout."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from groupvit_jax.models.image import ImageFeatures


class LinearTowers:
    """What a `TwoTowers` offers to evaluation, from a few matrix products: it compiles in no time."""

    image = SimpleNamespace(image_size=32, patch_size=8, output_groups=(6, 4))
    text = SimpleNamespace(length=16)

    def variables(self, seed=0):
        rng = np.random.default_rng(seed)
        shapes = {"patch": (192, 6), "first": (6, 6), "second": (6, 4), "image": (6, 8), "tokens": (4999, 6),
                  "text": (6, 8)}
        return {"params": {k: rng.normal(size=v).astype(np.float32) for k, v in shapes.items()} | {"scale": 8.0}}

    def apply(self, variables, *args, method):
        return getattr(self, method)(variables["params"], *args)

    def encode_image(self, params, images):
        b, h, w, _ = images.shape
        assert h % 8 == w % 8 == 0
        patches = images.reshape(b, h // 8, 8, w // 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, 192)
        x, assignments = jnp.tanh(patches @ params["patch"] / 8), []  # [b n 6]
        for name in ("first", "second"):
            soft = jax.nn.softmax(3 * x @ params[name]).swapaxes(1, 2)  # [b g n]
            x = soft @ x
            assignments.append(soft)
        return ImageFeatures(x.mean(axis=1), x, tuple(assignments))

    def encode_text(self, params, tokens):
        return params["tokens"][tokens % 4999].sum(axis=2)

    def project_image(self, params, x):
        return x @ params["image"]

    def project_text(self, params, x):
        return x @ params["text"]

    def logit_scale(self, params):
        return jnp.asarray(params["scale"], jnp.float32)


@pytest.fixture(scope="session")
def model():
    return LinearTowers()


@pytest.fixture(scope="session")
def variables(model):
    return model.variables()


@pytest.fixture(scope="session")
def write_voc():
    """write_voc(root, sizes, classes) -> the folder of a new data set under root/VOCdevkit."""
    return _write_voc


@pytest.fixture
def compilations():
    """A list that gets an entry whenever a program is compiled."""
    seen = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(seconds)

    jax.block_until_ready(jax.random.normal(jax.random.key(0)))
    seen.clear()
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def _write_voc(root, sizes, classes, seed=0, name="VOC2012"):
    """Random smooth pictures with blocky masks of all `classes` labels and some ignored pixels."""
    rng = np.random.default_rng(seed)
    folder = root / "VOCdevkit" / name
    for part in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"):
        (folder / part).mkdir(parents=True)
    for i, (h, w) in enumerate(sizes):
        small = rng.integers(0, 256, (h // 6 + 1, w // 6 + 1, 3), np.uint8)
        Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC).save(folder / f"JPEGImages/{i}.jpg")
        labels = np.append(np.arange(classes), 255)[rng.integers(0, classes + 1, (h // 9 + 1, w // 9 + 1))]
        mask = Image.fromarray(np.kron(labels, np.ones((9, 9)))[:h, :w].astype(np.uint8), mode="P")
        mask.putpalette(rng.integers(0, 256, 768).tolist())
        mask.save(folder / f"SegmentationClass/{i}.png")
    listing = folder / "ImageSets/Segmentation/val.txt"
    listing.write_text("".join(f"{i}\n" for i in range(len(sizes))))
    return folder
