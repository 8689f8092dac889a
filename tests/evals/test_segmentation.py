"""The protocol, against a slow one written from its description: one window at a time, PyTorch, loops, float64."""

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groupvit_jax.data.images import MEAN, STD, resize_shorter
from groupvit_jax.evals import classes, segmentation
from groupvit_jax.evals.prompts import class_embeddings
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.segmentation import (
    WindowScores,
    make_counter,
    segment,
    window_scores,
    with_background,
)
from groupvit_jax.evals.windows import (
    Geometry,
    Sizes,
    bilinear_weights,
    cut,
    pack,
    window_starts,
)

GEOMETRY = Geometry(size=32, long=146, window=32, stride=16)
SETTINGS = {"size": 32, "long": 146, "window": 32, "stride": 16, "batch": 12, "text_batch": 16}
# One window; several in a row; in a column; smaller than the window; nearly square; lower than a window (20 x 150).
SIZES = [(32, 32), (40, 70), (75, 41), (17, 23), (33, 34), (20, 150)]


def slow_image(apply, image, embeddings, threshold):
    """Class scores float64 [c H W] of an image, and those without the rule of five, all in plain sight."""
    original, image = image.shape[:2], torch.from_numpy(resize_shorter(image, 32, 146).copy()).double() / 255
    image = ((image - torch.tensor(MEAN)) / torch.tensor(STD)).numpy()
    height, width = image.shape[:2]
    h, w, c = min(height, 32), min(width, 32), len(embeddings) + (threshold is not None)
    totals, count = torch.zeros(2, c, height, width, dtype=torch.double), torch.zeros(height, width)
    words = torch.from_numpy(embeddings).double()
    for y in window_starts(height, 32, 16):
        for x in window_starts(width, 32, 16):
            crop = image[y : y + h, x : x + w].astype(np.float32)[None, : h // 8 * 8, : w // 8 * 8]
            features, segments, pooled, scale = apply(crop)
            shares = torch.eye(features.assignments[-1].shape[1], dtype=torch.double)
            for soft in reversed(features.assignments):
                shares = shares @ torch.tensor(np.asarray(soft[0])).double()
            shares = F.interpolate(shares.reshape(1, -1, h // 8, w // 8), (h, w), mode="bilinear", align_corners=False)
            groups = shares[0].argmax(0)
            segments, pooled = (torch.tensor(np.asarray(v[0])).double() for v in (segments, pooled))
            segments, pooled = F.normalize(segments, dim=-1), F.normalize(pooled, dim=-1)
            logits = segments @ words.T * float(scale)
            plain = logits.softmax(-1)
            best = (words @ pooled).topk(min(5, len(words))).indices
            five = torch.zeros_like(plain)
            five[:, best] = logits[:, best].softmax(-1)
            for kind, table in enumerate((five * plain, plain)):
                scores = table[groups].permute(2, 0, 1)  # [c h w]
                if threshold is not None:
                    below = scores.amax(0) < min(threshold, table.max())
                    scores = torch.cat([below[None].double(), scores])
                totals[kind, :, y : y + h, x : x + w] += scores
            count[y : y + h, x : x + w] += 1
    return F.interpolate(totals / count, original, mode="bilinear", align_corners=False).numpy()


@pytest.fixture(scope="module")
def apply(model, variables):
    """One window's features, segments and pooled feature projected, and the scale."""
    @jax.jit
    def run(crop):
        features = model.apply(variables, crop, method="encode_image")
        projected = [model.apply(variables, x, method="project_image") for x in (features.segments, features.pooled)]
        return features, *projected, model.apply(variables, method="logit_scale")

    return run


def jitted_segment(model, threshold):
    return jax.jit(lambda variables, cut, words: segment(model, variables, cut, words, threshold))


def undecided(scores):
    """Where the two best scores [c H W] are closer than rounding can tell."""
    best = np.sort(scores, axis=0)
    return best[-1] - best[-2] < 1e-4


@pytest.fixture(scope="module")
def embeddings():
    x = np.random.default_rng(3).normal(size=(20, 8))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_window_starts_are_the_protocols():
    assert window_starts(673, 448, 224) == [0, 224, 225]
    assert window_starts(448, 448, 224) == [0]
    assert window_starts(300, 448, 224) == [0]
    assert window_starts(672, 448, 224) == [0, 224]


@pytest.mark.parametrize("n_in, n_out", [(28, 448), (448, 375), (7, 7), (5, 3), (3, 50), (1, 4)])
def test_bilinear_weights_are_pytorchs(n_in, n_out):
    signal = torch.eye(n_in, dtype=torch.double)[None]  # float32 would round positions
    expected = F.interpolate(signal, n_out, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(bilinear_weights(n_in, n_out), expected, atol=1e-6)


def test_canvas_is_the_resized_image_at_all_sizes():
    for h, w in [(375, 500), (500, 333), (100, 700), (1, 9), (448, 448)]:
        resized = resize_shorter(np.zeros((h, w, 3), np.uint8), 448, 2048)
        assert Geometry().canvas(h, w) == resized.shape[:2]
        assert len(cut(np.zeros((h, w, 3), np.uint8), Geometry()).windows) == Geometry().count(h, w)


@pytest.mark.parametrize("size, threshold", [*zip(SIZES, [None, 0.3] * 3), (SIZES[-1], None)])
def test_label_maps_and_scores_equal_the_slow_ones(model, variables, apply, embeddings, size, threshold):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    expected = slow_image(apply, image, embeddings, threshold)[0]
    part = cut(image, GEOMETRY)
    labels, scores, (_, owners) = jitted_segment(model, threshold)(variables, part, embeddings)
    np.testing.assert_allclose(scores, expected.transpose(1, 2, 0), atol=1e-4)
    assert ((labels == expected.argmax(0)) | undecided(expected)).all()
    assert len(np.unique(owners)) > 1 and (threshold or len(np.unique(labels)) > 1)


def test_a_data_set_of_many_sizes_counts_the_same(model, variables, apply, tmp_path, write_voc, monkeypatch):
    monkeypatch.setattr(segmentation, "BLOCK_ELEMENTS", 21 * 150 * 20)  # an image takes several blocks of rows
    write_voc(tmp_path, SIZES, classes=21)
    evaluator = Evaluator(model, ["voc"], tmp_path, **SETTINGS)
    scorer = evaluator.tasks[0]
    words = class_embeddings(lambda texts: evaluator.text(variables, texts), scorer.named, evaluator.templates)
    got = {"confusion": 0, "plain": 0}
    for out, _, _ in scorer.counts(variables, words):
        got = {name: total + np.asarray(out[name]) for name, total in got.items()}
    expected, unsure = {"confusion": np.zeros((21, 21)), "plain": np.zeros((21, 21))}, 0
    for _, image, mask in scorer.folder:
        for name, scores in zip(expected, slow_image(apply, image, words, 0.95)):
            np.add.at(expected[name], (mask[mask != 255], scores.argmax(0)[mask != 255]), 1)
            unsure += 2 * undecided(scores).sum()
    for name in got:
        assert got[name].sum() == expected[name].sum() > 0
        assert np.abs(got[name] - expected[name]).sum() <= unsure
    assert unsure < 0.01 * expected["confusion"].sum()


def test_oracle_names_each_group_by_its_majority(model, variables, embeddings):
    """Against labels from the owners that `segment` returns, one image of several windows."""
    rng = np.random.default_rng(2)
    image, mask = rng.integers(0, 256, (40, 70, 3), np.uint8), rng.integers(0, 3, (40, 70)).astype(np.uint8)
    mask[:, 35:] = np.where(mask[:, 35:] == 0, 255, 20)
    part = cut(image, GEOMETRY)
    owners = np.asarray(jitted_segment(model, None)(variables, part, embeddings)[2][-1])
    n = len(part.windows)
    batch = pack([part], [mask], Sizes(n + 2, 32, 32, 3, 48, 80))
    out = make_counter(model, classes=21, rows=16, owners=n, threshold=None)(
        variables, np.concatenate([embeddings, embeddings[:1]]), batch)
    expected = np.zeros((21, 21), int)
    for owner in np.unique(owners):
        truth = np.bincount(mask[(owners == owner) & (mask != 255)], minlength=21)
        expected[:, truth.argmax()] += truth
    np.testing.assert_array_equal(out["oracle"], expected)
    assert len(np.unique(owners)) > 2


def test_threshold_counts_groups_that_own_no_pixel():
    """The best group of the first window owns nothing, yet its 0.8 sets the limit; 0.9 in the second is capped."""
    table = np.array([[[0.8, 0.1], [0.3, 0.2]], [[0.96, 0.1], [0.7, 0.2]]], np.float32)
    np.testing.assert_array_equal(with_background(table, 0.9)[..., 0], [[0, 1], [0, 1]])
    np.testing.assert_array_equal(with_background(table, 0.25)[..., 0], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(with_background(table, 0.9)[..., 1:], table)


def test_only_the_windows_five_best_classes_score(model, variables, embeddings):
    windows = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    run = jax.jit(lambda words: window_scores(model, variables, windows, words, None))
    out = run(embeddings)
    assert isinstance(out, WindowScores) and out.groups.dtype == np.int32
    best = np.argsort(-np.asarray(out.pooled), axis=-1)[:, :5]
    for n in range(3):
        assert set(np.flatnonzero((np.asarray(out.table[n]) > 0).any(axis=0))) <= set(best[n])
    few = run(embeddings[:3])
    np.testing.assert_allclose(few.table, few.plain**2, rtol=1e-5)  # fewer than five: all are kept


def test_constants_of_the_published_protocol():
    assert Geometry() == Geometry(size=448, long=2048, window=448, stride=224)
    assert classes.templates("groupvit") == ["a photo of a {}."] and len(classes.templates("tcl")) == 9
