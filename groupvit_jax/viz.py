"""Pictures of segmentations: labels over the image with a legend, groups with their borders."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes

VIEWS = ("overlay", "labels", "groups")
SMALLEST_SIDE = 384  # pixels; smaller images are enlarged, so that a legend can be read beside them


def pictures(image: Image.Image, result, views=VIEWS):
    """Yields (name, PIL image) of some VIEWS of an image's `inference.Segmentation`: overlay (labels over the image),
    labels (a palette image of label numbers), and groups1, groups2 ... for each stage."""
    pixels, palette = np.asarray(image.convert("RGB")), palette_of(result.names)
    if "overlay" in views:
        yield "overlay", label_picture(pixels, result.labels, list(result.names), palette)
    if "labels" in views:
        yield "labels", palette_png(result.labels, palette)
    if "groups" in views:
        for s, groups in enumerate(result.stages, 1):
            yield f"groups{s}", group_picture(pixels, groups, f"stage {s}")


def colours(n: int) -> np.ndarray:
    """n distinct colours, uint8 [n 3]: hues by the golden ratio, so that neighbours in the list differ most."""
    hues = [(0.02 + i * 0.618034) % 1.0 for i in range(n)]
    rgb = [colorsys.hsv_to_rgb(h, 0.85 if i % 2 else 0.6, 0.95 if i % 3 else 0.75) for i, h in enumerate(hues)]
    return (np.array(rgb, np.float64).reshape(n, 3) * 255).astype(np.uint8)


def palette_of(names: Sequence[str]) -> np.ndarray:
    """A colour for each name, uint8 [n 3]: that of the scenes where they have one (grass is green), else `colours`."""
    known = dict(zip(classes.names("scenes"), classes.palette("scenes"), strict=True))
    return np.array([known.get(name, colour) for name, colour in zip(names, colours(len(names)), strict=True)])


def enlarged(pixels: np.ndarray, side: int = SMALLEST_SIDE) -> np.ndarray:
    """Repeats pixels until the shorter side has at least `side`; [h w ...]."""
    factor = max(1, -(-side // min(pixels.shape[:2])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def blend(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """uint8 [h w 3] image, int [h w] labels, uint8 [n 3] palette -> uint8 [h w 3], labels laid over the image in grey,
    so that the colours seen are those of the legend."""
    return (image.mean(axis=-1, keepdims=True) * (1 - alpha) + palette[labels] * alpha).astype(np.uint8)


def borders(labels: np.ndarray) -> np.ndarray:
    """bool [h w]: pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def label_picture(image: np.ndarray, labels: np.ndarray, names: list[str], palette: np.ndarray | None = None):
    """Image and overlay side by side, with a legend of the labels that occur, largest first -> PIL image."""
    palette = palette_of(names) if palette is None else palette
    image, labels = enlarged(image), enlarged(labels)
    overlay = blend(image, labels, palette)
    overlay[borders(labels)] = 255
    counts = np.bincount(labels.ravel(), minlength=len(names))
    shown = [i for i in np.argsort(-counts) if counts[i]]
    rows = [(tuple(int(v) for v in palette[i]), f"{names[i]}  {100 * counts[i] / labels.size:.0f} %") for i in shown]
    return with_legend(np.concatenate([image, overlay], axis=1), rows)


def group_picture(image: np.ndarray, groups: np.ndarray, title: str):
    """The groups of one stage: each in its mean colour, white borders, beside the image -> PIL image."""
    image, groups = enlarged(image), enlarged(groups)
    _, index = np.unique(groups, return_inverse=True)
    index = index.reshape(groups.shape)
    counts = np.bincount(index.ravel())
    means = np.stack([np.bincount(index.ravel(), image[..., c].ravel()) / counts for c in range(3)], axis=-1)
    picture = means.astype(np.uint8)[index]
    picture[borders(groups)] = 255
    return with_legend(np.concatenate([image, picture], axis=1), [((0, 0, 0), f"{title}: {len(counts)} groups")])


def with_legend(picture: np.ndarray, rows: list[tuple[tuple[int, int, int], str]]):
    """Writes (colour, text) rows under a picture, as many columns as fit -> PIL image."""
    em = max(16, picture.shape[1] // 64)  # pixels; a photo of 12 megapixels is looked at made smaller
    font, height, pad = ImageFont.load_default(em), 3 * em // 2, em // 2
    cell = max(int(font.getlength(text)) for _, text in rows) + 5 * em // 2
    columns = max(1, picture.shape[1] // cell)
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0] + pad + height * -(-len(rows) // columns)), "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, (colour, text) in enumerate(rows):
        x, y = (i % columns) * cell + pad, picture.shape[0] + pad // 2 + (i // columns) * height
        draw.rectangle((x, y + em // 5, x + em, y + em // 5 + em), fill=colour, outline=(90, 90, 90))
        draw.text((x + 3 * em // 2, y), text, fill="black", font=font)
    return canvas


def palette_png(labels: np.ndarray, palette: np.ndarray):
    """int [h w] labels -> PIL palette image whose values are the labels; InputError for more than 256 of them."""
    if len(palette) > 256:
        raise InputError(f"a palette PNG holds at most 256 labels, not {len(palette)}: give fewer classes")
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    return image
