"""The exported segment.py gives the label maps of `Model.segment`, with PyTorch and `transformers` alone."""

import inspect
import subprocess
import sys

import cv2
import exported
import numpy as np
import port
import pytest
import torch
from PIL import Image

from groupvit_jax.data import images
from groupvit_jax.drawn import scenes
from groupvit_jax.evals import classes, prompts
from groupvit_jax.evals.windows import window_starts
from groupvit_jax.inference import VOC
from groupvit_jax.interop import torch_segment

ONE_STAGE = port.SMALL | {"image": port.SMALL["image"] | dict(depths=(2, 2), group_tokens=(12, 0),
                                                              output_groups=(4, 0))}
MANY = ["cat; kitten", "dog; puppy; hound", "grass", "rocket", "cup", "spoon", "woman; astronaut", "tree", "a sea"]
# Height, width: landscape, portrait, smaller than a window, just a window, a panorama longer than 4.57 : 1 (then
# windows are lower than 96, here 65), one that shrinks to exactly half, a pixel more than a window.
SIZES = [(121, 180), (300, 97), (50, 41), (96, 96), (60, 400), (192, 288), (97, 96)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """PyTorch's threads wait for XLA's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def ours(folder):
    return exported.write(folder, port.SMALL)


@pytest.fixture(scope="module")
def theirs(folder, ours):
    return torch_segment.Segmenter(folder)


def compare(ours, theirs, image, names, background, protocol) -> int:
    """Asserts that labels and scores are equal but where rounding decides; how many labels there are."""
    expected, found = (model.segment(image, names, background, protocol) for model in (ours, theirs))
    assert tuple(found.names) == expected.names
    assert found.labels.dtype == np.int32 and found.scores.dtype == np.float32
    assert found.labels.shape == expected.labels.shape and found.scores.shape == expected.scores.shape
    second, best = np.sort(expected.scores, axis=-1)[..., -2:].transpose(2, 0, 1)
    near = best - second < 1e-5
    # A pixel whose two best groups are as good as equal may go to the other.
    other = np.abs(found.scores - expected.scores).max(axis=-1) > 1e-4
    differ = found.labels != expected.labels
    print(f"{near.size} pixels, {background} {protocol}: {differ.sum()} differ, in {near.sum()} two scores are near, "
          f"{other.sum()} went to another group")
    assert not (differ & ~near & ~other).any() and near.mean() < 5e-3 and other.mean() < 1e-3
    return len(np.unique(expected.labels))


@pytest.mark.parametrize("protocol", ["groupvit", "tcl"])
@pytest.mark.parametrize("background", [False, True, 0.05, "the sky; a wall"])
def test_labels_are_ours_for_every_kind_of_background(ours, theirs, background, protocol):
    seen = [compare(ours, theirs, exported.photograph(i, 121 + 30 * i, 180), MANY, background, protocol)
            for i in range(2)]
    assert max(seen) > 1


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_labels_are_ours_for_every_shape_of_image(ours, theirs, size):
    for i in range(2):
        compare(ours, theirs, np.asarray(exported.photograph(i, *size)), MANY[:7], 0.2, "groupvit")


def test_labels_are_ours_for_drawn_scenes(ours, theirs):
    for i, names in enumerate((["sand; beach", "sea"], ["a red square"])):
        compare(ours, theirs, scenes.draw(0, i, size=128).image, names, True, "groupvit")


def test_one_class_owns_everything(theirs):
    out = theirs.segment(scenes.draw(0, 3, size=128).image, "a cat")
    assert out.names == ["a cat"] and not out.labels.any() and np.abs(out.scores - 1).max() < 1e-6


def test_labels_are_ours_with_one_stage_of_grouping(tmp_path):
    ours = exported.write(tmp_path, ONE_STAGE)
    theirs = torch_segment.Segmenter(tmp_path)
    seen = [compare(ours, theirs, exported.photograph(i, 150, 230), MANY, True, "groupvit") for i in range(4)]
    assert max(seen) > 1


def test_resize_is_opencvs_bit_for_bit():
    rng = np.random.default_rng(0)
    for i in range(300):
        h, w, height, width = rng.integers(1, (60, 60, 200, 200) if i % 2 else (300, 300, 120, 120))
        if i % 10 == 0:
            h, w = 2 * height, 2 * width  # OpenCV takes means then
        image = rng.integers(0, 256, (h, w, 3), np.uint8)
        expected = cv2.resize(image, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(torch_segment.resize(image, height, width), expected, str((h, w, height, width)))


@pytest.mark.parametrize("size", [(333, 500), (896, 1200), (1200, 449), (100, 1000), (448, 448)], ids=str)
def test_canvas_and_windows_are_the_protocols(theirs, monkeypatch, size):
    monkeypatch.setattr(theirs, "geometry", {"size": 448, "long": 2048, "window": 448, "stride": 224})
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    canvas = theirs.resize_shorter(image)
    np.testing.assert_array_equal(canvas, images.resize_shorter(image, 448, 2048))
    for side in (*canvas.shape[:2], 673):
        assert [part.start for part in theirs.windows(side)] == window_starts(side, 448, 224)


def test_prompts_thresholds_and_normalisation_are_the_packages():
    for protocol in classes.PROTOCOLS:
        assert torch_segment.TEMPLATES[protocol] == classes.templates(protocol)
    assert torch_segment.THRESHOLDS == VOC.background
    assert torch_segment.TOP == inspect.signature(prompts.make_queries).parameters["top"].default
    for ours, theirs in ((images.MEAN, torch_segment.MEAN), (images.STD, torch_segment.STD)):
        np.testing.assert_array_equal(np.float32(ours), theirs.numpy())


def test_sixteen_bits_grey_and_alpha_are_read_as_we_read_them(ours, theirs):
    photo = exported.photograph(1, 96, 140)
    deep = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 256 + 7)
    assert deep.mode.startswith("I")
    for image in (deep, photo.convert("L"), photo.convert("RGBA"), photo.convert("P")):
        compare(ours, theirs, image, MANY, False, "groupvit")


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"classes": []}, "at least one class"),
    ({"classes": ["a", " "]}, "empty name"),
    ({"classes": ["a; "]}, "empty name"),
    ({"background": 1.5}, "between 0 and 1"),
    ({"background": "sky; "}, "empty name"),
    ({"protocol": "clip"}, "choose one of groupvit, tcl"),
    ({"image": np.zeros((8, 8), np.uint8)}, "uint8 array"),
    ({"image": np.zeros((8, 8, 3), np.float32)}, "uint8 array"),
    ({"image": np.zeros((2, 100, 3), np.uint8)}, "crop its long side"),
])
def test_bad_input_says_what_to_give(theirs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        theirs.segment(**{"image": np.zeros((96, 96, 3), np.uint8), "classes": ["a"]} | kwargs)


def test_the_logit_scale_counts_up_to_100(theirs):
    scale = theirs.model.logit_scale
    before = scale.item()
    image, scores = exported.photograph(0, 96, 96), []
    for value in (99.0, 100.0, 150.0):
        scale.data.fill_(np.log(value))
        scores.append(theirs.segment(image, MANY).scores)
    scale.data.fill_(before)
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4


# As where only PyTorch and `transformers` are installed.
ALONE = ("import runpy, sys\n"
         "for name in ('groupvit_jax', 'jax', 'jaxlib', 'flax', 'cv2', 'torchvision'): sys.modules[name] = None\n"
         "sys.argv = sys.argv[1:]\n"
         "runpy.run_path(sys.argv[0], run_name='__main__')")


def run(folder, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", "-c", ALONE, folder / "segment.py", *arguments], capture_output=True,
                          text=True, timeout=120)


def test_script_needs_pytorch_alone_and_writes_labels_and_areas(folder, ours, tmp_path):
    photo = exported.photograph(0, 150, 100)
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor lay on its side
    photo.save(tmp_path / "photo.png", exif=exif)
    upright = np.rot90(np.asarray(photo), -1)
    expected = ours.segment(upright, ["cat; kitten", "tree", "sofa"], True)
    done = run(folder, str(tmp_path / "photo.png"), "--classes=cat; kitten,tree, sofa", "--background",
               f"--output={tmp_path / 'labels.png'}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    with Image.open(tmp_path / "labels.png") as labels:
        assert labels.mode == "P"
        np.testing.assert_array_equal(np.asarray(labels), expected.labels)
        assert labels.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    areas = [f"{(expected.labels == i).mean():6.1%}  {name}" for i, name in enumerate(expected.names)]
    assert done.stdout.splitlines() == areas


def test_script_ends_with_one_line_for_bad_input(folder, ours, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    done = run(folder, str(tmp_path / "broken.png"), "--classes=cat")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "broken.png as an image" in done.stderr
