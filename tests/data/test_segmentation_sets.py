import itertools

import numpy as np
import pytest
from PIL import Image

from groupvit_jax.data import segmentation_sets
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes

KEYS = ("voc", "voc20", "context", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k", "scenes",
        "fashion")
CLASSES = {"voc": 21, "voc20": 20, "context": 60, "context59": 59, "coco_object": 81, "coco_stuff": 171,
           "cityscapes": 19, "ade20k": 150, "scenes": 15, "fashion": 16}
# As the data sets publish them: every picture's image and mask below the data root.
VOC2012, VOC2010, COCO = "VOCdevkit/VOC2012", "VOCdevkit/VOC2010", "coco_stuff164k"
PUBLISHED = {
    "voc": (f"{VOC2012}/JPEGImages/2007_000033.jpg", f"{VOC2012}/SegmentationClass/2007_000033.png"),
    "context": (f"{VOC2010}/JPEGImages/2008_000002.jpg", f"{VOC2010}/SegmentationClassContext/2008_000002.png"),
    "coco_stuff": (f"{COCO}/images/val2017/000000000139.jpg", f"{COCO}/annotations/val2017/000000000139.png"),
    "cityscapes": ("cityscapes/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png",
                   "cityscapes/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png"),
    "ade20k": ("ade/ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",
               "ade/ADEChallengeData2016/annotations/validation/ADE_val_00000001.png"),
    "scenes": ("VOCdevkit/scenes/JPEGImages/val_000000.jpg", "VOCdevkit/scenes/SegmentationClass/val_000000.png"),
    "fashion": ("VOCdevkit/fashion/JPEGImages/val_000000.jpg", "VOCdevkit/fashion/SegmentationClass/val_000000.png"),
}
PUBLISHED |= {"voc20": PUBLISHED["voc"], "context59": PUBLISHED["context"], "coco_object": PUBLISHED["coco_stuff"]}
PREPARED = {
    "coco_object": f"{COCO}/annotations/val2017/000000000139_instanceTrainIds.png",
    "coco_stuff": f"{COCO}/annotations/val2017/000000000139_labelTrainIds.png",
    "cityscapes": "cityscapes/gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png",
}
LISTS = {f"{VOC2012}/ImageSets/Segmentation/val.txt": "2007_000033\n",
         f"{VOC2010}/ImageSets/SegmentationContext/val.txt": "2008_000002\n",
         "VOCdevkit/scenes/ImageSets/Segmentation/val.txt": "val_000000\n",
         "VOCdevkit/fashion/ImageSets/Segmentation/val.txt": "val_000000\n"}


def save(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if palette:
        image = image.convert("P")
        image.putdata(np.asarray(values, np.uint8).ravel().tolist())
        image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(path)


@pytest.fixture
def root(tmp_path):
    """All sets as they are published, with one picture each."""
    for image, mask in PUBLISHED.values():
        save(tmp_path / image, np.zeros((2, 3, 3)))
        save(tmp_path / mask, [[0, 1, 2], [3, 4, 255]])
    for path, text in LISTS.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def one(key, value, ending=None):
    return segmentation_sets.labels(key, np.array([[value]], np.uint8), ending)[0, 0]


def values_of(key, ending=None):
    """mask value -> label id, for every value that the set's masks may have."""
    found = {}
    for value in range(256):
        try:
            found[value] = int(one(key, value, ending))
        except InputError:
            pass
    return found


def test_every_set_is_here():
    assert tuple(layout.key for layout in segmentation_sets.LAYOUTS) == KEYS


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("key", KEYS)
def test_masks_give_every_class_of_the_sets_list_and_no_other_label(key):
    names = classes.names("voc" if key == "voc20" else key)[key == "voc20":]
    ids = set(values_of(key).values())
    assert len(names) == CLASSES[key] and ids - {255} == set(range(CLASSES[key]))


@pytest.mark.parametrize("key", KEYS)
def test_one_value_stands_for_one_class_in_published_order(key):
    """Two values share a label only if it is background or ignored, and labels go up with the values."""
    labels = [label for label in values_of(key).values() if label != 255]
    if key == "coco_object":
        labels = [label for label in labels if label]
    assert labels == sorted(set(labels))


def test_ids_of_coco_are_the_published_ones():
    """The PNGs hold the id less one. Ids and names as in COCO's own list of categories."""
    published = {1: "person", 11: "fire hydrant", 13: "stop sign", 25: "giraffe", 27: "backpack", 31: "handbag",
                 46: "wine glass", 65: "bed", 67: "dining table", 70: "toilet", 72: "tv", 90: "toothbrush"}
    stuff = {92: "banner", 93: "blanket", 94: "branch", 124: "grass", 149: "road", 157: "sky-other", 169: "tree",
             182: "wood"}
    names, objects = classes.names("coco_stuff"), classes.names("coco_object")
    assert {i: names[one("coco_stuff", i - 1)] for i in published | stuff} == published | stuff
    assert {i: objects[one("coco_object", i - 1)] for i in published} == published
    assert one("coco_stuff", 13 - 1) == 11 and one("coco_stuff", 90 - 1) == 79 and one("coco_stuff", 92 - 1) == 80


def test_stuff_and_what_nobody_drew_are_background_of_coco_object_and_only_that_is_ignored_in_coco_stuff():
    assert {one("coco_object", i - 1) for i in range(91, 183)} == {0} and one("coco_object", 255) == 0
    ignored = [value + 1 for value, label in values_of("coco_stuff").items() if label == 255]
    assert ignored == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91, 256]  # street sign, hat, ...: never annotated


