"""The canvas of a scene: a ground, things placed on it without hiding each other, light and camera noise."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from groupvit_jax.drawn.looks import GROUNDS, OBJECTS, THINGS, UPRIGHT, Ground

VISIBLE = 0.015  # share of the canvas below which a class counts as not visible and goes unnamed


class Canvas:
    """A picture in the making: colours, and which thing owns each pixel. `n` is its side in pixels.

    grounds: {name: look}, one of which it gets. Their labels are 0, 1... and those of the things follow; with
    `things_first` it is the other way round, for so many kinds of things.
    """

    def __init__(self, rng: np.random.Generator, n: int, grounds: Mapping[str, Ground] = GROUNDS,
                 things_first: int = 0) -> None:
        self.rng, self.n = rng, n
        self.ground = int(rng.integers(len(grounds)))
        self.colours = list(grounds.values())[self.ground](rng, n) * self.tint()  # float32 [n n 3]
        self.ground_label, self.first = (
            (things_first + self.ground, 0) if things_first else (self.ground, len(grounds))
        )
        self.owner = np.zeros((n, n), np.uint8)  # 0 is the ground, then things in the order of placing
        self.kinds: list[int] = []  # of each thing, its number among the things
        self.full: list[int] = []  # area of each thing in pixels, were nothing in front of it

    def tint(self) -> np.ndarray:
        """Factors [3] on red, green, blue: another brightness and a slightly other hue each time."""
        return (self.rng.uniform(0.85, 1.1) * self.rng.uniform(0.94, 1.06, 3)).astype(np.float32)

    def place(self, kind: int, radius: float, close: bool = False) -> None:
        """Adds a thing in front, where it hides no other by more than half; nothing if there is no room.

        Args:
            kind: index into OBJECTS.
            radius: as a share of the canvas.
            close: near the middle, and may reach beyond the edges.
        """
        inside, colours = self._thing(kind, radius, turn=0.5 if OBJECTS[kind] in UPRIGHT else math.pi)
        self.put(kind, inside, colours, 0.2 if close else 0.5 - 0.6 * radius, close)

    def put(self, kind: int, inside: np.ndarray, colours: np.ndarray, reach: float,
            close: bool = False, centre: Any = (0.5, 0.5)) -> None:
        """Adds what is `inside` a box [k k], with its colours [k k 3]; nothing if there is no room.

        Args:
            kind: its number among the things.
            reach: how far from `centre` it may be, in each direction, as a share of the canvas; both are (down, right).
            close: may reach beyond the edges; otherwise no more than a fifth of it.
        """
        n, k = self.n, len(inside)
        area = int(np.count_nonzero(inside))
        for _ in range(12):
            top, left = (n * (centre + self.rng.uniform(-reach, reach, 2)) - k / 2).round().astype(int)
            on = np.s_[max(top, 0) : top + k, max(left, 0) : left + k]
            cut = np.s_[max(-top, 0) : n - top, max(-left, 0) : n - left]
            seen = inside[cut]
            hidden = np.bincount(self.owner[on][seen], minlength=len(self.kinds) + 1)
            left_over = np.bincount(self.owner.ravel(), minlength=len(self.kinds) + 1) - hidden
            full = np.array(self.full)
            enough = np.maximum(0.5 * full, np.minimum(full, 1.5 * VISIBLE * n * n))
            if (np.count_nonzero(seen) >= 0.8 * area or close) and (left_over[1:] >= enough).all():
                self.kinds.append(int(kind))
                self.full.append(area)
                self.owner[on][seen] = len(self.kinds)
                self.colours[on][seen] = colours[cut][seen]
                return

    def _thing(self, kind: int, radius: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
        """A thing in a box of its own: inside bool [k k], colours float32 [k k 3]."""
        rng = self.rng
        half = math.ceil(self.n * radius)
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32) / (self.n * radius)
        angle, flip = rng.uniform(-turn, turn), int(rng.choice((-1, 1)))
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = flip * (cos * x + sin * y), cos * y - sin * x
        # Textures keep their size on the canvas but for a little: a close-up shows them somewhat larger.
        scale = radius / (rng.uniform(0.85, 1.2) * (radius / 0.3) ** 0.3)
        inside, colours = THINGS[OBJECTS[kind]](rng, x, y, x * scale, y * scale)
        shade = 1 + rng.uniform(0, 0.12) * (0.5 * x - y)  # one side lighter
        return inside, colours * shade[..., None] * self.tint()

    def develop(self) -> tuple[np.ndarray, np.ndarray]:
        """Lights the picture and halves it: image uint8 [s s 3], mask uint8 [s s]."""
        rng, s = self.rng, self.n // 2
        rows = self.colours[::2] + self.colours[1::2]
        image = (rows[:, ::2] + rows[:, 1::2]) / 4
        across = np.linspace(-1, 1, s, dtype=np.float32)
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.13)
        light = 1 + strength * (math.cos(angle) * across + math.sin(angle) * across[:, None])  # [s s]
        image = image * light[..., None] + rng.uniform(1.5, 5) * rng.standard_normal(image.shape, np.float32)
        labels = np.array([self.ground_label] + [self.first + k for k in self.kinds], np.uint8)[self.owner]
        a, b, c, d = labels[::2, ::2], labels[::2, 1::2], labels[1::2, ::2], labels[1::2, 1::2]
        mask = np.where((b == c) | (b == d), b, np.where(c == d, c, a))  # the commonest of four
        return np.clip(image, 0, 255).round().astype(np.uint8), mask
