import io
import itertools

import numpy as np
import pytest
from PIL import Image

from groupvit_jax import viz
from groupvit_jax.errors import InputError
from groupvit_jax.inference import Segmentation
from groupvit_jax.palette import colours, palette_of

SKY, SAND = (0, 0, 250), (250, 200, 0)


@pytest.fixture
def halves():
    """An image of two halves, 400 high and 600 wide, the lower one smaller, and its labels 0 and 2."""
    labels = np.zeros((400, 600), np.int32)
    labels[300:] = 2
    return Image.fromarray(np.where(labels[..., None] == 0, np.uint8(SKY), np.uint8(SAND))), labels


@pytest.fixture
def written(monkeypatch):
    """What is drawn as text: (text, box)."""
    texts, text = [], viz.ImageDraw.ImageDraw.text

    def record(self, xy, string, **style):
        box = {k: style[k] for k in ("font", "anchor", "stroke_width", "align", "spacing") if k in style}
        texts.append((string, self.textbbox(xy, string, **box)))
        text(self, xy, string, **style)

    monkeypatch.setattr(viz.ImageDraw.ImageDraw, "text", record)
    return texts


def result(labels, names, *stages):
    return Segmentation(labels, np.zeros((*labels.shape, 1)), labels, tuple(names), stages or (labels,))


def draw(image, out, view):
    ((name, picture),) = viz.pictures(image, out, [view])
    assert name == view
    return picture


