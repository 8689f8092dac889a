import io

import numpy as np
import pytest
from PIL import Image

from groupvit_jax import viz
from groupvit_jax.errors import InputError
from groupvit_jax.inference import Segmentation

SKY, SAND = (0, 0, 250), (250, 200, 0)


@pytest.fixture
def halves():
    """An image of two halves, 40 high and 60 wide, and its labels 0 and 2."""
    labels = np.zeros((40, 60), np.int32)
    labels[30:] = 2
    return np.where(labels[..., None] == 0, np.uint8(SKY), np.uint8(SAND)), labels


def test_many_colours_are_all_different():
    palette = viz.colours(256)
    assert palette.shape == (256, 3) and palette.dtype == np.uint8 and len(np.unique(palette, axis=0)) == 256
    assert viz.colours(0).shape == (0, 3)
    distance = np.abs(viz.colours(20)[:, None].astype(int) - viz.colours(20)[None]).sum(axis=-1)
    assert distance[~np.eye(20, dtype=bool)].min() > 30


def test_small_pictures_are_enlarged_by_whole_factors_and_large_ones_left():
    small = viz.enlarged(np.arange(6).reshape(2, 3), side=4)
    assert small.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert viz.enlarged(np.zeros((5, 9, 3)), side=4).shape == (5, 9, 3)


def test_borders_lie_between_labels():
    assert viz.borders(np.array([[1, 1, 2], [1, 1, 2]])).tolist() == [[False, True, False]] * 2
    assert not viz.borders(np.ones((3, 3), int)).any()


def test_a_label_picture_shows_the_image_the_overlay_and_a_legend_of_what_occurs(halves, monkeypatch):
    image, labels = halves
    written = []
    monkeypatch.setattr(viz.ImageDraw.ImageDraw, "text", lambda self, xy, text, **_: written.append(text))
    palette = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    out = viz.label_picture(image, labels, ["sky", "sea", "sand"], palette)
    assert written == ["sky  75 %", "sand  25 %"]
    assert out.width == 2 * 60 * 10 and out.height > 40 * 10  # enlarged tenfold, the legend below
    assert out.getpixel((300, 100)) == SKY
    for y, below, above in ((100, SKY, palette[0]), (350, SAND, palette[2])):
        mixed = [0.4 * np.mean(below) + 0.6 * p for p in above]  # the image in grey under the label's colour
        np.testing.assert_allclose(out.getpixel((900, y)), mixed, atol=1)
    assert out.getpixel((900, 299)) == (255, 255, 255)
    legend = np.asarray(out)[405:]
    assert (legend == palette[0]).all(axis=-1).any() and not (legend == palette[1]).all(axis=-1).any()


def test_a_group_picture_paints_each_group_in_its_mean_colour(halves):
    image, labels = halves
    groups = np.where(labels == 0, 17, 4)  # any numbers
    groups[:, 30:] = 9
    out = viz.group_picture(image, groups, "stage 1")
    assert out.getpixel((620, 100)) == SKY and out.getpixel((620, 350)) == SAND
    mean = out.getpixel((1150, 100))
    assert mean == out.getpixel((1150, 390)) == tuple(int(0.75 * a + 0.25 * b) for a, b in zip(SKY, SAND))


def test_a_legend_of_many_rows_grows_downwards_and_stays_on_the_picture():
    rows = [((255, 0, 0), f"class {i}") for i in range(40)]
    few, many = (viz.with_legend(np.zeros((50, 300, 3), np.uint8), rows[:n]) for n in (1, 40))
    assert few.width == many.width == 300 and 50 < few.height < many.height
    large = viz.with_legend(np.zeros((50, 6400, 3), np.uint8), rows[:1])
    assert large.height - 50 > 4 * (few.height - 50)  # readable beside a photo


def test_palette_pngs_keep_their_labels(halves):
    labels, data = halves[1], io.BytesIO()
    palette = viz.colours(256)
    labels[0, :2] = 255, 1
    viz.palette_png(labels, palette).save(data, "PNG")
    back = Image.open(data)
    assert back.mode == "P"
    np.testing.assert_array_equal(np.asarray(back), labels)
    np.testing.assert_array_equal(np.asarray(back.convert("RGB")), palette[labels])
    with pytest.raises(InputError, match="256"):
        viz.palette_png(labels, viz.colours(257))


def test_the_views_are_those_asked_for(halves):
    image, labels = halves
    result = Segmentation(labels, np.zeros((40, 60, 3)), labels, ("a", "b", "c"), (labels, labels))
    picture = Image.fromarray(image)
    assert [name for name, _ in viz.pictures(picture, result)] == ["overlay", "labels", "groups1", "groups2"]
    ((name, labelled),) = viz.pictures(picture, result, ["labels"])
    assert name == "labels" and labelled.size == picture.size


def test_known_names_have_their_own_colour_and_others_one_each():
    palette = viz.palette_of(["grass", "sofa", "lamp"])
    assert palette.shape == (3, 3) and tuple(palette[0]) == (150, 220, 80)
    assert len({tuple(colour) for colour in palette}) == 3
