import numpy as np
import pytest
from PIL import Image

from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes
from groupvit_jax.evals.datasets import VocFolder, check_labels, find_tasks, open_tasks


@pytest.fixture
def folder(tmp_path, write_voc):
    return write_voc(tmp_path, [(20, 30), (30, 20)], classes=21)


def test_palette_and_grey_masks_give_their_values(folder):
    labels = np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8)
    grey, palette = Image.fromarray(labels), Image.fromarray(labels)
    palette.putpalette([7] * 768)  # all colours equal: only the values tell
    for mask in (grey, palette):
        mask.save(folder / "SegmentationClass/0.png")
        key, image, read = VocFolder(folder)[0]
        np.testing.assert_array_equal(read, labels)
        assert key == "0" and image.shape == (20, 30, 3)


def test_sizes_come_from_headers(folder):
    np.testing.assert_array_equal(VocFolder(folder).sizes, [(20, 30), (30, 20)])


def test_all_tasks_are_checked_and_the_message_says_where_and_whence(tmp_path):
    with pytest.raises(InputError) as error:
        open_tasks(find_tasks(["scenes", "voc"]), tmp_path)
    message = str(error.value)
    assert str(tmp_path / "VOCdevkit/scenes") in message and "groupvit data scenes" in message
    assert str(tmp_path / "VOCdevkit/VOC2012") in message and "http" in message and "\n" not in message


def test_scenes_are_also_found_in_their_own_folder(tmp_path, write_voc):
    folder = write_voc(tmp_path, [(8, 8)], classes=2, name="scenes")
    for root in (tmp_path, folder):
        assert len(open_tasks(find_tasks(["scenes"]), root)[0]) == 1


@pytest.mark.parametrize("break_it, words", [
    (lambda f: (f / "SegmentationClass/1.png").unlink(), "1.png is missing"),
    (lambda f: (f / "JPEGImages/0.jpg").write_bytes(b"no"), "cannot read"),
    (lambda f: (f / "ImageSets/Segmentation/val.txt").write_text("\n"), "is empty"),
    (lambda f: (f / "ImageSets/Segmentation/val.txt").rename(f / "ImageSets/Segmentation/x.txt"), "val.txt is missing"),
])
def test_a_broken_data_set_is_named_before_any_image_is_read(folder, break_it, words):
    break_it(folder)
    with pytest.raises(InputError, match=words):
        open_tasks(find_tasks(["voc"]), folder.parent.parent)


def test_a_mask_that_does_not_fit_is_named(folder):
    Image.new("L", (5, 5)).save(folder / "SegmentationClass/0.png")
    with pytest.raises(InputError, match="0.png is 5x5 but its image 30x20"):
        VocFolder(folder)[0]
    Image.new("RGB", (30, 20)).save(folder / "SegmentationClass/0.png")
    with pytest.raises(InputError, match="8-bit labels"):
        VocFolder(folder)[0]
    with pytest.raises(InputError, match="x has label 21"):
        check_labels("x", np.array([[0, 20, 255, 21]]), 21)


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(InputError, match="choose among scenes, voc"):
        find_tasks(["vok"])
    with pytest.raises(InputError, match="choose one of groupvit, tcl"):
        classes.templates("clip")
    with pytest.raises(InputError, match="no class list"):
        classes.names("vok")


@pytest.mark.parametrize("key, number", [("voc", 21), ("context", 60), ("context59", 59), ("coco_object", 81),
                                         ("coco_stuff", 171), ("cityscapes", 19), ("ade20k", 150)])
def test_class_lists_are_complete(key, number):
    for protocol in classes.PROTOCOLS:
        assert len(classes.names(key, protocol)) == number and all(classes.names(key, protocol))
    assert classes.palette(key).shape == (number, 3)


def test_protocols_have_their_own_names():
    assert "tvmonitor" in classes.names("voc", "tcl") and "monitor" in classes.names("voc", "groupvit")
    assert "bed " in classes.names("ade20k")  # the blank is in the published prompt
    assert len(classes.lines("imagenet.txt")) == 1000


def test_scenes_have_as_many_colours_as_classes_and_none_twice():
    names = classes.names("scenes", "groupvit")
    assert len(set(names)) == len(names) >= 12
    assert len(np.unique(classes.palette("scenes"), axis=0)) == len(names)
