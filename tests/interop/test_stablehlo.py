"""Exported StableHLO programs against the model they were made from."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import port
import pytest
import tiny_run
from jax import export as jax_export

import groupvit_jax as gv
from configs import base
from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.evals.prompts import make_queries
from groupvit_jax.exported import programs as made
from groupvit_jax.exported import stablehlo, stablehlo_load
from groupvit_jax.exported.proof_programs import blocks, compare
from groupvit_jax.inference import Model
from groupvit_jax.interop import huggingface

FILES = ["image_encoder.bin", "load.py", "manifest.json", "segmenter.bin", "text_encoder.bin", "weights.npz"]
BATCHES = (1, 3, 7)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    stablehlo.export(model, folder)
    return folder


@pytest.fixture(scope="module")
def programs(folder):
    return stablehlo_load.load(folder)


@pytest.fixture(scope="module")
def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_the_folder_holds_the_files_that_the_manifest_names_and_no_other(folder, manifest):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    named = [program["file"] for program in manifest["programs"].values()] + [manifest["weights"]]
    assert sorted([*named, "load.py", "manifest.json"]) == FILES


@pytest.mark.parametrize("b", BATCHES)
def test_the_encoders_give_the_models_embeddings_for_any_batch(model, programs, b):
    images, texts = blocks(b, 32), [f"a cat {'and a cat ' * i}" for i in range(b)]
    np.testing.assert_allclose(programs["image_encoder"](images), model.encode_image(images), atol=1e-5)
    tokens = tokenize(texts, model.module.text.length)
    np.testing.assert_allclose(programs["text_encoder"](tokens), model.encode_text(texts), atol=1e-5)


@pytest.mark.parametrize("b, c", [(1, 2), (3, 40), (7, 2)])
def test_the_segmenter_scores_any_batch_and_any_number_of_classes_as_the_evaluation_does(model, programs, b, c):
    classes = np.random.default_rng(b).normal(size=(c, 16)).astype(np.float32)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    for first, threshold in ((0, None), (1, 0.3)):
        words = [[]] * first + [[str(i)] for i in range(first, c)]
        queries = make_queries(lambda _: classes[first:], words, ["{}"], threshold)  # noqa: B023
        windows = [model._score(model.variables, window[None], queries) for window in blocks(b, 32)]
        expected = np.stack([np.einsum("hgw,gc->hwc", x.members[0], x.table[0, :, :c]) for x in windows])
        scores = programs["segmenter"](blocks(b, 32), classes, np.float32(-1 if threshold is None else threshold))
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert c == 2 or 0 < expected[..., 0].mean() < 1  # there is background and something else


@pytest.mark.parametrize("background", [False, 0.3])
def test_the_programs_together_segment_as_the_model_does(model, programs, background):
    (picture,), names = blocks(1, 32), ["cat", "a very old house on a hill"]
    classes, threshold = programs["text_encoder"](tokenize([f"a photo of a {name}." for name in names], 16)), -1.0
    if background:
        classes, threshold = np.concatenate([np.full((1, 16), np.nan, np.float32), classes]), background
    (scores,) = programs["segmenter"](picture[None], classes, np.float32(threshold))
    np.testing.assert_allclose(scores, model.segment(picture, names, background=background).scores, atol=1e-5)


def test_the_manifest_says_what_the_programs_take_and_give(folder, programs, manifest):
    sizes = {"b": 1, "c": 2}
    for name, program in manifest["programs"].items():
        exported = jax_export.deserialize(bytearray((folder / program["file"]).read_bytes()))
        assert list(exported.platforms) == manifest["platforms"] == ["cpu", "cuda", "tpu"]
        assert exported.calling_convention_version == manifest["calling_convention_version"]
        arrays = [np.zeros([sizes.get(n, n) for n in take["shape"]], take["dtype"]) for take in program["takes"]]
        out, gives = programs[name](*arrays), program["gives"]
        assert (out.dtype, list(out.shape)) == (gives["dtype"], [sizes.get(n, n) for n in gives["shape"]])
    assert manifest["jax"] == jax.__version__


def test_the_manifest_has_what_goes_with_the_programs(model, manifest):
    tokens = manifest["tokens"]
    row = gv.tokenize("a cat", tokens["length"])[0]
    assert row[0] == tokens["start"] and row[3] == tokens["end"] and (row[4:] == tokens["padding"]).all()
    assert manifest["window"] == 32 and manifest["templates"] == ["a photo of a {}."]
    assert manifest["logit_scale"] == pytest.approx(np.exp(model.variables["params"]["caption_scale"]))


ALONE = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("groupvit_jax", "flax", "optax", "orbax", "ml_collections", "absl", "cv2", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import numpy as np
from load import load
np.save(sys.argv[3], load()["image_encoder"](np.load(sys.argv[2])))
"""


def test_the_loader_needs_nothing_of_this_package(model, folder, tmp_path):
    images = blocks(3, 32)
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run([sys.executable, "-c", ALONE, folder, tmp_path / "images.npy", tmp_path / "out.npy"],
                          capture_output=True, text=True, timeout=120, cwd=tmp_path, env=os.environ)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.encode_image(images), atol=1e-5)


@pytest.mark.parametrize("value, least", [(3.0, 1e-3), (np.nan, np.inf)])
def test_a_weight_that_was_not_carried_over_shows_as_a_difference(model, value, least):
    def encode(tokens):
        weights = huggingface.flat(model.variables)
        weights["params/text_projector/fc2/bias"] = weights["params/text_projector/fc2/bias"] + value
        return made.make(model)["text_encoder"].call(weights, tokens)

    (found,) = compare(model, {"text_encoder": encode})
    assert found.output == "text_encoder" and found.absolute >= least


def test_a_one_stage_model_trained_in_bfloat16_is_exported_in_float32(tmp_path):
    model = tiny_run.load(tmp_path / "run", model__dtype="bfloat16")
    (folder := tmp_path / "programs").mkdir()
    stablehlo.export(model, folder)
    found = stablehlo.differences(model, folder)
    assert [each.output for each in found] == [
        "image_encoder", "text_encoder", "segmenter", "segmenter with background"]
    assert all(0 <= each.absolute < 1e-5 and 0 <= each.relative < 1e-5 for each in found), found
    images = blocks(1, 32)
    rounded, exact = model.encode_image(images), stablehlo_load.load(folder)["image_encoder"](images)
    assert np.abs(rounded - exact).max() > 1e-4  # so it is not bfloat16 that was exported


@pytest.mark.slow
def test_a_model_of_the_published_size_is_exported_within_rounding(tmp_path):
    jax.config.update("jax_disable_most_optimizations", False)  # this one runs longer than it compiles
    config = base.get_config()
    config.data.prompts = 0  # the port has no second logit scale
    _, variables, _ = port.make_ours(port.PUBLISHED, port.make_port(port.PUBLISHED))
    model = Model(config, variables)
    stablehlo.export(model, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.bin")) < 2e6  # the weights are not in the programs
    found = stablehlo.differences(model, tmp_path)
    assert all(each.absolute < 1e-5 for each in found), found
