import numpy as np
import pytest
from PIL import Image, ImageFile

from groupvit_jax.data.convert import convert
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes, datasets
from groupvit_jax.evals.datasets import find_tasks, open_all, open_masked
from groupvit_jax.evals.prompts import synonyms
from groupvit_jax.evals.protocol import Protocol


@pytest.fixture
def folder(tmp_path, write_voc):
    return write_voc(tmp_path, [(20, 30), (30, 20)], classes=21)


def voc(root):
    return open_masked("voc", root, None, 21)


def test_palette_grey_and_16_bit_masks_give_their_values(tmp_path, folder):
    labels = (np.arange(600, dtype=np.uint16) % 22).reshape(20, 30).astype(np.uint8)
    labels[labels == 21] = 255
    grey, palette, wide = (Image.fromarray(x) for x in (labels, labels, labels.astype(np.uint16)))
    palette.putpalette([7] * 768)  # all colours equal: only the values tell
    ignored = Image.fromarray(np.where(labels == 255, 65535, labels).astype(np.uint16))
    for mask in (grey, palette, wide, ignored):
        mask.save(folder / "SegmentationClass/0.png")
        key, image, read = voc(tmp_path)[0]
        np.testing.assert_array_equal(read, labels)
        assert key == "0" and image.shape == (20, 30, 3) and read.dtype == np.uint8


def test_sizes_come_from_headers(tmp_path, folder):
    data = (folder / "JPEGImages/1.jpg").read_bytes()
    (folder / "JPEGImages/1.jpg").write_bytes(data[:-60])  # the header is whole, the picture is not
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # as TFDS sets it
    assert datasets.sizes(voc(tmp_path), None) == [(20, 30), (30, 20)]
    with pytest.raises(InputError, match="cannot read .*1.jpg"):
        voc(tmp_path)[1]


def test_all_tasks_are_checked_and_the_message_says_where_and_whence(tmp_path):
    keys = ("voc", "context", "coco_stuff", "cityscapes", "ade20k")
    with pytest.raises(InputError) as error:
        open_all([lambda key=key: open_masked(key, tmp_path, None, 3) for key in keys])
    message = str(error.value)
    assert all(f"{key}: no {tmp_path}" in message and f"TFDS copy in DATA_ROOT/{key}" in message for key in keys)
    assert message.count("http") >= 5 and "\n" not in message


@pytest.mark.parametrize("break_it, words", [
    (lambda f: (f / "SegmentationClass/1.png").unlink(), "1.png is missing"),
    (lambda f: (f / "JPEGImages/0.jpg").write_bytes(b"no"), "cannot read .*0.jpg.*--skip_bad"),
    (lambda f: (f / "ImageSets/Segmentation/val.txt").write_text("\n"), "no image in split 'val'"),
    (lambda f: (f / "ImageSets/Segmentation/val.txt").rename(f / "ImageSets/Segmentation/x.txt"), "no .*val.txt"),
])
def test_a_broken_data_set_is_named_before_any_image_is_read(tmp_path, folder, break_it, words):
    break_it(folder)
    with pytest.raises(InputError, match=words):
        datasets.sizes(voc(tmp_path), None)


def test_a_mask_that_does_not_fit_is_named(tmp_path, folder):
    mask = folder / "SegmentationClass/0.png"
    for image, words in ((Image.new("L", (5, 5)), "0.png is 5x5 but its image 30x20"),
                         (Image.new("RGB", (30, 20)), "0.png is not a mask of 8 or 16 bits"),
                         (Image.new("L", (30, 20), 21), "0.png.* has the value 21"),
                         (Image.fromarray(np.full((20, 30), 300, np.uint16)), "0.png has the value 300")):
        image.save(mask)
        with pytest.raises(InputError, match=words):
            voc(tmp_path)[0]
    Image.new("L", (30, 20), 20).save(mask)
    with pytest.raises(InputError, match="0.png has label 20, but labels are 0 to 3"):
        open_masked("voc", tmp_path, None, 4)[0]


def test_a_tfds_copy_reads_as_the_folders_do(tmp_path, folder):
    convert("voc", tmp_path, tmp_path / "copies")
    ours, copy = voc(tmp_path), voc(tmp_path / "copies")
    assert len(copy) == 2 and [copy.size(i) for i in range(2)] == [(20, 30), (30, 20)]
    for i in range(2):
        assert ours[i][0] == copy[i][0]
        for a, b in zip(ours[i][1:], copy[i][1:], strict=True):
            np.testing.assert_array_equal(a, b)
    info = tmp_path / "copies/voc/1.0.0/features.json"
    info.write_text(info.read_text().replace('"mask"', '"masque"'))
    with pytest.raises(InputError, match="has no field 'mask'"):
        voc(tmp_path / "copies")


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(InputError, match="choose among voc, voc20, context"):
        find_tasks(["vok"])
    with pytest.raises(InputError, match="each data set once"):
        find_tasks(["voc", "voc"])
    with pytest.raises(InputError, match="choose one of groupvit, tcl"):
        classes.templates("clip")
    with pytest.raises(InputError, match="no class list"):
        classes.names("vok")


