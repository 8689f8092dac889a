"""What a run would train on: counts, captions, sizes, speed, and pictures as the model will see them."""

import dataclasses
import io
import math
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from groupvit_jax.data import pipeline, sources
from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.examples import MakeExample, MakeGroup
from groupvit_jax.data.tokenizer import Tokenizer
from groupvit_jax.errors import InputError
from groupvit_jax.writer import Progress

_ON_SHEET = 24  # pictures
_NAMED = 3  # bad samples of each kind


@dataclasses.dataclass
class Inspection:
    """The first samples that a run would draw, looked at one by one."""

    sets: list[str]  # a line each
    bad: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # kind -> which samples
    captions: list[int] = dataclasses.field(default_factory=list)  # tokens of each
    prompts: list[int] = dataclasses.field(default_factory=list)  # tokens of each that is not the caption
    sides: list[int] = dataclasses.field(default_factory=list)  # pixels, shorter side of each picture
    kilobytes: list[int] = dataclasses.field(default_factory=list)  # of each picture as it is stored
    sheet: list[tuple[np.ndarray, list[str]]] = dataclasses.field(default_factory=list)  # pixels and texts
    seconds: float = 0.0  # of one thread, reading and making examples


def inspect(config: ConfigDict, samples: int) -> Inspection:
    """Opens what `config.data` names and makes the first examples of a run of `config` (the whole configuration).

    Raises InputError where `train` would, but for a large share of bad samples.
    """
    pipeline.check(config)
    data, length = config.data.copy_and_resolve_references(), config.model.text.length
    data.packing = False  # the room for it is what one wants to know
    opened = sources.open_sources(data)
    if data.prompts:
        data.tagger = sources.tagger_name(data, opened)
    found = Inspection(sources.describe(data, opened))
    make_example = MakeExample(data, config.augment, config.model.image.image_size, length)
    make = MakeGroup(opened, data, make_example, pipeline.group_size(data), config.seed)
    with Progress("samples", samples, "samples") as progress:
        for place in range(samples):
            look(found, make, data, *divmod(place, make.groups)[::-1])
            progress.advance(1)
    return found


