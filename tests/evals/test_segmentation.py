"""The device's counts and a person's label maps, against the slow protocol: one window at a time, loops, float64."""

import jax
import numpy as np
import pytest
import slow_protocol as slow
from PIL import Image

from groupvit_jax.data.images import resize_shorter
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes, counting, segmentation, tiles, windows
from groupvit_jax.evals.counting import total
from groupvit_jax.evals.datasets import find_tasks
from groupvit_jax.evals.prompts import SLOTS, TextEncoder, make_queries
from groupvit_jax.evals.protocol import Protocol
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.segmentation import window_scores, with_background
from groupvit_jax.evals.windows import Geometry, bilinear_weights, cut, window_starts

SMALL = {"size": 32, "long": 146, "window": 32, "stride": 16}
GEOMETRY = Geometry(**SMALL)
# One window; several in a row; in a column; smaller than the window; nearly square; many tiles; and 20 x 150 pixels,
# which end lower than a window.
SIZES = [(32, 32), (40, 70), (75, 41), (17, 23), (33, 34), (200, 300)]
LOW = (20, 150)
SLOW = slow.Rules(short=32, long=146, window=32, stride=16, patch=8)


@pytest.fixture(scope="module")
def towers(model, variables):
    """What the slow protocol asks of a model."""
    @jax.jit
    def run(window):
        features = model.apply(variables, window, method="encode_image")
        return (model.apply(variables, features.segments, method="project_image")[0],
                model.apply(variables, features.pooled, method="project_image")[0],
                [soft[0] for soft in features.assignments])

    return lambda window: jax.device_get(run(window))


@pytest.fixture(scope="module")
def encode(model, variables):
    encoder = TextEncoder(model, 16)
    return lambda texts: encoder(variables, texts)


def counted(model, variables, root, task="voc", geometry=GEOMETRY, **protocol):
    evaluator = Evaluator(model, [task], root, geometry=geometry, protocol=Protocol(**protocol), text_batch=16)
    return evaluator(variables)[task]


def slow_counts(folder, towers, words, rules, scale=8.0):
    """Confusion and oracle of a data set, and how many labelled pixels rounding may decide."""
    n = words.number + (rules.threshold is not None)
    confusion, oracle, unsure = np.zeros((n, n), int), np.zeros((n, n), int), 0
    for path in sorted(folder.glob("JPEGImages/*")):
        with Image.open(path) as image, Image.open(folder / f"SegmentationClass/{path.stem}.png") as mask:
            image, mask = np.asarray(image), np.asarray(mask)
        answer = slow.image_answer(image, towers, words, np.log(scale), rules)
        confusion += slow.confusion(mask, slow.label_map(answer.scores), n)
        unsure += ((answer.unsure | slow.undecided(answer.scores)) & (mask != 255)).sum()
        oracle += slow.oracle(image, mask, towers, n, rules)
    return confusion, oracle, unsure


