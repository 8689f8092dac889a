"""Whole pictures: the ways they lie on disk, the transform, top-1 and top-5 against a plain computation."""

import io

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from groupvit_jax import parallel
from groupvit_jax.data import classification_sets
from groupvit_jax.data.images import classification_transform
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes, table
from groupvit_jax.evals.prompts import TextEncoder, class_embeddings
from groupvit_jax.evals.protocol import Protocol
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.models.image import normalize

LABELS = [3, 999, 0, 500, 3, 42, 7]


def pictures():
    """(key, encoded picture, label) of a few smooth ones of several sizes."""
    for i, label in enumerate(LABELS):
        rng, data = np.random.default_rng(i), io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
        small.resize((40 + 9 * i, 60 - 3 * i), Image.Resampling.BICUBIC).save(data, "PNG")
        yield f"n{label:08d}_{i}", data.getvalue(), label


def write_folders(root):
    for label in range(1000):
        (root / "imagenet/val" / f"n{label:08d}").mkdir(parents=True)
    for key, data, label in pictures():
        (root / "imagenet/val" / f"n{label:08d}" / f"{key}.JPEG.png").write_bytes(data)


def write_tars(root):
    (root / "imagenet").mkdir()
    rows = list(pictures())
    for i, part in enumerate((rows[:4], rows[4:])):
        members = [(f"{key}.{kind}", content) for key, data, label in part
                   for kind, content in (("png", data), ("cls", str(label).encode()))]
        write_tar(root / f"imagenet/imagenet-val-{i:06d}.tar", members)


def write_tfds(root):
    class Imagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("5.1.0")
        name = "imagenet2012"

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=1000),
                        "file_name": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"validation": self._generate_examples()}

        def _generate_examples(self):
            for key, data, label in pictures():
                yield key, {"image": io.BytesIO(data), "label": label, "file_name": key}

    Imagenet(data_dir=str(root), file_format="array_record").download_and_prepare()


WRITERS = {"folders": write_folders, "tars": write_tars, "tfds": write_tfds}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_pictures_and_labels(tmp_path, form):
    WRITERS[form](tmp_path)
    opened = classification_sets.open_set("imagenet", tmp_path)
    found = sorted((label, pixels.shape, pixels.tobytes()) for _, pixels, label in (opened[i] for i in range(7)))
    expected = []
    for _, data, label in pictures():
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        expected.append((label, pixels.shape, pixels.tobytes()))
    assert len(opened) == 7 and found == sorted(expected)


def test_top_1_and_top_5_are_those_of_a_plain_computation(model, variables, tmp_path):
    write_tars(tmp_path)
    encoder = TextEncoder(model, 64)
    words = class_embeddings(lambda texts: encoder(variables, texts), classes.names("imagenet"),
                             classes.lines("templates_subset.txt"))
    top1, top5 = [], []
    for _, data, label in pictures():
        image = classification_transform(np.asarray(Image.open(io.BytesIO(data))), 37, 32)  # 32 * 256 / 224
        features = model.apply(variables, normalize(image[None]), method="encode_image")
        pooled = np.asarray(model.apply(variables, features.pooled, method="project_image"))[0]
        order = np.argsort(-(words @ pooled), kind="stable")
        top1.append(order[0] == label)
        top5.append(label in order[:5])
    for data in (1, 4):
        devices = jax.devices()[:data]
        mesh = jax.make_mesh((data, 1, 1), parallel.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3,
                             devices=devices)
        scores = Evaluator(model, ["imagenet"], tmp_path, mesh=mesh, batch=2)(variables)["imagenet"]
        assert scores["top1"] == pytest.approx(100 * np.mean(top1))
        assert scores["top5"] == pytest.approx(100 * np.mean(top5))
        assert scores["pictures"] == 7 and scores["published"]["GroupViT, GCC + YFCC"] == 43.7
    assert table.text({"imagenet": scores}).startswith("imagenet: top-1")


def test_a_true_class_is_found_by_its_rank(model, variables, tmp_path):
    """With classes named so that each picture's own is known: the labels of a first run's choices score 100."""
    write_tars(tmp_path)
    rows, encoder = list(pictures()), TextEncoder(model, 64)
    words = class_embeddings(lambda texts: encoder(variables, texts), classes.names("imagenet"),
                             classes.lines("templates_subset.txt"))
    for rank, expected in ((0, (100.0, 100.0)), (4, (0.0, 100.0)), (5, (0.0, 0.0))):
        members = []
        for key, data, _ in rows:
            image = classification_transform(np.asarray(Image.open(io.BytesIO(data))), 37, 32)
            features = model.apply(variables, normalize(image[None]), method="encode_image")
            pooled = np.asarray(model.apply(variables, features.pooled, method="project_image"))[0]
            label = np.argsort(-(words @ pooled), kind="stable")[rank]
            members += [(f"{key}.png", data), (f"{key}.cls", str(label).encode())]
        for old in (tmp_path / "imagenet").glob("*.tar"):
            old.unlink()
        write_tar(tmp_path / "imagenet/val.tar", members)
        scores = Evaluator(model, ["imagenet"], tmp_path, batch=4)(variables)["imagenet"]
        assert (scores["top1"], scores["top5"]) == expected


def test_a_class_file_of_another_length_is_refused(model, tmp_path):
    write_tars(tmp_path)
    for number in (10, 1001):
        (tmp_path / "own.txt").write_text("".join(f"thing {i}\n" for i in range(number)))
        with pytest.raises(InputError, match=f"imagenet: {number} labels for 1000 classes"):
            Evaluator(model, ["imagenet"], tmp_path, protocol=Protocol(class_file=str(tmp_path / "own.txt")))


def test_a_bad_picture_is_named_or_left_out(model, variables, tmp_path):
    write_folders(tmp_path)
    broken = next((tmp_path / "imagenet/val/n00000042").iterdir())
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=f"{broken.name}.*--skip_bad"):
        Evaluator(model, ["imagenet"], tmp_path)(variables)
    Image.new("RGB", (3000, 9)).save(tmp_path / "imagenet/val/n00000043/long.png")
    scores = Evaluator(model, ["imagenet"], tmp_path, skip_bad=True)(variables)["imagenet"]
    assert scores["pictures"] == 6 and len(scores["skipped"]) == 2 and "too narrow" in str(scores["skipped"])


@pytest.mark.parametrize("break_it, words", [
    (lambda root: None, "no folders of classes and no tars in .*imagenet/val, .*imagenet2012; put ImageNet's"),
    (lambda root: (root / "imagenet/val/n1").mkdir(parents=True), "has 1 folders, not one for each of the 1000"),
    (lambda root: [(root / f"imagenet/val/n{i:04d}").mkdir(parents=True) for i in range(1000)], "no picture in"),
    (lambda root: write_tars(root) or write_tar(root / "imagenet/x.tar", [("a.jpg", b"x")]), "x.tar:a.cls should be a "
     "class from 0 to 999, but is missing"),
    (lambda root: write_tars(root) or write_tar(root / "imagenet/x.tar", [("a.jpg", b"x"), ("a.cls", b"1000")]),
     "holds b'1000'"),
    (lambda root: write_tars(root) or (root / "imagenet/y.tar").write_bytes(b"nothing" * 200), "y.tar is damaged"),
])  # fmt: skip
def test_a_set_that_is_not_there_is_explained(tmp_path, break_it, words):
    break_it(tmp_path)
    with pytest.raises(InputError, match=words):
        classification_sets.open_set("imagenet", tmp_path)
