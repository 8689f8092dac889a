"""The tiny data sets hold what they say, and the package reads them so."""

import cv2
import layouts
import numpy as np
import pytest
from PIL import Image

from groupvit_jax.data import segmentation_sets

CLASSES = dict(voc=21, voc20=20, context=60, context59=59, coco_object=81, coco_stuff=171, cityscapes=19, ade20k=150)
pytest.importorskip("skimage", reason="its wheel has the photographs: install the test extra")


@pytest.mark.parametrize("key", layouts.KEYS)
def test_every_class_and_every_published_value_occurs(key, tmp_path):
    samples = layouts.write(key, tmp_path)
    assert set(np.concatenate([s.mask.ravel() for s in samples])) == set(layouts.published_values(key))
    seen = set(np.concatenate([s.truth.ravel() for s in samples]))
    assert seen - {255} == set(range(CLASSES[key])) and (255 in seen) == (key != "coco_object")


def test_some_values_that_are_easily_got_wrong():
    label = layouts.label
    assert [label("coco_stuff", v) for v in (0, 10, 12, 89, 91, 181, 255)] == [0, 10, 11, 79, 80, 170, 255]
    assert [label("coco_object", v) for v in (0, 10, 12, 89, 91, 181, 255)] == [1, 11, 12, 80, 0, 0, 0]
    assert [label("cityscapes", v) for v in (0, 6, 7, 29, 30, 33, 255)] == [255, 255, 0, 255, 255, 18, 255]
    assert [label("voc20", v) for v in (0, 1, 20, 255)] == [255, 0, 19, 255]
    assert [label("ade20k", v) for v in (0, 1, 150)] == [255, 0, 149]


def forms(key):
    yield {}
    if key in ("coco_object", "coco_stuff", "cityscapes"):
        yield {"train_ids": True}


@pytest.mark.parametrize("key, form", [(key, form) for key in layouts.KEYS for form in forms(key)], ids=str)
def test_the_package_finds_them_and_reads_the_same(key, form, tmp_path):
    samples = layouts.write(key, tmp_path, folder="coco_stuff164k" if "coco" in key else None, **form)
    pairs = segmentation_sets.pairs(key, tmp_path)
    assert [name for name, _, _ in pairs] == [s.key for s in samples]
    for sample, (_, image, mask) in zip(samples, pairs):
        np.testing.assert_array_equal(segmentation_sets.read_labels(key, mask), sample.truth)
        decoded = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(decoded, sample.image)


def test_masks_may_have_sixteen_bits(tmp_path):
    sample = layouts.write("ade20k", tmp_path, ((40, 40),), wide=True)[0]
    with Image.open(tmp_path / f"ade/ADEChallengeData2016/annotations/validation/{sample.key}.png") as file:
        assert file.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(file), sample.mask)
