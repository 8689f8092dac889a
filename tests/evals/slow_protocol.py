"""The evaluation protocol once more: slow, plain, in float64, to check the fast one against.

Written from the protocol's description alone; nothing here comes from `groupvit_jax`. A window at a time, loops, whole
maps of scores. Only the model's outputs are float32; OpenCV resizes the pictures and PyTorch does bilinear steps.

    words = class_words(names, templates, encode_texts)
    answer = image_answer(image, towers, words, log_scale, Rules(threshold=0.95))
    confusion(truth, label_map(answer.scores), classes)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

# torchvision's, of ImageNet, for values from 0 to 1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Normalised float32 [1 h w 3] -> projected segments [g d] and pooled [d], neither of unit length, soft [g n] per stage.
Towers = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, list[np.ndarray]]]


@dataclass(frozen=True)
class Rules:
    """What a protocol fixes; every option is off unless asked for.

    threshold: of the background, which then is label 0 and not among the named classes; None: there is none.
    top: how many classes a window may have; None: all, and the score is the softmax over all names alone.
    flip: the mean of the scores with those of the mirrored image.
    scales: factors on `short` and `long`; the mean over them of the scores at the original size.
    pamr: "all" refines a window's scores, background among them; "classes" (as TCL's code) before the background is
      decided.
    short, long: sides in pixels; window, stride, patch: in pixels.
    close: two shares or scores nearer than this are for rounding to decide (cosines: a hundredth of it), see
      `Answer.unsure`.
    """

    threshold: float | None = None
    top: int | None = 5
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    pamr: str | None = None
    short: int = 448
    long: int = 2048
    window: int = 448
    stride: int = 224
    patch: int = 16
    close: float = 1e-4


class Words(NamedTuple):
    """embeddings float64 [t d], unit length; owner int [t]: the class of each name; number: of classes."""

    embeddings: np.ndarray
    owner: np.ndarray
    number: int


class Answer(NamedTuple):
    """scores float64 [C H W]; unsure bool [H W]: some choice on the way to this pixel hangs on rounding.

    Such choices: a pixel's group, the fifth best class, whether a group is background. The argmax over the scores is
    not among them: see `undecided`.
    """

    scores: np.ndarray
    unsure: np.ndarray


def class_words(names: Sequence[str | Sequence[str]], templates: Sequence[str],
                encode_texts: Callable[[list[str]], np.ndarray]) -> Words:
    """A class has a name or several; a background of words is a first class with several.

    encode_texts: t texts -> [t d], projected, not of unit length. The mean over templates comes before the
    normalisation.
    """
    embeddings, owner = [], []
    for i, of_class in enumerate(names):
        for name in [of_class] if isinstance(of_class, str) else of_class:
            texts = np.asarray(encode_texts([template.format(name) for template in templates]), np.float64)
            mean = sum(texts) / len(texts)
            embeddings.append(mean / np.sqrt((mean**2).sum()))
            owner.append(i)
    return Words(np.array(embeddings), np.array(owner), len(names))


def resize(image: np.ndarray, short: float, long: float) -> np.ndarray:
    """uint8 [H W 3] -> uint8 [h w 3], aspect kept: the short side `short`, or less where the long one would pass
    `long`."""
    height, width = image.shape[:2]
    scale = min(short / min(height, width), long / max(height, width))
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def normalise(image: np.ndarray) -> np.ndarray:
    return ((image.astype(np.float64) / 255 - MEAN) / STD).astype(np.float32)


def starts(side: int, window: int, stride: int) -> list[int]:
    if side <= window:
        return [0]
    return [min(i * stride, side - window) for i in range(math.ceil((side - window) / stride) + 1)]


def windows(image: np.ndarray, rules: Rules) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """(rows, columns, pixels [h w 3]) row after row; h and w are less than a window where the image is."""
    for y in starts(image.shape[0], rules.window, rules.stride):
        for x in starts(image.shape[1], rules.window, rules.stride):
            rows = slice(y, min(y + rules.window, image.shape[0]))
            columns = slice(x, min(x + rules.window, image.shape[1]))
            yield rows, columns, image[rows, columns]


def bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float64 [c h w] -> [c H W]: half-pixel centres, no antialiasing."""
    return F.interpolate(torch.from_numpy(x)[None], size, mode="bilinear", align_corners=False)[0].numpy()