def look(found: Inspection, make: MakeGroup, config: ConfigDict, lane: int, draw: int) -> None:
    """Makes one example and notes what there is to note."""
    began, (number, index), sample = time.perf_counter(), make.order(lane, draw), {}
    try:
        sample = make.sample(number, index)
        pixels, tokens = make.make_example(sample, make.random(lane, draw))
    except BadSample as error:
        which = f"{config.train[number].name}[{index}] {sample.get('key', '')} {error.sample}"
        found.bad.setdefault(error.kind, []).append(" ".join(which.split()))
        return
    finally:
        found.seconds += time.perf_counter() - began
    found.captions.append(len(tokens[0]))
    found.prompts += [len(ids) for ids in tokens[1:] if ids != tokens[0]]
    with Image.open(io.BytesIO(sample["image"])) as image:
        found.sides.append(min(image.size))
    found.kilobytes.append(len(sample["image"]) // 1024)
    if len(found.sheet) < _ON_SHEET:
        found.sheet.append((pixels, [Tokenizer().decode(ids) for ids in tokens]))


def report(found: Inspection) -> str:
    """All of it but the pictures, as text."""
    good, wrong = len(found.captions), sum(map(len, found.bad.values()))
    lines = [*found.sets, "", f"{good + wrong:,} samples looked at, {wrong:,} bad"]
    for kind, names in sorted(found.bad.items()):
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        lines.append(f"  {len(names):,} x {kind}: {', '.join(names[:_NAMED])}{more}")
    if not good:
        return "\n".join(lines)
    lines.append(f"{good / found.seconds:.0f} images a second made by one thread of one process")
    for title, values in histograms(found).items():
        lines += ["", title, *bars(values)]
    room = {"caption_tokens": found.captions, "prompt_tokens": found.prompts}
    advice = "  ".join(f"config.data.{name}={np.mean(tokens) * 1.12:.0f}" for name, tokens in room.items() if tokens)
    return "\n".join([*lines, "", f"room for packed texts that these need, with a margin: {advice}"])


def histograms(found: Inspection) -> dict[str, list[int]]:
    """Title -> values."""
    titled = {"caption length, tokens": found.captions, "prompt length, tokens": found.prompts,
              "shorter side, pixels": found.sides, "stored picture, kB": found.kilobytes}
    return {f"{title} (mean {np.mean(values):.1f}, longest {max(values)})" if "length" in title
            else f"{title} (mean {np.mean(values):.0f})": values for title, values in titled.items() if values}


def counted(values: list[int]) -> list[tuple[str, int]]:
    """(range of values, how many) of up to ten equally wide bins of whole numbers."""
    low, width = min(values), max(1, math.ceil((max(values) - min(values) + 1) / 10))
    counts = np.bincount((np.array(values) - low) // width)
    return [(f"{low + i * width}-{low + (i + 1) * width - 1}" if width > 1 else str(low + i), int(n))
            for i, n in enumerate(counts)]


def bars(values: list[int], columns: int = 50) -> list[str]:
    """A histogram as lines of text."""
    rows = counted(values)
    most, widest = max(n for _, n in rows), max(len(label) for label, _ in rows)
    return [f"  {label:>{widest}}  {'#' * math.ceil(columns * n / most)} {n:,}" for label, n in rows]


def pictures(found: Inspection) -> dict[str, Image.Image]:
    """File name -> picture: the histograms, and a sheet of augmented samples with their texts."""
    if not found.sheet:
        raise InputError("no usable sample to draw: mend the shards first")
    return {"histograms.png": chart(histograms(found)), "samples.png": contact_sheet(found.sheet)}


def chart(titled: dict[str, list[int]], width: int = 640) -> Image.Image:
    """Histograms one below the other."""
    row, font = 20, ImageFont.load_default(14)
    heights = [row * (len(counted(values)) + 2) for values in titled.values()]
    canvas = Image.new("RGB", (width, sum(heights)), "white")
    draw, y = ImageDraw.Draw(canvas), 0
    for (title, values), height in zip(titled.items(), heights, strict=True):
        draw.text((10, y + 4), title, fill="black", font=font)
        rows = counted(values)
        for i, (label, n) in enumerate(rows, 1):
            top, length = y + i * row + 4, (width - 200) * n // max(n for _, n in rows)
            draw.text((100 - font.getlength(label), top), label, fill="black", font=font)
            draw.rectangle((110, top + 2, 110 + length, top + row - 4), fill=(70, 110, 170))
            draw.text((116 + length, top), f"{n:,}", fill="black", font=font)
        y += height
    return canvas


def contact_sheet(samples: list[tuple[np.ndarray, list[str]]], columns: int = 4, side: int = 224) -> Image.Image:
    """Pictures as the model gets them, with their caption and prompts below."""
    font, line, pad = ImageFont.load_default(12), 16, 8
    lines = [[piece for text in texts for piece in wrapped(text, font, side)] for _, texts in samples]
    height = side + line * max(map(len, lines)) + 2 * pad
    canvas = Image.new("RGB", (columns * (side + pad) + pad, math.ceil(len(samples) / columns) * height + pad), "white")
    draw = ImageDraw.Draw(canvas)
    for i, ((pixels, _), pieces) in enumerate(zip(samples, lines, strict=True)):
        x, y = pad + i % columns * (side + pad), pad + i // columns * height
        canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (x, y))
        for j, piece in enumerate(pieces):
            draw.text((x, y + side + 2 + j * line), piece, fill="black", font=font)
    return canvas


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """A text in lines of at most so many pixels; a dash begins it."""
    lines = ["-"]
    for word in text.split():
        if font.getlength(f"{lines[-1]} {word}") > width and len(lines[-1]) > 1:
            lines.append(" ")
        lines[-1] += f" {word}"
    return lines[:4]


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
