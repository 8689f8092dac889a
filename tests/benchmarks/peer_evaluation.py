"""The evaluation that `eval_speed.py` compares with: the `transformers` model in a plain PyTorch loop, float32.

Written as a PyTorch user would who minds his time: texts once, positions resized once, a window at a time (on a CPU
larger batches are slower), one buffer of scores an image, all cores.
"""

import math
import pathlib
import time
from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

WINDOW, STRIDE, LONG = 448, 224, 2048
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random_model(seed: int = 0) -> transformers.GroupViTModel:
    """The published size. Weights are random, but such that groups and classes differ."""
    torch.manual_seed(seed)
    model = transformers.GroupViTModel(transformers.GroupViTConfig()).eval()
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name == "logit_scale":
                x.fill_(math.log(1 / 0.07))
            elif "embedding" in name or name.endswith("group_token"):
                x.normal_(std=0.5)
            elif x.ndim > 1:
                x.normal_(std=x[0].numel() ** -0.5 * (3 if "assign.q_proj" in name else 1))
    return model


class Peer:
    """counts(folder) -> confusion [c c]. `names` are the named classes; threshold of the background, label 0, or None.

    tokens: int64 [c l], the names in the template. `seconds` says where the time went.
    """

    def __init__(self, model: transformers.GroupViTModel, tokens: np.ndarray, threshold: float | None):
        self.model, self.threshold = model, threshold
        self.seconds, self.windows = {"read": 0.0, "model": 0.0, "window": 0.0, "image": 0.0}, 0
        self.mean, self.std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
        with torch.inference_mode():
            self.scale = model.logit_scale.exp().clamp(max=100.0)
            words = model.get_text_features(torch.from_numpy(tokens)).pooler_output
            self.words = F.normalize(words, dim=-1)  # [c d]
            embeddings = model.vision_model.embeddings
            embeddings.position_embeddings = torch.nn.Parameter(
                embeddings.interpolate_pos_encoding(torch.empty(1, (WINDOW // 16) ** 2, 384), WINDOW, WINDOW))
            embeddings.patch_embeddings.image_size = (WINDOW, WINDOW)

    def counts(self, pairs: list[tuple[pathlib.Path, pathlib.Path]]) -> np.ndarray:
        classes = len(self.words) + (self.threshold is not None)
        total = torch.zeros(classes * classes, dtype=torch.long)
        with torch.inference_mode():
            for image, truth in read(pairs, self.seconds):
                labels = self.scores(image, truth.shape).argmax(0)
                begun = time.perf_counter()
                known = truth != 255
                total += torch.bincount(classes * truth[known].long() + labels[known], minlength=classes * classes)
                self.seconds["image"] += time.perf_counter() - begun
        return total.reshape(classes, classes).numpy()

    def scores(self, image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """uint8 [h w 3], resized -> [c H W] at the original size."""
        begun = time.perf_counter()
        pixels = torch.from_numpy(image).permute(2, 0, 1).float().div_(255).sub_(self.mean).div_(self.std)
        h, w = pixels.shape[1:]
        total = torch.zeros(len(self.words) + (self.threshold is not None), h, w)
        count = torch.zeros(h, w)
        self.seconds["image"] += time.perf_counter() - begun
        for y in starts(h):
            for x in starts(w):
                table, groups = self.window(pixels[None, :, y : y + WINDOW, x : x + WINDOW])
                begun = time.perf_counter()
                maps = table.T.index_select(1, groups.flatten()).view(-1, *groups.shape)  # [c 448 448]
                total[:, y : y + WINDOW, x : x + WINDOW] += maps
                count[y : y + WINDOW, x : x + WINDOW] += 1
                self.seconds["window"] += time.perf_counter() - begun
        begun = time.perf_counter()
        scores = F.interpolate(total.div_(count)[None], size, mode="bilinear", align_corners=False)[0]
        self.seconds["image"] += time.perf_counter() - begun
        return scores

    def window(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised [1 3 448 448] -> scores of its groups [8 c], the group of each pixel [448 448]."""
        begun = time.perf_counter()
        out = self.model.vision_model(pixels, output_attentions=True)  # its `attentions` are the soft assignments
        tokens = torch.cat([out.last_hidden_state[0], out.pooler_output])
        *segments, pooled = F.normalize(self.model.visual_projection(tokens), dim=-1)
        self.seconds["model"] += time.perf_counter() - begun
        begun = time.perf_counter()
        first, second = out.attentions  # [1 64 784], [1 8 64]
        shares = (second @ first).reshape(1, 8, WINDOW // 16, WINDOW // 16)
        groups = F.interpolate(shares, (WINDOW, WINDOW), mode="bilinear", align_corners=False)[0].argmax(0)
        logits = self.scale * torch.stack(segments) @ self.words.T  # [8 c]
        best = (self.words @ pooled).topk(min(5, len(self.words))).indices
        table = torch.zeros_like(logits)
        table[:, best] = logits[:, best].softmax(-1) * logits.softmax(-1)[:, best]
        if self.threshold is not None:
            top = table.amax(-1)
            background = top < min(self.threshold, top.max())
            table = torch.cat([background[:, None].float(), table], dim=-1)
        self.seconds["window"] += time.perf_counter() - begun
        self.windows += 1
        return table, groups


def best_threads(loop: Peer) -> int:
    """One thread or all of PyTorch's, by the time of three windows each after one to warm up."""
    times, pixels = {}, torch.zeros(1, 3, WINDOW, WINDOW)
    for n in {1, torch.get_num_threads()}:
        torch.set_num_threads(n)
        with torch.inference_mode():
            for _ in range(4):
                begun = time.perf_counter()
                loop.window(pixels)
                times.setdefault(n, []).append(time.perf_counter() - begun)
    loop.seconds, loop.windows = dict.fromkeys(loop.seconds, 0.0), 0
    return min(times, key=lambda n: sum(times[n][1:]))


def starts(side: int) -> list[int]:
    return [min(STRIDE * i, side - WINDOW) for i in range(-(-(side - WINDOW) // STRIDE) + 1)]


def read(pairs: list[tuple[pathlib.Path, pathlib.Path]], seconds: dict) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """(picture uint8 [h w 3] with its short side 448, labels uint8 [H W])."""
    for image, mask in pairs:
        begun = time.perf_counter()
        picture = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        height, width = picture.shape[:2]
        scale = min(WINDOW / min(height, width), LONG / max(height, width))
        picture = cv2.resize(picture, (int(width * scale + 0.5), int(height * scale + 0.5)))
        labels = torch.from_numpy(np.array(Image.open(mask)))
        seconds["read"] += time.perf_counter() - begun
        yield picture, labels
