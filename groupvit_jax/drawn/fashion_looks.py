"""What a fashion scene shows: ten kinds of garments, photographed, on six grounds, drawn."""

import numpy as np

from groupvit_jax.drawn import looks
from groupvit_jax.drawn.textures import mix, noise, rgb, wave

# In the order of Fashion-MNIST's labels 0-9 (Xiao et al., arXiv:1708.07747, table 2), by one word a caption would use:
# "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot".
ITEMS = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandals", "shirt", "sneaker", "bag", "boot")


# ---------------------------------------------------------------- grounds: (rng, n) -> colours [n n 3]


def paper(rng: np.random.Generator, n: int) -> np.ndarray:
    return mix(rgb(222, 220, 214), rgb(246, 245, 240), 0.5 + 0.5 * noise(rng, n, 3, 3))


def wood(rng: np.random.Generator, n: int) -> np.ndarray:
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    plank = np.floor(y * rng.uniform(3.5, 5.5) + rng.random())
    grain = wave(y * 22 + 0.9 * noise(rng, n, 6, 3) + 0.4 * plank)
    colours = mix(rgb(112, 62, 30), rgb(164, 100, 54), 0.45 * grain + 0.3 + 0.25 * np.sin(5 * plank))
    gap = np.diff(plank, axis=0, prepend=plank[:1]) != 0
    colours[gap | np.roll(gap, 1, axis=0)] = rgb(52, 28, 14)
    return colours


def carpet(rng: np.random.Generator, n: int) -> np.ndarray:
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    u, v = 9 * (x + y) + rng.random(), 9 * (x - y) + rng.random()
    diamonds = np.clip(3 * wave(u) * wave(v) - 0.9, 0, 1)
    pile = 1 + 0.12 * noise(rng, n, 60, 60)
    return mix(rgb(140, 24, 62), rgb(214, 120, 140), diamonds) * pile[..., None]


GROUNDS = {look.__name__: look for look in (paper, wood, looks.grass, looks.sand, looks.road, carpet)}
CLASSES = ITEMS + tuple(GROUNDS)  # label order

# One colour a class for masks and overlays. Garments take the hues apart in brightness too, grounds their own pale or
# dark look, so that few pairs depend on telling red from green.
PALETTE = {
    "T-shirt": (230, 25, 75),
    "trousers": (0, 0, 117),
    "pullover": (255, 225, 25),
    "dress": (240, 50, 230),
    "coat": (0, 128, 128),
    "sandals": (245, 130, 48),
    "shirt": (66, 212, 244),
    "sneaker": (0, 100, 255),
    "bag": (128, 0, 0),
    "boot": (20, 20, 20),
    "paper": (245, 245, 240),
    "wood": (154, 99, 36),
    "grass": (170, 255, 140),
    "sand": (255, 216, 177),
    "road": (140, 140, 145),
    "carpet": (220, 150, 190),
}