def test_ids_of_cityscapes_are_the_published_ones():
    """Ids and names as in cityscapesScripts' table of labels."""
    published = {7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
                 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
                 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
    names = classes.names("cityscapes")
    assert {i: names[one("cityscapes", i)] for i in published} == published
    assert {one("cityscapes", i) for i in {*range(34), 255} - set(published)} == {255}


@pytest.mark.parametrize("key", ["voc20", "context59", "ade20k"])
def test_sets_without_background_ignore_zero_and_move_the_rest_down(key):
    expected = {0: 255, 255: 255} | {value: value - 1 for value in range(1, CLASSES[key] + 1)}
    assert values_of(key) == expected


@pytest.mark.parametrize("key", [*PREPARED, "voc", "context", "scenes"])
def test_label_ids_stay_as_they_are(key):
    ending = {"coco_object": "_instanceTrainIds.png", "coco_stuff": "_labelTrainIds.png",
              "cityscapes": "labelTrainIds.png"}.get(key)
    assert values_of(key, ending) == {value: value for value in (*range(CLASSES[key]), 255)}


@pytest.mark.parametrize("key, value", [("voc", 21), ("voc20", 21), ("ade20k", 151), ("cityscapes", 34),
                                        ("coco_stuff", 182), ("coco_object", 254)])
def test_a_value_that_is_no_class_is_an_error_that_names_it(key, value):
    with pytest.raises(InputError, match=f"{key} has the value {value}"):
        one(key, value)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("key", KEYS)
def test_pairs_of_the_published_layout(key, root):
    (name, image, mask), = segmentation_sets.pairs(key, root)
    assert (image, mask) == tuple(root / path for path in PUBLISHED[key]) and name in image.name
    stuff = [[0, 1, 2], [3, 4, 255]]
    moved = [[255, 0, 1], [2, 3, 255]]
    expected = {"voc20": moved, "context59": moved, "ade20k": moved, "coco_object": [[1, 2, 3], [4, 5, 0]],
                "cityscapes": np.full((2, 3), 255)}.get(key, stuff)
    labels = segmentation_sets.read_labels(key, mask)
    assert labels.dtype == np.uint8 and labels.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("key", PREPARED)
def test_prepared_masks_come_before_the_published_ones_and_are_taken_as_they_are(key, root):
    save(root / PREPARED[key], [[0, 7, 18], [255, 5, 1]])
    (_, _, mask), = segmentation_sets.pairs(key, root)
    assert mask == root / PREPARED[key]
    assert segmentation_sets.read_labels(key, mask).tolist() == [[0, 7, 18], [255, 5, 1]]


def test_listed_sets_keep_the_order_of_the_list_and_others_are_sorted(root):
    for name in ("2007_000042", "2007_000039"):
        for path in PUBLISHED["voc"]:
            save(root / path.replace("2007_000033", name), np.zeros((1, 1)))
    (root / VOC2012 / "ImageSets/Segmentation/val.txt").write_text("2007_000042\n2007_000033\n\n2007_000039\n")
    assert [key for key, _, _ in segmentation_sets.pairs("voc", root)] == ["2007_000042", "2007_000033", "2007_000039"]
    for city, name in itertools.product(("munster", "aachen"), ("000001", "000000")):
        for path in PUBLISHED["cityscapes"]:
            save(root / path.replace("frankfurt", city).replace("000294", name), np.zeros((1, 1)))
    keys = [key for key, _, _ in segmentation_sets.pairs("cityscapes", root)]
    assert keys == sorted(keys) and len(keys) == 5 and keys[0] == "aachen_000000_000000"


def test_another_split_is_taken_by_its_name(root):
    image, mask = (path.replace("val2017", "train2017") for path in PUBLISHED["coco_stuff"])
    save(root / image, np.zeros((1, 1))), save(root / mask, [[0]])
    assert segmentation_sets.pairs("coco_stuff", root, "train2017") == [("000000000139", root / image, root / mask)]


def test_values_of_a_palette_mask_are_its_labels_and_not_its_colours(root):
    mask = root / PUBLISHED["voc"][1]
    save(mask, [[0, 1, 20], [15, 4, 255]], palette=True)
    assert Image.open(mask).mode == "P"
    assert segmentation_sets.read_labels("voc", mask).tolist() == [[0, 1, 20], [15, 4, 255]]


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_set_is_an_error_that_says_where_it_was_looked_for_and_where_to_get_it(key, tmp_path):
    with pytest.raises(InputError) as error:
        segmentation_sets.pairs(key, tmp_path)
    said = str(error.value)
    assert str(tmp_path / segmentation_sets.find_layout(key).folders[0]) in said
    assert "DATA_ROOT" in said and ("http" in said or f"groupvit data {key}" in said)


def test_an_unknown_set_is_an_error_that_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match="'coco'.*coco_object, coco_stuff"):
        segmentation_sets.pairs("coco", tmp_path)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_mask_is_an_error_that_names_it(key, root):
    mask = root / PUBLISHED[key][1]
    mask.unlink()
    with pytest.raises(InputError, match=str(mask)):
        segmentation_sets.pairs(key, root)


def test_a_split_without_images_is_an_error(root):
    (root / PUBLISHED["ade20k"][0]).unlink()
    with pytest.raises(InputError, match="no image in split 'validation'"):
        segmentation_sets.pairs("ade20k", root)


def test_a_mask_of_colours_or_broken_bytes_is_an_error_that_names_the_file(root):
    mask = root / PUBLISHED["voc"][1]
    save(mask, np.zeros((2, 2, 3)))
    with pytest.raises(InputError, match=f"{mask} is not a mask"):
        segmentation_sets.read_labels("voc", mask)
    mask.write_bytes(b"no png")
    with pytest.raises(InputError, match=f"cannot read {mask}"):
        segmentation_sets.read_labels("voc", mask)
