"""Answers as pictures, and as rows beside them. Names are not in the pictures alone: a page has letters for all."""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from groupvit_jax import viz
from groupvit_jax.demo.answers import Answer, Heat
from groupvit_jax.palette import apart, palette_of, side_by_side

Colour = tuple[int, int, int]


class Row(NamedTuple):
    """A line of a legend: `colour`, `name`, and the `share` of the pixels, 0 to 1."""

    colour: Colour
    name: str
    share: float


def photograph(pixels: np.ndarray) -> np.ndarray:
    """uint8 [h w 3] at the size that pictures are drawn."""
    return viz.resized(pixels)


def segments(answer: Answer) -> tuple[np.ndarray, list[Row], Image.Image, Image.Image]:
    """The segments with their names over the photograph, uint8 [h w 3]; the legend, the largest first; and what
    `groupvit segment` writes: the label map, and the same picture with its legend below."""
    result = answer.result
    files = dict(viz.pictures(Image.fromarray(answer.pixels), result, ["input_pred_label", "labels"]))
    height, width = photograph(answer.pixels).shape[:2]
    counts = np.bincount(result.labels.ravel(), minlength=len(result.names))
    occur = viz.largest_first(counts)
    palette = apart(palette_of(result.names), occur[: viz.LEGEND])
    rows = [Row(tuple(palette[i].tolist()), result.names[i], counts[i] / result.labels.size) for i in occur]
    overlay = files["input_pred_label"]
    return np.asarray(overlay.crop((0, 0, width, height))), rows, files["labels"], overlay


def stage(pixels: np.ndarray, groups: np.ndarray, numbered: bool) -> tuple[np.ndarray, list[Colour]]:
    """The groups int [h w] of a stage over the photograph uint8 [h w 3], and their colours, the largest group first;
    `numbered` from 1 in that order."""
    found, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    rank = np.empty(len(found), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(found))
    ranks = viz.resized(rank[index.reshape(groups.shape)])
    palette = side_by_side(ranks)
    drawn = Image.fromarray(viz.outlined(viz.blend(photograph(pixels), palette[ranks]), ranks))
    if numbered:
        viz.write_names(drawn, ranks, [str(i + 1) for i in range(len(found))])
    return np.asarray(drawn), [tuple(colour.tolist()) for colour in palette]


def heat(pixels: np.ndarray, found: Heat) -> np.ndarray:
    """Shares in viridis, from dark blue for 0 to yellow for 1, over the photograph; grey and dark outside the window;
    a ring at the point. uint8 [h w 3]."""
    drawn = photograph(pixels)
    height, width = drawn.shape[:2]
    values = cv2.resize(found.values, (width, height), interpolation=cv2.INTER_NEAREST)
    inside = ~np.isnan(values)
    colours = cv2.applyColorMap((255 * np.nan_to_num(values)).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    grey = drawn.mean(axis=-1, keepdims=True)
    picture = np.where(inside[..., None], viz.blend(drawn, colours, alpha=0.75), grey * 0.4).astype(np.uint8)
    centre = [int((at + 0.5) * to / side) for at, to, side in zip((found.x, found.y), (width, height),
                                                                  pixels.shape[1::-1])]
    radius = max(5, viz.letter_size(width, height) // 3)
    for colour, thick in (((20, 20, 20), 5), ((255, 255, 255), 2)):
        cv2.circle(picture, centre, radius, colour, thick, cv2.LINE_AA)
    return picture


def point(x: float, y: float, pixels: np.ndarray) -> tuple[int, int]:
    """A point of the drawn picture -> that of the photograph uint8 [h w 3]."""
    height, width = photograph(pixels).shape[:2]
    return int(x * pixels.shape[1] / width), int(y * pixels.shape[0] / height)
