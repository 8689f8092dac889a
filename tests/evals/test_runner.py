"""The evaluator as a whole: what compiles, what does not matter, what is left out, what it says."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from groupvit_jax import parallel
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes, table
from groupvit_jax.evals.protocol import Protocol
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.windows import Geometry

GEOMETRY = Geometry(size=32, long=146, window=32, stride=16)


def mesh(data, fsdp=1):
    """Over the first devices."""
    devices = jax.devices()[: data * fsdp]
    return jax.make_mesh((data, fsdp, 1), parallel.MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3,
                         devices=devices)


def make(model, root, tasks=("voc",), **settings):
    return Evaluator(model, list(tasks), root, **{"geometry": GEOMETRY, "text_batch": 16, "mesh": mesh(1)} | settings)


def test_two_compilations_serve_a_hundred_image_sizes_several_sets_and_later_calls(
        model, variables, tmp_path, write_voc, compilations):
    write_voc(tmp_path, [(24 + i % 40, 60 - i // 3) for i in range(100)], classes=21)
    write_voc(tmp_path, [(32, 60), (41, 33)], classes=15, name="scenes")
    evaluator = make(model, tmp_path, ["voc", "scenes", "voc20"])
    compilations.clear()
    first = evaluator(variables)
    assert len(compilations) == 2  # one for texts, one for images
    again = evaluator(model.variables(seed=1))
    assert len(compilations) == 2
    assert first["voc"]["images"] == 100 and first["voc"]["mIoU"] != again["voc"]["mIoU"]
    assert all((evaluator(variables)[key]["confusion"] == first[key]["confusion"]).all() for key in first)


@pytest.mark.parametrize("data, fsdp", [(2, 1), (1, 4), (4, 2)])
def test_the_counts_are_the_same_on_any_number_of_devices(model, variables, tmp_path, write_voc, data, fsdp):
    write_voc(tmp_path, [(32, 40), (50, 32), (32, 32), (40, 100), (32, 50)], classes=21)
    expected = make(model, tmp_path)(variables)["voc"]
    for batch in (1, 3):
        got = make(model, tmp_path, mesh=mesh(data, fsdp), batch=batch)(variables)["voc"]
        np.testing.assert_array_equal(got["confusion"], expected["confusion"])
        assert {k: v for k, v in got.items() if k != "confusion"} == {
            k: v for k, v in expected.items() if k != "confusion"}


def test_sharded_variables_stay_where_they_are(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 40), (50, 32)], classes=21)
    here = mesh(1, 2)

    def place(x):
        axis = next((i for i, n in enumerate(np.shape(x)) if n % 2 == 0), None)
        spec = ["fsdp" if i == axis else None for i in range(np.ndim(x))]
        return jax.device_put(x, jax.NamedSharding(here, jax.P(*spec)))

    sharded = jax.tree.map(place, variables)
    placed = parallel.place(sharded, here)
    assert all(a is b for a, b in zip(jax.tree.leaves(sharded), jax.tree.leaves(placed)))
    got, expected = (make(model, tmp_path, mesh=here)(v)["voc"] for v in (sharded, variables))
    assert got["mIoU"] == pytest.approx(expected["mIoU"], abs=0.2)


def test_batching_changes_no_count(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 60), (32, 32), (50, 32), (33, 32), (32, 32)], classes=21)
    one, many = (make(model, tmp_path, batch=batch)(variables)["voc"] for batch in (1, 100))
    np.testing.assert_array_equal(one["confusion"], many["confusion"])
    assert one["groups_used"] == many["groups_used"] and one["image_top1"] == many["image_top1"]


def test_scores_become_json_with_null_for_classes_that_nowhere_occur(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)] * 3, classes=4, name="scenes")
    results = make(model, tmp_path, ["scenes"], protocol=Protocol(oracle=True))(variables)
    paths = table.write(tmp_path / "out" / "scores.json", results)
    scores = json.loads((tmp_path / "out/scores.json").read_text())["scenes"]
    assert set(scores) == {"protocol", "images", "mIoU", "accuracy", "iou", "constant", "groups_used", "image_top1",
                           "oracle", "confusion"}
    assert list(scores["iou"]) == classes.names("scenes") and None in scores["iou"].values()
    assert scores["images"] == 3 and scores["protocol"] == "groupvit" and 1 <= scores["groups_used"] <= 4
    assert scores["oracle"]["mIoU"] >= scores["mIoU"] and 0 <= scores["image_top1"] <= 100
    assert scores["confusion"] == "scores.scenes.npy"
    assert [path.name for path in paths] == ["scores.json", "scores.scenes.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "out/scores.scenes.npy"), results["scenes"]["confusion"])
    printed = table.text(results)
    assert all(name in printed for name in ["scenes: mIoU", "oracle", *scores["iou"]]) and "published" not in printed


def test_the_table_has_the_published_figures_and_says_whose_they_are(model, variables, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)], classes=21)
    results = make(model, tmp_path, protocol=Protocol("tcl", top=3), geometry=Geometry(32, 146, 32, 16, flip=True))(
        variables)
    printed = table.text(results)
    assert "published: GroupViT, GCC + YFCC" in printed and " 52.3" in printed
    assert "protocol tcl, top 3, flip, 1 images" in printed.splitlines()[0]
    assert results["voc"]["changes"] == ["top 3", "flip"]


def test_an_image_counts_as_found_if_its_nearest_class_is_in_it(model, variables, tmp_path, write_voc):
    folder = write_voc(tmp_path, [(32, 32)] * 2, classes=15, name="scenes")
    evaluator, found = make(model, tmp_path, ["scenes"]), []
    for label in range(15):
        for key in "01":
            Image.fromarray(np.full((32, 32), label, np.uint8)).save(folder / f"SegmentationClass/{key}.png")
        found.append(evaluator(variables)["scenes"]["image_top1"])
    assert sum(found) == 100.0  # each picture has one nearest class


# ---------------------------------------------------------------- what is bad


BREAK = {
    "a broken picture": lambda f: (f / "JPEGImages/1.jpg").write_bytes(b"no picture"),
    "a cut picture": lambda f: (f / "JPEGImages/1.jpg").write_bytes((f / "JPEGImages/1.jpg").read_bytes()[:500]),
    "a mask of another size": lambda f: Image.new("L", (5, 5)).save(f / "SegmentationClass/1.png"),
    "a picture too narrow for a patch": lambda f: Image.new("RGB", (2000, 20)).save(f / "JPEGImages/1.jpg"),
    "an unknown label": lambda f: Image.new("L", (40, 32), 99).save(f / "SegmentationClass/1.png"),
}


@pytest.mark.parametrize("what", BREAK)
def test_what_is_bad_ends_the_evaluation_or_is_left_out_and_reported(model, variables, tmp_path, write_voc, what):
    folder = write_voc(tmp_path, [(32, 40)] * 3, classes=21)
    (folder / "ImageSets/Segmentation/good.txt").write_text("0\n2\n")
    expected = make(model, tmp_path, split="good")(variables)["voc"]
    BREAK[what](folder)
    with pytest.raises(InputError, match="/1[.].*--skip_bad"):
        make(model, tmp_path)(variables)
    got = make(model, tmp_path, skip_bad=True)(variables)["voc"]
    np.testing.assert_array_equal(got["confusion"], expected["confusion"])
    assert got["images"] == 2 and len(got["skipped"]) == 1 and "/1." in got["skipped"][0]
    assert "left out: 1 that cannot be used" in table.text({"voc": got})


def test_arguments_that_do_not_go_together_are_refused(model, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)], classes=21)
    write_voc(tmp_path, [(32, 32)], classes=15, name="scenes")
    (tmp_path / "own.txt").write_text("a\nb\n")
    (tmp_path / "many.txt").write_text("".join(f"thing {i}\n" for i in range(256)))
    for settings, words in (({"batch": -1}, "batch=-1"), ({"tasks": []}, "each data set once"),
                            ({"tasks": ["scenes"], "protocol": Protocol(background="sky")}, "no background in scenes"),
                            ({"tasks": ["voc", "scenes"], "protocol": Protocol(class_file=str(tmp_path / "own.txt"))},
                             "one task"),
                            ({"tasks": ["voc"], "protocol": Protocol(class_file=str(tmp_path / "many.txt"))},
                             "masks can hold 255")):
        with pytest.raises(InputError, match=words):
            make(model, tmp_path, **settings)


def test_the_config_section_is_the_argument_list(model, tmp_path, write_voc):
    write_voc(tmp_path, [(32, 32)], classes=21)
    section = ConfigDict({"every": 10, "tasks": ("voc",), "data_root": str(tmp_path), "batch": 4, "size": 32,
                          "long": 146, "window": 32, "stride": 16}).lock()
    evaluator = Evaluator.from_config(model, section, protocol=Protocol("tcl"), mesh=mesh(1), flip=True)
    assert evaluator.geometry == Geometry(32, 146, 32, 16, flip=True) and evaluator.protocol.name == "tcl"
    with pytest.raises(TypeError, match="sise"):
        Evaluator.from_config(model, section, sise=3)