@pytest.mark.parametrize("key, number", [("voc", 21), ("voc20", 20), ("context", 60), ("context59", 59),
                                         ("coco_object", 81), ("coco_stuff", 171), ("cityscapes", 19),
                                         ("ade20k", 150)])
def test_class_lists_are_complete(key, number):
    for protocol in classes.PROTOCOLS:
        assert len(classes.names(key, protocol)) == number and all(classes.names(key, protocol))
    assert classes.palette(key).shape == (number, 3)


def test_protocols_have_their_own_names():
    assert "tvmonitor" in classes.names("voc", "tcl") and "monitor" in classes.names("voc20", "groupvit")
    assert classes.names("context59", "groupvit")[0] == "airplane" and classes.names("voc20")[0] == "aeroplane"
    assert "bed " in classes.names("ade20k")  # the blank is in the published prompt
    assert len(classes.names("imagenet", "tcl")) == 1000


def test_scenes_have_as_many_colours_as_classes_and_none_twice():
    names = classes.names("scenes", "groupvit")
    assert len(set(names)) == len(names) >= 12
    assert len(np.unique(classes.palette("scenes"), axis=0)) == len(names)


# ---------------------------------------------------------------- the protocols and what may be changed


THRESHOLDS = {"voc": (0.95, 0.5), "context": (0.35, 0.5), "coco_object": (0.95, 0.5)}


@pytest.mark.parametrize("task", datasets.TASKS, ids=lambda task: task.key)
def test_backgrounds_have_the_published_thresholds_and_no_words(task):
    for protocol, threshold in zip(classes.PROTOCOLS, THRESHOLDS.get(task.key, (None, None))):
        names, words, found = Protocol(protocol).class_list(task)
        assert found == threshold and len(words) == len(names)
        assert (words[0] == []) == (threshold is not None) == (names[0] == "background" and task.key in THRESHOLDS)
    assert Protocol("tcl", pamr=True).class_list(task)[2] == (0.4 if task.key in THRESHOLDS else None)
    assert Protocol("groupvit", pamr=True).class_list(task)[2] == THRESHOLDS.get(task.key, (None,))[0]


def test_prompts_are_the_protocols_or_those_asked_for(tmp_path):
    voc, imagenet = find_tasks(["voc", "imagenet"])
    assert len(Protocol().prompts(voc)) == 1 and len(Protocol("tcl").prompts(voc)) == 9
    assert len(Protocol().prompts(imagenet)) == len(Protocol("tcl").prompts(imagenet)) == 7
    assert len(Protocol(templates="full").prompts(voc)) == 80
    (tmp_path / "own.txt").write_text("a {}\n\nthe {}\n")
    assert Protocol(templates=str(tmp_path / "own.txt")).prompts(imagenet) == ["a {}", "the {}"]
    (tmp_path / "own.txt").write_text("a cat\n")
    with pytest.raises(InputError, match="no {} where the class name goes"):
        Protocol(templates=str(tmp_path / "own.txt")).prompts(voc)
    with pytest.raises(InputError, match="photo, subset, full"):
        Protocol(templates="ful").prompts(voc)


def test_every_change_is_named():
    changed = Protocol("tcl", "full", "own.txt", "sky; wall", 0, True)
    voc, voc20, imagenet = find_tasks(["voc", "voc20", "imagenet"])
    assert changed.changes(voc) == ["templates full", "classes own.txt", "background 'sky; wall'", "top 0", "pamr"]
    assert changed.changes(voc20) == ["templates full", "classes own.txt", "top 0", "pamr"]  # it has no background
    assert changed.changes(imagenet) == ["templates full", "classes own.txt"]
    assert Protocol("tcl", oracle=True).changes(voc) == []


def test_a_class_file_that_cannot_be_used_is_named(tmp_path):
    task, = find_tasks(["voc"])
    for content, words in ((None, "cannot read"), (b"\n \n", "is empty"), (b"cat;;dog", "empty name"),
                           (b"\xff\xfe\x00", "cannot read"), (b"background\n", "nothing but a background"),
                           (b"background\ncat; kitten\ncat; tabby", "names two labels alike")):
        if content is not None:
            (tmp_path / "own.txt").write_bytes(content)
        with pytest.raises(InputError, match=words):
            Protocol(class_file=str(tmp_path / "own.txt")).class_list(task)
    (tmp_path / "own.txt").write_text("cat\ndog\n")
    own = str(tmp_path / "own.txt")
    assert Protocol(class_file=own).class_list(task) == (["cat", "dog"], [["cat"], ["dog"]], None)
    with pytest.raises(InputError, match="begin it with 'background'"):
        Protocol(class_file=own, background="sky").class_list(task)
    (tmp_path / "own.txt").write_text("background; sky; wall\ncat\n")
    assert Protocol(class_file=own).class_list(task) == (["background", "cat"], [["sky", "wall"], ["cat"]], None)
    assert synonyms(" cat; kitten ;tabby") == ["cat", "kitten", "tabby"]
