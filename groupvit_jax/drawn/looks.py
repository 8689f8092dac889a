"""How each class of the scenes looks: five grounds and ten things, as functions of coordinates.

A look is a colour family, a texture and (for things) an outline. No two looks share colour and texture, so a
small patch of a picture says what it belongs to; every draw varies hue, brightness and the texture's phase.
Colours are float32 in 0..255. Lengths are shares of the canvas, so a picture looks the same at any size.
"""

from collections.abc import Callable

import numpy as np

from groupvit_jax.drawn.textures import TAU, capsule, dots, ellipse, mix, noise, rgb, wave

Ground = Callable[[np.random.Generator, int], np.ndarray]
Look = tuple[np.ndarray, np.ndarray]
Thing = Callable[[np.random.Generator, np.ndarray, np.ndarray, np.ndarray, np.ndarray], Look]

# ---------------------------------------------------------------- grounds: (rng, n) -> colours [n n 3]


def sky(rng: np.random.Generator, n: int) -> np.ndarray:
    down = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    cloud = np.clip(noise(rng, n, 7, 4) + 0.5 * noise(rng, n, 14, 8), 0, 1)
    return mix(
        mix(rgb(120, 184, 242), rgb(168, 214, 248), down + np.zeros(n, np.float32)),
        rgb(225, 238, 250),
        0.55 * cloud,
    )


def grass(rng: np.random.Generator, n: int) -> np.ndarray:
    blades = noise(rng, n, 12, 44) + 0.7 * noise(rng, n, 24, 64)
    patchy = 1 + 0.06 * noise(rng, n, 4, 4)
    return mix(rgb(122, 196, 62), rgb(186, 236, 104), 0.5 + 0.7 * blades) * patchy[..., None]


def sand(rng: np.random.Generator, n: int) -> np.ndarray:
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    ripple = wave(y * rng.uniform(5, 8) + 0.5 * noise(rng, n, 4, 5) + x * rng.uniform(-1, 1))
    return mix(rgb(206, 180, 136), rgb(238, 218, 178), 0.3 + 0.4 * ripple + 0.5 * noise(rng, n, 64, 64))


def night(rng: np.random.Generator, n: int) -> np.ndarray:
    colours = mix(rgb(10, 12, 38), rgb(26, 28, 70), 0.5 + 0.5 * noise(rng, n, 4, 4))
    for _ in range(rng.integers(14, 30)):
        k = max(1, round(n / 64 * rng.uniform(0.6, 1.3)))
        row, col = rng.integers(0, n - k, 2)
        colours[row : row + k, col : col + k] = rng.uniform(140, 250)
    return colours


def road(rng: np.random.Generator, n: int) -> np.ndarray:
    grain = noise(rng, n, 48, 48) + 0.3 * noise(rng, n, 5, 5)
    colours = mix(rgb(84, 84, 88), rgb(142, 142, 144), 0.5 + 0.6 * grain)
    if rng.random() < 0.6:  # a broken line
        y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
        slant, at, phase = rng.uniform(-0.5, 0.5), rng.uniform(0.2, 0.8), rng.random()
        line = (np.abs(x - at - slant * (y - 0.5)) < 0.022) & ((2.2 * y + phase) % 1 < 0.6)
        colours[line] = rgb(214, 208, 190)
    return colours


# ---------------------------------------------------------------- things
# (rng, x, y, u, v) -> inside bool [h w], colours [h w 3]
# x, y: the thing's own frame, radius 1, y down. u, v: the same axes in shares of the canvas, for textures.