def blobs(h, w, n, seed=0):
    """Labels int [h w] of n regions with crooked borders."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((h, w)) + 12 * np.sin(np.indices((h, w))[::-1] / 9)
    at = rng.random((n, 2)) * (h, w)
    return ((y[..., None] - at[:, 0]) ** 2 + (x[..., None] - at[:, 1]) ** 2).argmin(axis=-1).astype(np.int32)


# ---------------------------------------------------------------- views


def test_the_picture_and_its_classes_pure_and_blended(halves):
    image, labels = halves
    out, palette = result(labels, "abc"), palette_of("abc")
    assert draw(image, out, "input") == image
    pred, over = (np.asarray(draw(image, out, view)) for view in ("pred", "input_pred"))
    np.testing.assert_array_equal(pred[:400], palette[labels])
    for y, below, above in ((100, SKY, palette[0]), (350, SAND, palette[2])):
        mixed = [0.4 * np.mean(below) + 0.6 * p for p in above]  # the image in grey under the label's colour
        np.testing.assert_allclose(over[y, 300], mixed, atol=1)
    assert (over[300, 300] == 255).all()


def test_two_classes_of_a_picture_never_have_one_colour(halves):
    image, labels = halves
    far = np.where(labels == 0, 1, 256)  # the palette has 255 colours
    pred = np.asarray(draw(image, result(far, [str(i) for i in range(600)]), "pred"))
    assert tuple(pred[0, 0]) == tuple(colours(2)[1]) != tuple(pred[399, 0])


def test_a_legend_has_the_labels_that_occur_the_largest_first(halves, written):
    image, labels = halves
    labels[0, :7] = 3
    for view in ("pred", "input_pred"):
        legend = np.asarray(draw(image, result(labels, ["sky", "sea", "sand", "sun"]), view))[410:]
        assert [text for text, _ in written] == ["sky  75 %", "sand  25 %", "sun  <1 %"]
        present = [(legend == colour).all(axis=-1).any() for colour in colours(4)]
        assert present == [True, False, True, True]
        written.clear()


def test_a_legend_of_many_words_stays_short(written):
    labels = np.arange(40 * 40).reshape(40, 40).astype(np.int32) % 30
    picture = draw(Image.new("RGB", (40, 40)), result(labels, [f"word {i}" for i in range(10_000)]), "pred")
    assert len(written) == viz.LEGEND + 1 and written[-1][0] == "and 6 more"
    assert all(box[2] <= picture.width and box[3] <= picture.height for _, box in written)


def test_the_legend_of_a_tall_picture_is_beside_it_and_nothing_is_cut(written):
    for size, beside in (((30, 900), True), ((900, 30), False), ((1, 1), False)):
        picture = draw(Image.new("RGB", size), result(np.zeros(size[::-1], np.int32), ["x" * 99]), "pred")
        ((_, (x0, y0, x1, y1)),) = written
        assert x0 > 0 and y0 > 0 and x1 < picture.width and y1 < picture.height
        assert (x0 > size[0] and y1 < 900) if beside else y0 > size[1]
        written.clear()


def test_group_views_show_the_first_stage_the_last_and_all(halves, written):
    image, labels = halves
    first = labels.copy()
    first[:, 300:] += 70  # any numbers
    out = result(labels, "abc", first, labels)
    sizes = {view: draw(image, out, view).size for view in ("first_group", "final_group", "all_groups")}
    assert [text for text, _ in written] == ["stage 1: 4 groups", "stage 2: 2 groups"] * 2
    assert sizes["first_group"] == sizes["final_group"] and sizes["all_groups"][0] > 2 * 600
    seen = np.asarray(draw(image, out, "first_group"))
    assert len({tuple(seen[y, x]) for y in (100, 350) for x in (100, 500)}) == 4
    one = result(np.zeros_like(labels), "a")
    assert draw(image, one, "all_groups") == draw(image, one, "first_group")
    assert written[-1][0] == "stage 1: 1 group"


def test_groups_of_a_wide_picture_are_one_above_the_other():
    labels = np.zeros((400, 1000), np.int32)
    picture = draw(Image.new("RGB", (1000, 400)), result(labels, "a", labels, labels), "all_groups")
    assert picture.width == 1000 and picture.height > 800


def test_pictures_are_drawn_at_a_size_to_look_at_and_label_maps_at_their_own():
    for size, drawn in (((96, 64), (576, 384)), ((4000, 3000), (2048, 1536)), ((500, 400), (500, 400)),
                        ((3000, 100), (3000, 100)), ((1000, 100), (2048, 205))):
        out = result(np.zeros(size[::-1], np.int32), "a")
        assert draw(Image.new("RGB", size), out, "input").size == drawn
        assert draw(Image.new("RGB", size), out, "labels").size == size


def test_labels_are_enlarged_without_new_ones():
    labels = np.array([[5, 90]] * 2)
    larger = viz.resized(labels)
    assert larger.shape == (384, 384) and (larger[:, :192] == 5).all() and (larger[:, 192:] == 90).all()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("size, n", [((375, 500), 3), ((384, 384), 20), ((1536, 2048), 12), ((400, 3000), 20),
                                     ((1500, 300), 8), ((375, 500), 150)])  # fmt: skip
def test_names_are_in_their_regions_apart_and_off_the_edges(size, n, written):
    labels = blobs(*size, n)
    names = [f"name of {i}" for i in range(n)]
    viz.write_names(Image.new("RGB", size[::-1]), labels, names)
    boxes = [box for _, box in written]
    assert len(written) >= min(n, 8) // 2
    for text, (x0, y0, x1, y1) in written:
        assert x0 > 2 and y0 > 2 and x1 < size[1] - 2 and y1 < size[0] - 2
        assert (labels[int(y0) : int(y1), int(x0) : int(x1)] == names.index(text.replace("\n", " "))).mean() > 0.7
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_large_regions_of_one_class_are_named_each_and_the_background_never(written):
    labels = np.zeros((400, 600), np.int32)
    labels[50:350, 50:250] = labels[50:350, 350:550] = 1
    labels[:20, :20] = 1
    viz.write_names(Image.new("RGB", (600, 400)), labels, ["background", "cat"])
    assert [text for text, _ in written] == ["cat", "cat"]
    assert [50 < (box[0] + box[2]) / 2 < 250 for _, box in written].count(True) == 1


def test_a_name_in_a_narrow_region_breaks_in_two_or_is_left_to_the_legend(written):
    labels = np.zeros((400, 600), np.int32)
    labels[:, :60] = 1
    labels[100:110, 300:310] = 2
    draw(Image.new("RGB", (600, 400)), result(labels, ["floor", "dining table", "pea"]), "input_pred_label")
    texts = [text for text, _ in written]
    assert texts == ["floor", "dining\ntable", "floor  90 %", "dining table  10 %", "pea  <1 %"]


@pytest.mark.parametrize("name, shown", [
    ("cat", "cat"), ("café  au\nlait", "cafe au lait"), ("猫", "label 7"), ("🐱", "label 7"), ("חתול", "label 7"),
    ("猫 cat", "? cat"), ("a\0b\u200bc", "a?b?c"), ("\ud800", "label 7"), ("…", "label 7"),
    ("x" * 10**6, "x" * 31 + "…"), ("a cat " * 8, "a cat a cat a cat a cat a cat a…"), (" " * 10**6 + "a", "label 7"),
])  # fmt: skip
def test_any_name_is_written_in_what_the_font_has(name, shown, written):
    assert viz.readable(name, 7) == shown
    labels = np.full((8, 8), 7, np.int32)
    draw(Image.new("RGB", (8, 8)), result(labels, [*"abcdefg", name]), "input_pred_label")
    assert [text.replace("\n", " ") for text, _ in written] == [shown, f"{shown}  100 %"]


# ---------------------------------------------------------------- label maps and areas


@pytest.mark.parametrize("n, mode", [(3, "P"), (256, "P"), (257, "I;16"), (10_000, "I;16")])
def test_label_maps_keep_their_labels(halves, n, mode):
    image, labels = halves
    labels[0, :2] = n - 1, 1
    data = io.BytesIO()
    draw(image, result(labels, [str(i) for i in range(n)]), "labels").save(data, "PNG")
    back = Image.open(data)
    assert back.mode == mode
    np.testing.assert_array_equal(np.asarray(back), labels)


def test_a_label_map_has_the_colours_of_the_picture(halves):
    image, labels = halves
    out = result(labels, [str(i) for i in range(200)])
    seen = np.asarray(draw(image, out, "labels").convert("RGB"))
    np.testing.assert_array_equal(seen, np.asarray(draw(image, out, "pred"))[:400])


def test_more_labels_than_a_png_holds_are_refused():
    with pytest.raises(InputError, match="65536 labels"):
        viz.label_map(np.zeros((2, 2), np.int32), colours(2**16 + 1))


def test_areas_count_every_class():
    labels = np.array([[0, 0, 2], [2, 2, 2]])
    assert viz.areas("a.jpg", result(labels, ["sky", "sea", "sand"])) == {
        "image": "a.jpg", "size": [2, 3], "background": None, "classes": {
            "sky": {"label": 0, "pixels": 2, "percent": 33.333}, "sea": {"label": 1, "pixels": 0, "percent": 0.0},
            "sand": {"label": 2, "pixels": 4, "percent": 66.667}}}  # fmt: skip
    areas = viz.areas("a.jpg", result(labels, ["background", "cat", "cat"]))
    assert areas["background"] == {"label": 0, "pixels": 2, "percent": 33.333}
    assert list(areas["classes"]) == ["cat", "cat (2)"]
