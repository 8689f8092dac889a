"""Exported ONNX programs, run by onnxruntime, against the model they were made from."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import port
import pytest
import tiny_run

from configs import base
from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.errors import InputError
from groupvit_jax.exported import onnx as interop_onnx
from groupvit_jax.exported.proof_programs import blocks
from groupvit_jax.inference import Model
from groupvit_jax.models import attention

OUTPUTS = ["image_encoder", "text_encoder", "segmenter", "segmenter with background"]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    pytest.importorskip("jax2onnx", reason='needs jax2onnx')
    folder, arange = tmp_path_factory.mktemp("programs"), jnp.arange
    interop_onnx.export(model, folder)
    assert jnp.arange is arange  # the converter patches JAX, and takes it back
    return folder


@pytest.fixture(scope="module")
def sessions(folder):
    import onnxruntime

    return {path.stem: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")}


def test_each_file_takes_and_gives_what_the_manifest_says(folder, sessions):
    import onnx

    manifest = json.loads((folder / "manifest.json").read_text())
    types = {"uint8": "tensor(uint8)", "int32": "tensor(int32)", "float32": "tensor(float)"}
    for name, program in manifest["programs"].items():
        values = *program["takes"], program["gives"]
        said = [(value["name"], types[value["dtype"]], value["shape"]) for value in values]
        session = sessions[program["file"].removesuffix(".onnx")]
        assert said == [(x.name, x.type, x.shape) for x in (*session.get_inputs(), *session.get_outputs())]
        loaded = onnx.load(folder / program["file"])
        onnx.checker.check_model(loaded, full_check=True)
        assert [x.version for x in loaded.opset_import] == [manifest["opset"]], name


def test_a_model_with_more_tokens_than_a_tpu_has_lanes_is_exported(tmp_path_factory, tmp_path):
    """Its attention has a form of its own for TPUs, which is nothing for a converter."""
    model = tiny_run.load(tmp_path_factory.mktemp("run"), model__image__patch_size=2, model__image__width=8)
    assert (32 // 2) ** 2 > attention.LANES
    interop_onnx.export(model, tmp_path)
    assert max(difference.absolute for difference in interop_onnx.differences(model, tmp_path)) < 1e-4


@pytest.mark.parametrize("b", [1, 3, 7])
def test_the_encoders_give_the_models_embeddings_for_any_batch(model, sessions, b):
    images, texts = blocks(b, 32), [f"a cat {'and a cat ' * i}" for i in range(b)]
    found = interop_onnx.run(sessions["image_encoder"], images)
    np.testing.assert_allclose(found, model.encode_image(images), atol=1e-5)
    found = interop_onnx.run(sessions["text_encoder"], tokenize(texts, model.module.text.length))
    np.testing.assert_allclose(found, model.encode_text(texts), atol=1e-5)


@pytest.mark.parametrize("background", [False, 0.3])
def test_the_programs_together_segment_as_the_model_does(model, sessions, background):
    pictures, names = blocks(2, 32), ["cat", "a very old house on a hill"]
    tokens = tokenize([f"a photo of a {name}." for name in names], 16)
    classes, threshold = interop_onnx.run(sessions["text_encoder"], tokens), -1.0
    if background:
        classes, threshold = np.concatenate([np.zeros((1, 16), np.float32), classes]), background
    found = interop_onnx.run(sessions["segmenter"], pictures, classes, np.float32(threshold))
    expected = [model.segment(picture, names, background=background).scores for picture in pictures]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_differences_of_both_kinds_of_models_are_of_rounding(model, folder, tmp_path):
    """The segmenter's batches have 2 and 20 classes."""
    (one_stage := tmp_path / "programs").mkdir()
    other = tiny_run.load(tmp_path / "run", model__dtype="bfloat16")
    interop_onnx.export(other, one_stage)
    for found in (interop_onnx.differences(model, folder), interop_onnx.differences(other, one_stage)):
        assert [each.output for each in found] == OUTPUTS
        assert all(0 <= each.absolute < 1e-5 and 0 <= each.relative < 1e-5 for each in found), found


@pytest.mark.parametrize("missing, call", [("jax2onnx", "export"), ("onnx", "export"), ("onnxruntime", "differences")])
def test_without_the_extra_it_says_how_to_get_it(model, tmp_path, monkeypatch, missing, call):
    for name in ("jax2onnx", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else json)
    with pytest.raises(InputError, match=rf"needs {missing}.*pip install jax2onnx onnx"):
        getattr(interop_onnx, call)(model, tmp_path)


@pytest.mark.slow
def test_a_model_of_the_published_size_is_converted_within_rounding(tmp_path):
    pytest.importorskip("jax2onnx", reason='needs jax2onnx')
    config = base.get_config()
    config.data.prompts = 0  # the port has no second logit scale
    _, variables, _ = port.make_ours(port.PUBLISHED, port.make_port(port.PUBLISHED))
    model = Model(config, variables)
    interop_onnx.export(model, tmp_path)
    sizes = {path.stem: path.stat().st_size / 4 for path in tmp_path.glob("*.onnx")}
    assert sum(sizes.values()) < 1.05 * (2 * 31.5e6 + 24.3e6), sizes  # each weight is in a file once
    found = interop_onnx.differences(model, tmp_path)
    assert all(each.absolute < 1e-4 for each in found), found