def zebra(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    inside = ellipse(x, y, -0.08, -0.02, 0.72, 0.42)
    inside |= capsule(x, y, 0.42, -0.1, 0.66, -0.62, 0.22) | capsule(x, y, 0.64, -0.64, 0.82, -0.48, 0.17)
    inside |= capsule(x, y, 0.56, -0.76, 0.52, -0.92, 0.08) | capsule(x, y, -0.74, -0.1, -0.9, 0.3, 0.07)
    for foot in (-0.56, -0.26, 0.2, 0.46):
        inside |= capsule(x, y, foot, 0.1, foot, 0.84, 0.12)
    stripe = wave(u / 0.088 + 0.25 * np.sin(v * 22) + rng.random())
    return inside, mix(rgb(16, 14, 14), rgb(246, 244, 240), np.clip(3.2 * (stripe - 0.5) + 0.55, 0, 1))


def brick(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    inside = (np.abs(x) < 0.95) & (np.abs(y) < 0.56)
    row = v / 0.1 + rng.random()
    col = u / 0.2 + 0.5 * (np.floor(row) % 2) + rng.random()
    mortar = (row % 1 < 0.2) | (col % 1 < 0.1)
    tone = 0.5 + 0.5 * np.sin(37 * np.floor(row) + 91 * np.floor(col))  # each brick its own shade
    colours = mix(rgb(148, 52, 34), rgb(184, 78, 50), tone)
    colours[mortar] = rgb(206, 194, 182)
    return inside, colours


def coin(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    r = np.hypot(x, y)
    colours = mix(
        rgb(176, 112, 8), rgb(236, 168, 40), 0.5 + 0.35 * np.sin(3 * (x + y) + rng.uniform(0, 6))
    )
    ring = wave(np.hypot(u, v) / 0.07 + rng.random())
    colours = mix(colours, rgb(120, 70, 0), 0.75 * (ring > 0.78))
    colours[(r > 0.76) & (r < 0.84)] = rgb(110, 66, 4)
    return r < 0.92, colours


def leaf(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    half = 0.62 * np.clip(1 - (x / 0.9) ** 2, 0, 1) ** 0.8 * (1 - 0.25 * x)
    inside = (np.abs(y) < half) & (np.abs(x) < 0.9) | capsule(x, y, -0.8, 0, -1.0, 0.06, 0.06)
    vein = ((u - 0.8 * np.abs(v)) / 0.085 + rng.random()) % 1 < 0.17
    return inside, mix(rgb(8, 78, 28), rgb(70, 140, 58), 0.9 * ((np.abs(y) < 0.04) | vein))


def banana(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    across, turn = np.hypot(x, y + 0.56) - 0.86, np.arctan2(x, y + 0.56)  # along an arc that opens upwards
    thick = 0.42 * np.sqrt(np.clip(1 - (turn / 1.3) ** 2, 0, 1))
    edge = 0.8 * (np.abs(across - 0.1) < 0.03) + 0.5 * (across < -0.16)
    colours = mix(rgb(255, 228, 40), rgb(224, 178, 8), edge)
    colours[np.abs(turn) > 1.1] = rgb(92, 66, 22)
    return np.abs(across) < thick, colours


def plum(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    fruit = ellipse(x, y, 0, 0.08, 0.84, 0.88)
    stem = capsule(x, y, 0, -0.7, 0.12, -0.93, 0.06)
    shine = np.exp(-6 * ((x + 0.3) ** 2 + (y + 0.3) ** 2))
    crease = np.abs(x - 0.25 * (1 - y * y)) < 0.035
    colours = mix(mix(rgb(104, 30, 132), rgb(176, 116, 200), shine), rgb(60, 10, 84), 0.8 * crease)
    colours[stem & ~fruit] = rgb(86, 60, 30)
    return fruit | stem, colours


def fish(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    body = ellipse(x, y, 0.2, 0, 0.74, 0.5)
    tail = (x < -0.25) & (x > -0.95) & (np.abs(y) < -0.85 * (x + 0.25) + 0.08)
    fin = (y < -0.3) & (y > -0.68) & (np.abs(x - 0.1) < 0.34 + 0.45 * (y + 0.3))
    row = np.floor(v / 0.045)
    scale = np.hypot((u / 0.09 + 0.5 * (row % 2) + rng.random()) % 1 - 0.5, (v / 0.045) % 1 * 0.5)
    colours = mix(rgb(60, 208, 200), rgb(0, 108, 120), np.clip(4 * scale - 0.9, 0, 1))
    colours[ellipse(x, y, 0.62, -0.12, 0.12, 0.12)] = rgb(245, 245, 245)
    colours[ellipse(x, y, 0.64, -0.12, 0.06, 0.06)] = rgb(10, 10, 10)
    return body | tail | fin, colours


def strawberry(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    down = np.clip((y + 0.72) / 1.66, 0, 1)
    fruit = (np.abs(x) < 0.82 * np.maximum(0, np.sin(np.pi * down**0.55)) ** 0.75) & (y > -0.72) & (y < 0.94)
    cap = (np.abs(x) < 0.56) & (y > -0.84) & (y < -0.5 + 0.14 * np.sin(x * 22))
    colours = mix(rgb(232, 14, 42), rgb(250, 222, 130), dots(u + rng.random(), v, 0.085, 0.016))
    colours[cap] = rgb(40, 130, 30)
    return fruit | cap, colours


def flower(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    r, turn = np.hypot(x, y), np.arctan2(y, x)
    petals = r < 0.96 * (0.52 + 0.48 * np.abs(np.cos(2.5 * turn)) ** 0.6)
    colours = mix(
        rgb(232, 70, 160), rgb(255, 176, 222), np.clip(r, 0, 1) * (0.5 + 0.5 * wave(turn * 25 / TAU))
    )
    colours[r < 0.2] = rgb(120, 40, 60)
    return petals, colours


def kite(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> Look:
    sail = np.abs(x) / 0.9 + np.where(y < -0.25, (-0.25 - y) / 0.74, (y + 0.25) / 1.1) < 1
    tail = (np.abs(x - 0.1 * np.sin(14 * y)) < 0.07) & (y > 0.6) & (y < 1)
    checks = (np.floor(u / 0.06 + rng.random()) + np.floor(v / 0.06 + rng.random())) % 2
    colours = mix(rgb(24, 40, 214), rgb(64, 96, 255), checks)
    colours[(np.abs(x) < 0.035) | (np.abs(y + 0.25) < 0.035)] = rgb(235, 235, 245)
    return sail | tail, colours


GROUNDS = {f.__name__: f for f in (sky, grass, sand, night, road)}
THINGS = {f.__name__: f for f in (zebra, brick, coin, leaf, banana, plum, fish, strawberry, flower, kite)}
UPRIGHT = {"zebra", "brick", "kite"}  # lean a little, never lie on their head

BACKGROUNDS = tuple(GROUNDS)
OBJECTS = tuple(THINGS)
CLASSES = BACKGROUNDS + OBJECTS  # label order

# One colour a class for masks and overlays: near the class's own look, but flat and clearly apart.
PALETTE = {
    "sky": (135, 206, 250),
    "grass": (150, 220, 80),
    "sand": (225, 200, 150),
    "night": (25, 25, 90),
    "road": (128, 128, 128),
    "zebra": (255, 255, 255),
    "brick": (160, 64, 40),
    "coin": (230, 150, 0),
    "leaf": (0, 100, 0),
    "banana": (255, 235, 0),
    "plum": (120, 0, 160),
    "fish": (0, 170, 170),
    "strawberry": (255, 0, 50),
    "flower": (255, 120, 200),
    "kite": (40, 60, 255),
}