VOC_NAMES = classes.names("voc", "groupvit")
CASES = {  # protocol, geometry, the slow rules, names (a threshold leaves the background out)
    "groupvit": ({}, {}, {"threshold": 0.95}, VOC_NAMES[1:]),
    "tcl": ({"name": "tcl"}, {}, {"threshold": 0.5}, classes.names("voc", "tcl")[1:]),
    "all classes": ({"top": 0}, {}, {"threshold": 0.95, "top": None}, VOC_NAMES[1:]),
    "flip": ({}, {"flip": True}, {"threshold": 0.95, "flip": True}, VOC_NAMES[1:]),
    "scales": ({}, {"scales": (1.0, 1.5)}, {"threshold": 0.95, "scales": (1.0, 1.5)}, VOC_NAMES[1:]),
    "flip and scales": ({}, {"flip": True, "scales": (1.25, 1.0)},
                        {"threshold": 0.95, "flip": True, "scales": (1.0, 1.25)}, VOC_NAMES[1:]),
    "pamr": ({"pamr": True}, {}, {"threshold": 0.95, "pamr": "classes"}, VOC_NAMES[1:]),
    "pamr, tcl": ({"name": "tcl", "pamr": True}, {}, {"threshold": 0.4, "pamr": "classes"},
                  classes.names("voc", "tcl")[1:]),
    "background of words": ({"background": "sky; wall; a thing"}, {}, {},
                            [["sky", "wall", "a thing"], *VOC_NAMES[1:]]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_data_set_of_many_sizes_counts_as_the_slow_protocol_does(
        model, variables, towers, encode, tmp_path, write_voc, case):
    protocol, geometry, rules, names = CASES[case]
    sizes = SIZES if "pamr" in case or "scales" in case else [*SIZES, LOW]
    folder = write_voc(tmp_path, sizes, classes=21)
    rules = slow.Rules(**{**vars(SLOW), **rules})
    words = slow.class_words(names, classes.templates(protocol.get("name", "groupvit")), encode)
    expected, _, unsure = slow_counts(folder, towers, words, rules)
    got = counted(model, variables, tmp_path, geometry=Geometry(**SMALL, **geometry), **protocol)
    assert got["confusion"].sum() == expected.sum() > 0
    assert np.abs(got["confusion"] - expected).sum() <= 2 * unsure
    assert unsure < 0.15 * expected.sum()
    assert got["mIoU"] == pytest.approx(slow.miou(expected)[0], abs=0.5)
    changes = Protocol(**protocol).changes(find_tasks(["voc"])[0]) + Geometry(**SMALL, **geometry).changes()
    assert got.get("changes", []) == changes


def test_synonyms_count_by_the_best_of_them(model, variables, towers, encode, tmp_path, write_voc):
    folder = write_voc(tmp_path, SIZES[:3], classes=4)
    (tmp_path / "classes.txt").write_text("background\ncat; kitten; tabby\ndog\n\nsofa; couch\n")
    names = [["cat", "kitten", "tabby"], ["dog"], ["sofa", "couch"]]
    words = slow.class_words(names, classes.templates("groupvit"), encode)
    rules = slow.Rules(**{**vars(SLOW), "threshold": 0.95, "top": 2})
    expected, _, unsure = slow_counts(folder, towers, words, rules)
    got = counted(model, variables, tmp_path, class_file=str(tmp_path / "classes.txt"), top=2)
    assert list(got["iou"]) == ["background", "cat", "dog", "sofa"]
    assert np.abs(got["confusion"] - expected).sum() <= 2 * unsure


def test_the_oracle_names_each_group_by_its_majority(model, variables, towers, encode, tmp_path, write_voc):
    folder = write_voc(tmp_path, SIZES, classes=5)
    words = slow.class_words(VOC_NAMES[1:], classes.templates("groupvit"), encode)
    _, expected, _ = slow_counts(folder, towers, words, slow.Rules(**{**vars(SLOW), "threshold": 0.95}))
    got = counted(model, variables, tmp_path, oracle=True)
    # A pixel on the border of two groups has equal shares of both, up to rounding.
    assert got["oracle"]["mIoU"] == pytest.approx(slow.miou(expected)[0], abs=0.3)
    assert got["oracle"]["mIoU"] > got["mIoU"]


def test_more_classes_than_a_chunk_and_than_fit_one_are_told_apart():
    """Label 150 wins in every pixel of its group, and of equal scores the first label."""
    table = np.zeros((2, 3, SLOTS), np.float32)
    table[0, 0, 150] = table[1, 1, 40] = 1.0
    table[1, 2, [7, 39, 200]] = 0.5
    members = np.zeros((2, 3, 6), np.float32)
    for pixel, (window, group) in enumerate([(0, 0), (1, 1), (1, 2), (1, 2), (0, 0), (0, 1)]):
        members[window, group, pixel] = 1.0
    chunks = table.reshape(2, 3, -1, segmentation.CHUNK).transpose(0, 2, 3, 1)
    label = jax.jit(counting.best_label)(chunks, members, 0, 2, 171)
    assert label.tolist() == [150, 40, 7, 7, 150, 0]


@pytest.mark.parametrize("size", [*SIZES, LOW])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_label_maps_and_scores_equal_the_slow_ones(model, variables, towers, encode, size, threshold):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    names = VOC_NAMES[1:]
    words = slow.class_words(names, ["a photo of a {}."], encode)
    rules = slow.Rules(**{**vars(SLOW), "threshold": threshold})
    expected = slow.image_answer(image, towers, words, np.log(8.0), rules)
    queries = make_queries(encode, [[]] * (threshold is not None) + [[name] for name in names], ["a photo of a {}."],
                           threshold)
    part = cut(image, GEOMETRY)
    scored = window_scores(model, variables, part.windows, queries)
    table = np.asarray(scored.table)[..., : len(expected.scores)]
    scores, owners = windows.merge(part, np.asarray(scored.members).swapaxes(1, 2), table)
    sure = ~expected.unsure
    np.testing.assert_allclose(scores[sure], expected.scores.transpose(1, 2, 0)[sure], atol=1e-4)
    same = scores.argmax(axis=-1) == slow.label_map(expected.scores)
    assert (same | slow.undecided(expected.scores) | expected.unsure).all() and sure.mean() > 0.5
    assert (owners == slow.image_owners(image, towers, SLOW)).mean() > 0.98 and len(np.unique(owners)) > 1


def test_threshold_counts_groups_that_own_no_pixel():
    """The best group of the first window owns nothing, yet its 0.8 sets the limit; 0.9 in the second is capped."""
    table = np.array([[[0, 0.8, 0.1], [0, 0.3, 0.2]], [[0, 0.96, 0.1], [0, 0.7, 0.2]]], np.float32)
    table = jax.numpy.asarray(table)
    np.testing.assert_array_equal(with_background(table, 0.9)[..., 0], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(with_background(table, 0.25)[..., 0], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(with_background(table, 0.9)[..., 1:], table[..., 1:])
    np.testing.assert_array_equal(with_background(table, -1.0), table)


def test_only_the_windows_five_best_classes_score(model, variables, encode):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    run = jax.jit(lambda queries: window_scores(model, variables, images, queries))
    names = [[name] for name in VOC_NAMES[1:]]
    out = run(make_queries(encode, names, ["{}"]))
    best = np.argsort(-np.asarray(out.similarity), axis=-1)[:, :5]
    for n in range(3):
        assert set(np.flatnonzero((np.asarray(out.table[n]) > 0).any(axis=0))) <= set(best[n])
    few, plain = run(make_queries(encode, names[:3], ["{}"])), run(make_queries(encode, names[:3], ["{}"], top=0))
    np.testing.assert_allclose(few.table, plain.table**2, rtol=1e-5)  # fewer than five: all are kept
    np.testing.assert_allclose(plain.table.sum(axis=-1), 1, rtol=1e-5)


def test_counts_do_not_overflow():
    sums = np.zeros((1, 2, 2), np.int32)
    counts = np.array([2**31 - 2**20 - 1, 3], np.int32)
    add = jax.jit(counting.carried)
    for _ in range(5):
        sums = np.asarray(add(sums[0], counts))[None]
    assert total(sums).tolist() == [5 * (2**31 - 2**20 - 1), 15]


# ---------------------------------------------------------------- windows and tiles


def test_window_starts_are_the_protocols():
    assert window_starts(673, 448, 224) == [0, 224, 225]
    assert window_starts(448, 448, 224) == [0]
    assert window_starts(300, 448, 224) == [0]
    assert window_starts(672, 448, 224) == [0, 224]


@pytest.mark.parametrize("n_in, n_out", [(28, 448), (448, 375), (7, 7), (5, 3), (3, 50), (1, 4)])
def test_bilinear_weights_are_pytorchs(n_in, n_out):
    expected = slow.bilinear(np.eye(n_in)[:, None], (1, n_out))[:, 0].T
    np.testing.assert_allclose(bilinear_weights(n_in, n_out), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_canvas_and_counts_are_those_of_the_cut_at_all_sizes(scale):
    geometry = Geometry(scales=(scale,), flip=scale > 1)
    for h, w in [(375, 500), (500, 333), (100, 700), (1, 9), (448, 448), (1500, 3000)]:
        image = np.zeros((h, w, 3), np.uint8)
        assert geometry.canvas(h, w, scale) == resize_shorter(image, scale * 448, scale * 2048).shape[:2]
        part = cut(image, geometry)
        assert len(part.windows) == geometry.count(h, w) and part.windows.shape[1:3] == geometry.shape(h, w)
        room = tiles.Capacity(len(part.windows), tiles.count(h, w, geometry), *geometry.shape(h, w), 1)
        batch = tiles.pack([(part, np.zeros((h, w), np.uint8))], geometry, room)
        assert batch["tiles"] == tiles.count(h, w, geometry) and (batch["truth"] == 0).sum() == h * w
        for side in ("y", "x"):  # no tile draws on more than SOURCE pixels
            low = np.where(batch[f"low_{side}"] == windows.NOWHERE, batch[f"low_{side}"][..., :1], batch[f"low_{side}"])
            assert (np.ptp(low, axis=-1) + 2 <= tiles.SOURCE).all()


def test_constants_of_the_published_protocol():
    assert GEOMETRY != Geometry() == Geometry(size=448, long=2048, window=448, stride=224, scales=(1.0,), flip=False)
    assert classes.templates("groupvit") == ["a photo of a {}."] and len(classes.templates("tcl")) == 9
    assert Protocol() == Protocol("groupvit", top=5) and tiles.LABELS == SLOTS


@pytest.mark.parametrize("wrong", [{"stride": 500}, {"size": 0}, {"scales": ()}, {"scales": (0.5,)}, {"scales": (99,)}])
def test_geometries_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        Geometry(**wrong)


def test_an_image_too_long_for_several_scales_is_refused():
    with pytest.raises(InputError, match="too long for several scales"):
        Geometry(scales=(1.0, 1.5)).shape(100, 900)
