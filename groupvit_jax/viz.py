"""Pictures of segmentations: labels and groups over the image, names in their regions, a legend."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from groupvit_jax.errors import InputError
from groupvit_jax.palette import apart, palette_of, side_by_side

VIEWS = {
    "input": "the picture",
    "pred": "each pixel in its class's colour",
    "input_pred": "these colours over the picture",
    "input_pred_label": "and each class's name in its regions",
    "first_group": "the groups of the first stage",
    "final_group": "those of the last",
    "all_groups": "those of every stage side by side",
    "labels": "a PNG of class numbers, with palette",
    "areas": "JSON: how much of the picture each class has",
}
SHORT, LONG = 384, 2048  # pixels; pictures are drawn so large that names can be read, and no larger than a screen
LEGEND = 24  # classes; more are counted
NAME = 32  # letters; a longer name is cut
Rows = list[tuple[tuple[int, int, int] | None, str]]  # of a legend: colour and text


def pictures(image: Image.Image, result: Any, views: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
    """Yields (view, PIL image) for those of `views` that are pictures, from an image's `inference.Segmentation`.

    All but `labels` are drawn at a size to look at (see SHORT and LONG); `labels` has the image's own size and holds
    the numbers themselves: a palette PNG, or 16-bit grey for more than 256 labels.
    """
    pixels, labels = resized(np.asarray(image.convert("RGB"))), resized(result.labels)
    counts = np.bincount(result.labels.ravel(), minlength=len(result.names))
    occur = largest_first(counts)
    palette = apart(palette_of(result.names), occur[:LEGEND])
    stages = list(enumerate(result.stages, 1))
    grouped = {"first_group": stages[:1], "final_group": stages[-1:], "all_groups": stages}
    for view in views:
        if view == "input":
            yield view, Image.fromarray(pixels)
        elif view in grouped:
            yield view, group_picture(pixels, [(f"stage {s}", resized(groups)) for s, groups in grouped[view]])
        elif view in ("pred", "input_pred", "input_pred_label"):
            picture = palette[labels] if view == "pred" else outlined(blend(pixels, palette[labels]), labels)
            picture = Image.fromarray(picture)
            if view == "input_pred_label":
                write_names(picture, labels, result.names)
            yield view, with_legend(picture, legend(result.names, counts, occur, palette))
        elif view == "labels":
            yield view, label_map(result.labels, palette)


def areas(name: str, result: Any) -> dict:
    """How many pixels and percent of an image each class has, for JSON; of equal names the later have a number."""
    counts = np.bincount(result.labels.ravel(), minlength=len(result.names))
    rows = {}
    for label, (key, count) in enumerate(zip(result.names, counts.tolist())):
        key = f"{key} ({label})" if key in rows else key
        rows[key] = {"label": label, "pixels": count, "percent": round(100 * count / result.labels.size, 3)}
    background = rows.pop("background") if result.names[0] == "background" else None
    return {"image": name, "size": list(result.labels.shape), "background": background, "classes": rows}


def label_map(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """int [h w] labels -> PIL image whose values are the labels: of a palette, or of 16 bits for more than 256."""
    if len(palette) > 2**16:
        raise InputError(f"a label map holds at most {2**16} labels, not {len(palette)}: give fewer classes")
    if len(palette) > 256:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    return image


# ---------------------------------------------------------------- pixels


def resized(values: np.ndarray) -> np.ndarray:
    """An image uint8 [h w 3], smoothly, or labels int [h w], repeated or left out, at the size pictures are drawn:
    enlarged to a short side of SHORT, but to no long side beyond LONG; made smaller to a long side of LONG, but to no
    short side below SHORT."""
    h, w = values.shape[:2]
    scale = sorted((SHORT / min(h, w), 1, LONG / max(h, w)))[1]
    if scale == 1:
        return values
    return scaled(values, scale)


def scaled(values: np.ndarray, scale: float, smooth: Image.Resampling = Image.Resampling.LANCZOS) -> np.ndarray:
    """An image uint8 [h w 3], smoothly, or labels int [h w], repeated or left out, with sides `scale` times as long."""
    h, w = values.shape[:2]
    size = max(1, round(w * scale)), max(1, round(h * scale))
    if values.ndim == 3:
        return np.asarray(Image.fromarray(values).resize(size, smooth))
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size[::-1], (h, w)))
    return values[rows[:, None], columns]


def largest_first(counts: np.ndarray) -> list[int]:
    """Of counts int [n] the places that are not 0, those of the largest first; of equal ones the first."""
    return [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]]


def letter_size(width: int, height: int) -> int:
    """Pixels, in proportion to a picture; one of 2048 pixels is looked at made smaller."""
    return int(np.clip(np.sqrt(width * height) / 32, 15, 48))


def blend(image: np.ndarray, colour: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """uint8 [h w 3] colours laid over an image in grey, so that the hues seen are those of the legend."""
    return (image.mean(axis=-1, keepdims=True) * (1 - alpha) + colour * alpha).astype(np.uint8)


def borders(labels: np.ndarray, thick: int = 1) -> np.ndarray:
    """bool [h w]: pixels with another label at `thick` pixels to the left or above."""
    edge = np.zeros(labels.shape, bool)
    edge[:, thick:] |= labels[:, thick:] != labels[:, :-thick]
    edge[thick:] |= labels[thick:] != labels[:-thick]
    return edge


def outlined(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The picture, changed: white lines between labels."""
    picture[borders(labels, max(1, letter_size(*labels.shape) // 14))] = 255
    return picture


# ---------------------------------------------------------------- groups


def group_picture(image: np.ndarray, stages: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """(title, groups int [h w]) of some stages over the image uint8 [h w 3], each with its title and how many groups
    below it; side by side, or one above the other if the image is wide."""
    panels = []
    for title, groups in stages:
        found, index = np.unique(groups, return_inverse=True)
        index = index.reshape(groups.shape)
        panel = outlined(blend(image, side_by_side(index)[index]), index)
        text = f"{title}: {len(found)} group{'' if len(found) == 1 else 's'}"
        panels.append(with_legend(Image.fromarray(panel), [(None, text)], beside=False))
    (w, h), gap = panels[0].size, letter_size(*image.shape[:2]) // 2
    across, down = (0, h + gap) if w > 2 * h else (w + gap, 0)
    canvas = Image.new("RGB", (w + (len(panels) - 1) * across, h + (len(panels) - 1) * down), "white")
    for i, picture in enumerate(panels):
        canvas.paste(picture, (i * across, i * down))
    return canvas


# ---------------------------------------------------------------- letters


def legend(names: Sequence[str], counts: np.ndarray, occur: Sequence[int], palette: np.ndarray) -> Rows:
    """Colour, name and share of the labels that `occur`, of which only the first LEGEND."""
    percent = 100 * counts / counts.sum()
    shares = [f"{percent[i]:.0f} %" if percent[i] >= 1 else "<1 %" for i in occur]
    rows: Rows = [(tuple(palette[i].tolist()), f"{readable(names[i], i)}  {share}")
                  for i, share in zip(occur, shares)]
    return rows if len(rows) <= LEGEND else [*rows[:LEGEND], (None, f"and {len(rows) - LEGEND} more")]


def readable(name: str, label: int) -> str:
    """A name in what Pillow's built-in font has: ASCII. Accents go; a name in another script is "label 7", its number
    in the label map; a long one is cut."""
    text = unicodedata.normalize("NFKD", name[: 4 * NAME])
    text = " ".join("".join(c for c in text if not unicodedata.combining(c)).split())
    if not any(c.isascii() and c.isalnum() for c in text):
        return f"label {label}"
    text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text if len(text) <= NAME and len(name) <= 4 * NAME else text[: NAME - 1].rstrip() + "…"


def with_legend(picture: Image.Image, rows: Rows, beside: bool | None = None) -> Image.Image:
    """Writes rows below a picture, in as many columns as fit, or in one column `beside` it (a tall picture, if not
    said), on a canvas as large as it takes."""
    width, height = picture.size
    em = letter_size(width, height)
    font, line, pad = ImageFont.load_default(em), 3 * em // 2, em // 2
    indent = 3 * em // 2 if rows[0][0] else 0
    cell = max(int(font.getlength(text)) for _, text in rows) + indent + em
    beside = height > 2 * width if beside is None else beside
    columns = 1 if beside else min(len(rows), max(1, (width - pad) // cell))
    across, down = columns * cell + pad, -(-len(rows) // columns) * line + pad
    canvas = Image.new("RGB", (width + across, max(height, down)) if beside else (max(width, across), height + down),
                       "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    left, top, step = (width + pad, pad, cell) if beside else (pad, height + pad, max(cell, (width - pad) // columns))
    for i, (colour, text) in enumerate(rows):
        x, y = left + (i % columns) * step, top + (i // columns) * line
        if colour:
            draw.rectangle((x, y, x + em, y + em), fill=colour)
        draw.text((x + indent, y + em / 2), text, fill="black", font=font, anchor="lm")
    return canvas


def write_names(picture: Image.Image, labels: np.ndarray, names: Sequence[str]) -> None:
    """Writes each class's name (not the background's) in its `regions`, white with a dark rim, away from the edges of
    the picture and from one another. A name that has no room, even smaller and in two lines, is in the legend only."""
    em = letter_size(*picture.size)
    cell = max(1, em // 8)  # pixels; places are sought on a coarser grid, as large for every picture
    coarse = labels[cell // 2 :: cell, cell // 2 :: cell]
    margin = max(1, em // 2 // cell)
    free, draw = np.zeros(coarse.shape, bool), ImageDraw.Draw(picture)
    free[margin:-margin, margin:-margin] = True
    for label, region in regions(coarse):
        text = readable(names[label], label)
        for form, size in ((text, em), (in_two(text), em), (text, em * 3 // 4), (in_two(text), em * 3 // 4)):
            style: dict[str, Any] = {"font": ImageFont.load_default(size), "stroke_width": max(1, size // 8),
                                     "anchor": "mm", "align": "center", "spacing": size // 8}
            x0, y0, x1, y1 = draw.textbbox((0, 0), form, **style)
            half = int((x1 - x0) / 2 / cell) + 2, int((y1 - y0) / 2 / cell) + 2
            if names[label] != "background" and (at := place(region, free, half)):
                (x, y), (w, h) = at, half
                centre = (x + 0.5) * cell - (x0 + x1) / 2, (y + 0.5) * cell - (y0 + y1) / 2
                draw.text(centre, form, fill="white", stroke_fill=(25, 25, 25), **style)
                free[y - h : y + h + 1, x - w : x + w + 1] = False
                break


def regions(labels: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(label, bool [h w]) of the connected regions that may get a name, largest first: each label's largest, and at
    most two others of at least a twentieth of the picture. A label of a thousandth of it has room for no name."""
    found = []
    for label in np.flatnonzero(np.bincount(labels.ravel()) * 1000 > labels.size):
        _, parts, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        sizes = stats[:, cv2.CC_STAT_AREA] * (np.arange(len(stats)) > 0)  # part 0 is what has another label
        for rank, part in enumerate(np.argsort(-sizes, kind="stable")[:3]):
            if rank == 0 or sizes[part] >= labels.size / 20:
                found.append((sizes[part], int(label), parts == part))
    return [(label, region) for _, label, region in sorted(found, key=lambda f: -f[0])]


def place(region: np.ndarray, free: np.ndarray, half: tuple[int, int], inside: float = 0.8) -> tuple[int, int] | None:
    """The centre (x, y) for a box of `half` width and height to each side, all of it free and at least the share
    `inside` of it in the region; where the region is widest, near its middle. None if there is no such place."""
    if region.sum() < inside * (2 * half[0] + 1) * (2 * half[1] + 1):
        return None

    def share(mask: np.ndarray, times: int = 1) -> np.ndarray:
        # of a box `times` as large around each pixel; none of it beyond the picture
        size = [2 * min(times * h, n) + 1 for h, n in zip(half, mask.shape[::-1])]
        count = cv2.boxFilter(mask.astype(np.uint8), cv2.CV_32S, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return count / (size[0] * size[1])

    here = share(region)
    fits = (share(free) == 1) & (here >= inside)
    if not fits.any():
        return None
    y, x = (np.asarray(places) for places in np.indices(region.shape))
    off = np.hypot((x - x[region].mean()) / region.shape[1], (y - y[region].mean()) / region.shape[0])
    worth = here + share(region, 2) + share(region, 4) - off / 2
    row, column = divmod(int(np.where(fits, worth, -np.inf).argmax()), fits.shape[1])
    return column, row


def in_two(text: str) -> str:
    """Broken at the space nearest to the middle."""
    spaces = [i for i, c in enumerate(text) if c == " "]
    middle = min(spaces, key=lambda i: abs(i - len(text) / 2), default=None)
    return text if middle is None else f"{text[:middle]}\n{text[middle + 1:]}"
