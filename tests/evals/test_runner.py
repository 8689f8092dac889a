import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from groupvit_jax.evals import classes
from groupvit_jax.evals.runner import Evaluator, evaluate, table

SETTINGS = {"size": 32, "long": 146, "window": 32, "stride": 16, "text_batch": 16}


@pytest.fixture
def compilations():
    seen = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_two_compilations_serve_ten_image_sizes_and_later_calls(model, variables, tmp_path, write_voc, compilations):
    sizes = [(32 + 3 * i, 60 - 4 * i) for i in range(10)]
    write_voc(tmp_path, sizes, classes=21)
    jax.block_until_ready(jax.random.normal(jax.random.key(0)))
    evaluator = Evaluator(model, ["voc"], tmp_path, **SETTINGS)
    compilations.clear()
    first = evaluator(variables)
    assert 1 <= len(compilations) <= 2
    again = evaluator(model.variables(seed=1))
    assert len(compilations) <= 2
    assert first["voc"]["mIoU"] != again["voc"]["mIoU"]
    assert evaluator(variables) == first


def test_sharded_variables_score_the_same_and_compile_once(model, variables, tmp_path, write_voc, compilations):
    if len(jax.devices()) < 2:
        pytest.skip("needs several devices")
    write_voc(tmp_path, [(32, 40), (50, 32), (32, 32)], classes=21)
    evaluator = Evaluator(model, ["voc"], tmp_path, **SETTINGS, batch=4)
    expected = evaluator(variables)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])

    def place(x):
        axis = next((i for i, n in enumerate(np.shape(x)) if n % 2 == 0), None)
        spec = [None] * np.ndim(x)
        if axis is not None:
            spec[axis] = "data"
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P(*spec)))

    sharded = jax.tree.map(place, variables)
    compilations.clear()
    got = evaluator(sharded)
    assert got["voc"]["iou"].keys() == expected["voc"]["iou"].keys()
    assert got["voc"]["mIoU"] == pytest.approx(expected["voc"]["mIoU"], abs=0.2)
    number = len(compilations)
    evaluator(sharded)
    assert len(compilations) == number <= 2


def test_batching_changes_no_score(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 60), (32, 32), (50, 32), (33, 32), (32, 32)], classes=21)
    one = evaluate(model, variables, ["voc"], tmp_path, **SETTINGS, batch=1)
    many = evaluate(model, variables, ["voc"], tmp_path, **SETTINGS, batch=100)
    assert one["voc"]["iou"] == many["voc"]["iou"] and one["voc"]["groups_used"] == many["voc"]["groups_used"]


def test_results_are_json_with_null_for_classes_that_nowhere_occur(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)] * 3, classes=4, name="scenes")
    settings = {"size": 32, "window": 32, "stride": 32, "batch": 8}
    results = evaluate(model, variables, ["scenes"], tmp_path, **settings)
    scores = json.loads(json.dumps(results))["scenes"]
    assert set(scores) == {"mIoU", "accuracy", "iou", "protocol", "images", "mIoU_plain", "constant", "oracle",
                           "groups_used", "classification"}
    assert list(scores["iou"]) == classes.names("scenes") and None in scores["iou"].values()
    assert scores["images"] == 3 and scores["protocol"] == "groupvit" and 1 <= scores["groups_used"] <= 4
    assert scores["oracle"] >= scores["mIoU"] and set(scores["classification"]) == {"top1", "mAP"}
    assert all(name in table(results) for name in ["scenes: mIoU", "oracle", *scores["iou"]])


def test_background_has_no_prompt_but_a_label(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)], classes=21)
    evaluator = Evaluator(model, ["voc"], tmp_path, **SETTINGS)
    assert "background" not in evaluator.tasks[0].named and len(evaluator.tasks[0].named) == 20
    assert "background" in evaluator(variables)["voc"]["iou"]
    present = evaluator.tasks[0].present(np.array([[0, 3, 255]]))
    assert np.flatnonzero(present).tolist() == [2] and len(present) == 20


def test_the_config_section_is_the_argument_list(model, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)], classes=21)
    section = ConfigDict({"every": 10, "tasks": ("voc",), "data_root": str(tmp_path), "batch": 4} | SETTINGS).lock()
    evaluator = Evaluator.from_config(model, section, protocol="tcl")
    assert evaluator.tasks[0].padded.b == 1 and evaluator.protocol == "tcl" and len(evaluator.templates) == 9
    with pytest.raises(TypeError, match="sise"):
        Evaluator.from_config(model, section, sise=3)
