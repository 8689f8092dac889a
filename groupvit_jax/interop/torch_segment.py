# Copyright 2026 The groupvit_jax authors
# Licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0
"""Segments an image by words with the GroupViT in this folder. Needs torch, transformers, numpy and pillow.

    python segment.py photo.jpg --classes "cat; kitten,sofa" --background --output labels.png

    from segment import Segmenter  # in this folder; elsewhere add it to sys.path
    out = Segmenter().segment(Image.open("photo.jpg"), ["cat; kitten", "sofa"], background=True)
    out.labels, out.scores, out.names

This is the paper's zero-shot protocol: sliding windows, each pixel to one group, a group's classes among the five best
of its window, background below a threshold. `output_segmentation=True` of `transformers` is something else. The labels
are those of `groupvit_jax`, which wrote this folder, in float32, down to the rounding of OpenCV's resize (as on x86
processors).
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers import AutoTokenizer, GroupViTModel
from transformers.utils import logging

TEMPLATES = {
    "groupvit": ["a photo of a {}."],
    "tcl": ["itap of a {}.", "a bad photo of a {}.", "a origami {}.", "a photo of the large {}.",
            "a {} in a video game.", "art of the {}.", "a photo of the small {}.", "a photo of many {}.",
            "a photo of {}s."],
}
THRESHOLDS = {"groupvit": 0.95, "tcl": 0.5}  # of the background, as tuned for PASCAL VOC
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TOP = 5  # classes that a window may have


class Segmentation(NamedTuple):
    """labels int32 [h w], indices into `names`, and scores float32 [h w n]."""

    labels: np.ndarray
    scores: np.ndarray
    names: list[str]


class Segmenter:
    """The model of an exported folder, by default the one that this file lies in.

    On a GPU, PyTorch's convolutions round to TF32 unless told otherwise: a few pixels at borders may differ.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent, device: str = "cpu") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = GroupViTModel.from_pretrained(folder).float().to(device)
        self.geometry = json.loads(Path(folder, "groupvit_jax.json").read_text())["segmentation"]
        self.patch, self.device = self.model.config.vision_config.patch_size, device

    @torch.inference_mode()
    def segment(self, image: Image.Image | np.ndarray, classes: list[str], background: bool | float | str = False,
                protocol: str = "groupvit") -> Segmentation:
        """Labels every pixel of an image, PIL or uint8 [h w 3], with one of the classes.

        classes: a name each, or several for one thing, as "cat; kitten; tabby", of which the best counts.
        background: True adds a label 0 by the protocol's threshold, a number (0-1) by that one, words ("sky; wall") by
        how well these fit.
        protocol: "groupvit", one prompt a name, or "tcl", nine.
        Raises ValueError for an image, a class, a background or a protocol that is none.
        """
        names, words, threshold = class_words(classes, background, protocol)
        pixels = as_array(image)
        embeddings = self.embed([word for each in words for word in each], TEMPLATES[protocol])
        owner = torch.tensor([i for i, each in enumerate(words) for _ in each], device=self.device)  # [q]
        canvas = self.resize_shorter(pixels)
        sums, over = torch.zeros(len(names), *canvas.shape[:2]), torch.zeros(canvas.shape[:2])
        for rows in self.windows(canvas.shape[0]):
            for columns in self.windows(canvas.shape[1]):
                groups, table = self.look(canvas[rows, columns], embeddings, owner, threshold)
                sums[:, rows, columns] += table.T[:, groups]
                over[rows, columns] += 1
        scores = bilinear(sums / over, pixels.shape[:2])  # [n h w]
        return Segmentation(scores.argmax(dim=0).int().numpy(), scores.permute(1, 2, 0).numpy(), names)

    def embed(self, names: list[str], templates: list[str]) -> torch.Tensor:
        """Unit [q d]: the mean over templates of the projected prompts."""
        texts, parts = [template.replace("{}", name) for name in names for template in templates], []
        for i in range(0, len(texts), 256):
            tokens = self.tokenizer(texts[i : i + 256], padding=True, truncation=True, return_tensors="pt").input_ids
            features = self.model.text_model(tokens.to(self.device)).pooler_output
            parts.append(self.model.text_projection(features))
        return F.normalize(torch.cat(parts).unflatten(0, (len(names), -1)).mean(dim=1), dim=-1)

    def look(self, window: np.ndarray, embeddings: torch.Tensor, owner: torch.Tensor, threshold: float | None) -> Any:
        """uint8 [h w 3] -> to which group each pixel belongs [h w], and the groups' scores [g n]."""
        (h, w), p, vision = window.shape[:2], self.patch, self.model.vision_model
        if min(h, w) < p:
            raise ValueError(f"the image is too narrow: windows of {w}x{h} pixels hold no patch; crop its long side")
        x = (torch.tensor(window[: h // p * p, : w // p * p]) / 255 - MEAN) / STD
        x = x.permute(2, 0, 1)[None].to(self.device)
        # The stages of `vision_model`, whose forward cannot ask the embeddings to resize the positions.
        seen = vision.encoder(vision.embeddings(x, interpolate_pos_encoding=True), output_attentions=True)
        shares = seen.attentions[0][0]  # [g patches]
        for stage in seen.attentions[1:]:
            shares = stage[0] @ shares
        groups = bilinear(shares.unflatten(1, (h // p, w // p)).cpu(), (h, w)).argmax(dim=0)

        segments = vision.layernorm(seen.last_hidden_state[0])  # [g c]
        pooled = segments.mean(dim=0, keepdim=True)
        segments, pooled = (F.normalize(self.model.visual_projection(c), dim=-1) for c in (segments, pooled))
        logits = segments @ embeddings.T * self.model.logit_scale.exp().clamp(max=100)  # [g q]
        best = best_word(pooled @ embeddings.T, owner)[0].argsort(descending=True, stable=True)[:TOP]
        of_best = logits.masked_fill(~torch.isin(owner, best), -torch.inf)
        table = best_word(logits.softmax(dim=-1) * of_best.softmax(dim=-1), owner)  # [g n]
        if threshold is not None:
            below = table.amax(dim=1, keepdim=True) < table.max().clamp(max=threshold)
            table = torch.cat([below.float(), table], dim=1)
        return groups, table.cpu()

    def resize_shorter(self, image: np.ndarray) -> np.ndarray:
        h, w = image.shape[:2]
        scale = min(self.geometry["size"] / min(h, w), self.geometry["long"] / max(h, w))
        return resize(image, max(1, int(h * scale + 0.5)), max(1, int(w * scale + 0.5)))

    def windows(self, side: int) -> list[slice]:
        """Along a side: one every stride, the last flush with the end."""
        window, stride = self.geometry["window"], self.geometry["stride"]
        last = max(side - window, 0)
        return [slice(start, start + window) for start in (*range(0, last, stride), last)]


def class_words(classes: list[str], background: bool | float | str, protocol: str) -> Any:
    """The labels' names, the words for each of them that has words, and the threshold of a background without."""
    if protocol not in TEMPLATES:
        raise ValueError(f"no protocol {protocol!r}: choose one of {', '.join(TEMPLATES)}")
    words = [split(names) for names in ([classes] if isinstance(classes, str) else classes)]
    if not words:
        raise ValueError("give at least one class, as in 'cat,sofa'")
    names = [each[0] for each in words]
    if background is False:
        return names, words, None
    if isinstance(background, str):
        return ["background", *names], [split(background), *words], None
    threshold = THRESHOLDS[protocol] if background is True else float(background)
    if not 0 <= threshold <= 1:
        raise ValueError(f"background={threshold} is not a threshold between 0 and 1")
    return ["background", *names], words, threshold


def split(text: str) -> list[str]:
    names = [name.strip() for name in text.split(";")]
    if not all(names):
        raise ValueError(f"{text!r} has an empty name: give one or more, as 'cat' or 'cat; kitten; tabby'")
    return names


def best_word(scores: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Scores of words [... q] -> of the labels that own them [... n], each its best word's."""
    return torch.stack([scores[..., owner == i].amax(dim=-1) for i in range(int(owner.max()) + 1)], dim=-1)


def bilinear(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[n h w] -> [n *size]."""
    return F.interpolate(x[None], size=size, mode="bilinear", align_corners=False)[0]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [height width 3]: OpenCV's INTER_LINEAR in its fixed-point arithmetic, bit for bit."""
    (top, bottom, v), (left, right, u) = taps(image.shape[0], height), taps(image.shape[1], width)
    v, u = v[:, None, None], u[:, None]
    rows = (image[:, left] * (2048 - u) + image[:, right] * u) >> 4  # [h width 3]
    return (((rows[top] * (2048 - v) >> 16) + (rows[bottom] * v >> 16) + 2) >> 2).astype(np.uint8)


def taps(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two neighbours in the input of each place in the output, and the second one's weight in 2048ths."""
    at = ((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.float32)
    low = np.floor(at)
    return *np.clip([low, low + 1], 0, n_in - 1).astype(int), np.rint((at - low) * 2048).astype(np.int32)


def read(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)  # phones store a photo as the sensor lies
    except Exception as error:  # PIL's readers raise nearly anything for damaged files
        raise ValueError(f"cannot read {path} as an image: {error}") from None


def as_array(image: Image.Image | np.ndarray) -> np.ndarray:
    """PIL image or uint8 [h w 3] -> uint8 [h w 3]. Of 16-bit grey the upper 8 bits count."""
    if isinstance(image, Image.Image):
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or 0 in image.shape:
        raise ValueError("give the image as a PIL image or a uint8 array [h w 3], red green blue")
    return image


def colours(n: int) -> list[int]:
    """PASCAL VOC's palette, [3 n]: the bits of a label are dealt out to red, green and blue."""
    return [sum((i >> 3 * bit + c & 1) << 7 - bit for bit in range(8)) for i in range(n) for c in range(3)]


def number_or_words(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Segments an image by words with the GroupViT in this folder.")
    parser.add_argument("image")
    parser.add_argument("--classes", required=True, help="comma separated; several names for one as 'cat; kitten'")
    parser.add_argument("--background", nargs="?", const=True, default=False, type=number_or_words,
                        help="leave what looks like none of the classes: alone by the protocol's threshold, =T by "
                        "another between 0 and 1, ='sky; wall' by words for it")
    parser.add_argument("--protocol", default="groupvit", choices=TEMPLATES, help="which prompts and threshold")
    parser.add_argument("--output", default="labels.png", help="where the label map goes, a PNG with palette")
    args = parser.parse_args()
    classes = args.classes.split(",")
    logging.disable_progress_bar()
    try:
        if len(classes) > 255:
            raise ValueError("a label map holds a background and 255 classes: give fewer")
        class_words(classes, args.background, args.protocol)  # before the model is read
        image = read(args.image)
        out = Segmenter().segment(image, classes, args.background, args.protocol)
        picture = Image.fromarray(out.labels.astype(np.uint8))
        picture.putpalette(colours(256))
        picture.save(args.output)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {str(error).splitlines()[0]}\n")
    for i, name in enumerate(out.names):
        print(f"{(out.labels == i).mean():6.1%}  {name}")


if __name__ == "__main__":
    main()