def group_shares(assignments: list[np.ndarray], grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Soft assignments [g n] of the stages -> how much of each pixel each last group has, float64 [g h w]."""
    shares = np.asarray(assignments[0], np.float64)
    for soft in assignments[1:]:
        shares = np.asarray(soft, np.float64) @ shares
    return bilinear(shares.reshape(-1, *grid), size)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def group_table(segments: np.ndarray, pooled: np.ndarray, words: Words, log_scale: float,
                top: int | None) -> tuple[np.ndarray, float]:
    """A window's scores [g classes], and by how much the last class that is kept beats the first that is not."""
    segments = segments / np.linalg.norm(segments, axis=-1, keepdims=True)
    pooled = pooled / np.linalg.norm(pooled)
    logits = segments @ words.embeddings.T * min(math.exp(log_scale), 100.0)  # [g t]
    scores, margin = softmax(logits), np.inf
    if top is not None:
        similarity = words.embeddings @ pooled  # [t]
        best_name = np.array([similarity[words.owner == i].max() for i in range(words.number)])
        order = np.argsort(-best_name, kind="stable")
        if len(order) > top:
            margin = best_name[order[top - 1]] - best_name[order[top]]
        kept = np.isin(words.owner, order[:top])
        scores = softmax(np.where(kept, logits, -np.inf)) * scores
    table = np.stack([scores[:, words.owner == i].max(axis=-1) for i in range(words.number)], axis=-1)
    return table, margin


def window_answer(window: np.ndarray, towers: Towers, words: Words, log_scale: float, rules: Rules) -> Answer:
    """Normalised [h w 3] -> scores [C h w] of its pixels, and which of them are unsure."""
    h, w, p = *window.shape[:2], rules.patch
    segments, pooled, shares = look(window, towers, p)
    groups = shares.argmax(axis=0)
    best, second = -np.partition(-shares, 1, axis=0)[:2]
    unsure = best - second < rules.close
    table, margin = group_table(segments, pooled, words, log_scale, rules.top)
    if margin < rules.close / 100:
        unsure = np.ones((h, w), bool)
    scores = np.stack([table[groups, i] for i in range(words.number)])  # [c h w]
    if rules.pamr == "classes":
        scores = pamr(window, scores)
    if rules.threshold is not None:
        limit = min(rules.threshold, table.max())
        best = scores.max(axis=0)
        # A group whose best score is the limit itself is one of the window's best: that is no matter of rounding.
        unsure |= (np.abs(best - limit) < rules.close) & ((best != limit) | (limit == rules.threshold))
        scores = np.concatenate([(best < limit)[None].astype(np.float64), scores])
    if rules.pamr == "all":
        scores = pamr(window, scores)
    return Answer(scores, unsure)


def look(window: np.ndarray, towers: Towers, patch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments [g d], pooled [d], shares [g h w], in float64. What is left of whole patches is not looked at."""
    h, w = window.shape[:2]
    grid = h // patch, w // patch
    pixels = np.ascontiguousarray(window[None, : grid[0] * patch, : grid[1] * patch], np.float32)
    segments, pooled, assignments = towers(pixels)
    return (np.asarray(segments, np.float64), np.asarray(pooled, np.float64),
            group_shares(assignments, grid, (h, w)))


def scale_answer(resized: np.ndarray, size: tuple[int, int], towers: Towers, words: Words, log_scale: float,
                 rules: Rules) -> Answer:
    """A resized picture uint8 [h w 3] -> the answer at the original size."""
    image = normalise(resized)
    total, count, unsure = 0.0, np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for rows, columns, window in windows(image, rules):
        answer = window_answer(window, towers, words, log_scale, rules)
        if isinstance(total, float):
            total = np.zeros((len(answer.scores), *image.shape[:2]))
        total[:, rows, columns] += answer.scores
        count[rows, columns] += 1
        unsure[rows, columns] += answer.unsure
    return Answer(bilinear(total / count, size), bilinear(unsure[None], size)[0] > 0)


def image_answer(image: np.ndarray, towers: Towers, words: Words, log_scale: float, rules: Rules) -> Answer:
    """uint8 [H W 3] -> scores float64 [C H W], C the named classes and the background if it has a threshold."""
    answers = []
    for factor in rules.scales:
        resized = resize(image, rules.short * factor, rules.long * factor)
        answers.append(scale_answer(resized, image.shape[:2], towers, words, log_scale, rules))
        if rules.flip:
            mirrored = scale_answer(np.ascontiguousarray(resized[:, ::-1]), image.shape[:2], towers, words, log_scale,
                                    rules)
            answers.append(Answer(mirrored.scores[:, :, ::-1], mirrored.unsure[:, ::-1]))
    return Answer(sum(answer.scores for answer in answers) / len(answers),
                  np.any([answer.unsure for answer in answers], axis=0))


def image_scores(image: np.ndarray, towers: Towers, words: Words, log_scale: float, rules: Rules) -> np.ndarray:
    return image_answer(image, towers, words, log_scale, rules).scores


def label_map(scores: np.ndarray) -> np.ndarray:
    """[C H W] -> int [H W], the first of equals."""
    return scores.argmax(axis=0)


def undecided(scores: np.ndarray, close: float = 1e-4) -> np.ndarray:
    """bool [H W]: the two best of the scores [C H W] are as good as equal."""
    second, best = np.sort(scores, axis=0)[-2:]
    return best - second < close


def confusion(truth: np.ndarray, labels: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """int [classes classes]: pixels by true (row) and given (column) label."""
    counts = np.zeros((classes, classes), np.int64)
    for true in range(classes):
        given = labels[(truth == true) & (truth != ignore)]
        for label in range(classes):
            counts[true, label] = (given == label).sum()
    return counts


def miou(counts: np.ndarray) -> tuple[float, list[float | None]]:
    """In percent: the mean over the classes that occur in truth or answer, and each class, None if it does not."""
    each = []
    for i in range(len(counts)):
        union = counts[i, :].sum() + counts[:, i].sum() - counts[i, i]
        each.append(100 * float(counts[i, i]) / float(union) if union else None)
    there = [iou for iou in each if iou is not None]
    return sum(there) / len(there), each


def shifted(x: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """[... h w]: at each place the value dy rows below and dx columns to the right, that of the border outside."""
    h, w = x.shape[-2:]
    rows, columns = np.clip(np.arange(h) + dy, 0, h - 1), np.clip(np.arange(w) + dx, 0, w - 1)
    return x[..., rows[:, None], columns[None]]


def pamr(image: np.ndarray, masks: np.ndarray, dilations: Sequence[int] = (1, 2, 4, 8, 12, 24),
         iterations: int = 10) -> np.ndarray:
    """Pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020, arXiv 2005.04265).

    image: normalised [h w 3]; masks [c h w] -> the same, each pixel ten times the mean of its 48 neighbours, weighted
    by how alike they look.
    """
    x = np.asarray(image, np.float64).transpose(2, 0, 1)  # [3 h w]
    around = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    std = np.stack([shifted(x, *offset) for offset in around]).std(axis=0, ddof=1)  # of 9 values a dilation
    offsets = [offset for offset in around if offset != (0, 0)]
    logits = [(-np.abs(x - shifted(x, *offset)) / (1e-8 + 0.1 * std)).mean(axis=0) for offset in offsets]
    affinity = np.moveaxis(softmax(np.stack(logits, axis=-1)), -1, 0)  # [48 h w]
    for _ in range(iterations):
        masks = sum(weight * shifted(masks, *offset) for weight, offset in zip(affinity, offsets))
    return masks


def image_owners(image: np.ndarray, towers: Towers, rules: Rules) -> np.ndarray:
    """int [H W]: which (window, group) a pixel of the original belongs to, counted row by row.

    A window's share of a pixel is its group's membership there over the number of windows there, bilinear to the
    original size; the largest wins, the first if equal (up to rounding).
    """
    resized = normalise(resize(image, rules.short, rules.long))
    count = np.zeros(resized.shape[:2])
    for rows, columns, _ in windows(resized, rules):
        count[rows, columns] += 1
    largest, owner, number = np.full(image.shape[:2], -1.0), np.full(image.shape[:2], -1), 0
    for rows, columns, window in windows(resized, rules):
        shares = look(window, towers, rules.patch)[2]
        for group in range(len(shares)):
            member = np.zeros(resized.shape[:2])
            member[rows, columns] = (shares.argmax(axis=0) == group) / count[rows, columns]
            share = bilinear(member[None], image.shape[:2])[0]
            better = share > largest + 1e-9
            largest[better], owner[better] = share[better], number
            number += 1
    return owner


def oracle(image: np.ndarray, truth: np.ndarray, towers: Towers, classes: int, rules: Rules,
           ignore: int = 255) -> np.ndarray:
    """The confusion if each group of each window had its best single name: the commonest label it owns."""
    owner, labels = image_owners(image, towers, rules), np.zeros(truth.shape, int)
    for group in np.unique(owner):
        mine = owner == group
        labelled = truth[mine & (truth != ignore)]
        if len(labelled):
            labels[mine] = np.bincount(labelled).argmax()
    return confusion(truth, labels, classes, ignore)
