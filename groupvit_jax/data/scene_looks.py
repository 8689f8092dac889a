"""How each class of the scenes looks: five grounds and ten things, as functions of coordinates.

A look is a colour family, a texture and (for things) an outline. No two looks share colour and texture, so a
small patch of a picture says what it belongs to; every draw varies hue, brightness and the texture's phase.
Colours are float32 in 0..255. Lengths are shares of the canvas, so a picture looks the same at any size.
"""

import functools

import numpy as np

TAU = 2 * np.pi


# ---------------------------------------------------------------- helpers


def _rgb(*values):
    return np.array(values, np.float32)


def _mix(a, b, share):
    """Colour a where share is 0, colour b where it is 1; share [h w] -> [h w 3]."""
    return a + (b - a) * np.asarray(share, np.float32)[..., None]


def _wave(phase):
    """A cosine wave between 0 and 1."""
    return 0.5 + 0.5 * np.cos(TAU * phase)


def _capsule(x, y, ax, ay, bx, by, radius):
    """Inside of a thick line from a to b with round ends."""
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2 < radius**2


def _ellipse(x, y, cx, cy, rx, ry):
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


@functools.lru_cache(maxsize=64)
def _between(n, cells):
    """For n places along `cells` values: the value before each, int [n], and the share of the next [n 1]."""
    at = np.linspace(0, cells - 1, n)
    before = np.minimum(at.astype(int), cells - 2)
    return before, (at - before).astype(np.float32)[:, None]


def _noise(rng, n, rows, cols):
    """Smooth random values in -1..1, [n n], from a coarse grid of rows x cols."""
    values = rng.random((rows, cols), np.float32) * 2 - 1
    for cells in (rows, cols):  # no matrix product: threaded BLAS is slow on matrices this small
        before, share = _between(n, cells)
        values = (values[before] * (1 - share) + values[before + 1] * share).T
    return values


def _dots(u, v, pitch, radius):
    """Inside of dots on a staggered grid."""
    row = np.round(v / pitch)
    du = (u / pitch + 0.5 * (row % 2) + 0.5) % 1 - 0.5
    return du**2 + (v / pitch - row) ** 2 < (radius / pitch) ** 2


# ---------------------------------------------------------------- grounds: (rng, n) -> colours [n n 3]


def sky(rng, n):
    down = np.linspace(0, 1, n, dtype=np.float32)[:, None]
    cloud = np.clip(_noise(rng, n, 7, 4) + 0.5 * _noise(rng, n, 14, 8), 0, 1)
    return _mix(
        _mix(_rgb(120, 184, 242), _rgb(168, 214, 248), down + np.zeros(n, np.float32)),
        _rgb(225, 238, 250),
        0.55 * cloud,
    )


def grass(rng, n):
    blades = _noise(rng, n, 12, 44) + 0.7 * _noise(rng, n, 24, 64)
    patchy = 1 + 0.06 * _noise(rng, n, 4, 4)
    return _mix(_rgb(122, 196, 62), _rgb(186, 236, 104), 0.5 + 0.7 * blades) * patchy[..., None]


def sand(rng, n):
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    ripple = _wave(y * rng.uniform(5, 8) + 0.5 * _noise(rng, n, 4, 5) + x * rng.uniform(-1, 1))
    return _mix(_rgb(206, 180, 136), _rgb(238, 218, 178), 0.3 + 0.4 * ripple + 0.5 * _noise(rng, n, 64, 64))


def night(rng, n):
    colours = _mix(_rgb(10, 12, 38), _rgb(26, 28, 70), 0.5 + 0.5 * _noise(rng, n, 4, 4))
    for _ in range(rng.integers(14, 30)):
        k = max(1, round(n / 64 * rng.uniform(0.6, 1.3)))
        row, col = rng.integers(0, n - k, 2)
        colours[row : row + k, col : col + k] = rng.uniform(140, 250)
    return colours


def road(rng, n):
    grain = _noise(rng, n, 48, 48) + 0.3 * _noise(rng, n, 5, 5)
    colours = _mix(_rgb(84, 84, 88), _rgb(142, 142, 144), 0.5 + 0.6 * grain)
    if rng.random() < 0.6:  # a broken line
        y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
        slant, at, phase = rng.uniform(-0.5, 0.5), rng.uniform(0.2, 0.8), rng.random()
        line = (np.abs(x - at - slant * (y - 0.5)) < 0.022) & ((2.2 * y + phase) % 1 < 0.6)
        colours[line] = _rgb(214, 208, 190)
    return colours


# ---------------------------------------------------------------- things
# (rng, x, y, u, v) -> inside bool [h w], colours [h w 3]
# x, y: the thing's own frame, radius 1, y down. u, v: the same axes in shares of the canvas, for textures.


def zebra(rng, x, y, u, v):
    inside = _ellipse(x, y, -0.08, -0.02, 0.72, 0.42)
    inside |= _capsule(x, y, 0.42, -0.1, 0.66, -0.62, 0.22) | _capsule(x, y, 0.64, -0.64, 0.82, -0.48, 0.17)
    inside |= _capsule(x, y, 0.56, -0.76, 0.52, -0.92, 0.08) | _capsule(x, y, -0.74, -0.1, -0.9, 0.3, 0.07)
    for foot in (-0.56, -0.26, 0.2, 0.46):
        inside |= _capsule(x, y, foot, 0.1, foot, 0.84, 0.12)
    stripe = _wave(u / 0.088 + 0.25 * np.sin(v * 22) + rng.random())
    return inside, _mix(_rgb(16, 14, 14), _rgb(246, 244, 240), np.clip(3.2 * (stripe - 0.5) + 0.55, 0, 1))


def brick(rng, x, y, u, v):
    inside = (np.abs(x) < 0.95) & (np.abs(y) < 0.56)
    row = v / 0.1 + rng.random()
    col = u / 0.2 + 0.5 * (np.floor(row) % 2) + rng.random()
    mortar = (row % 1 < 0.2) | (col % 1 < 0.1)
    tone = 0.5 + 0.5 * np.sin(37 * np.floor(row) + 91 * np.floor(col))  # each brick its own shade
    colours = _mix(_rgb(148, 52, 34), _rgb(184, 78, 50), tone)
    colours[mortar] = _rgb(206, 194, 182)
    return inside, colours


def coin(rng, x, y, u, v):
    r = np.hypot(x, y)
    colours = _mix(
        _rgb(176, 112, 8), _rgb(236, 168, 40), 0.5 + 0.35 * np.sin(3 * (x + y) + rng.uniform(0, 6))
    )
    ring = _wave(np.hypot(u, v) / 0.07 + rng.random())
    colours = _mix(colours, _rgb(120, 70, 0), 0.75 * (ring > 0.78))
    colours[(r > 0.76) & (r < 0.84)] = _rgb(110, 66, 4)
    return r < 0.92, colours


def leaf(rng, x, y, u, v):
    half = 0.62 * np.clip(1 - (x / 0.9) ** 2, 0, 1) ** 0.8 * (1 - 0.25 * x)
    inside = (np.abs(y) < half) & (np.abs(x) < 0.9) | _capsule(x, y, -0.8, 0, -1.0, 0.06, 0.06)
    vein = ((u - 0.8 * np.abs(v)) / 0.085 + rng.random()) % 1 < 0.17
    return inside, _mix(_rgb(8, 78, 28), _rgb(70, 140, 58), 0.9 * ((np.abs(y) < 0.04) | vein))


def banana(rng, x, y, u, v):
    across, turn = np.hypot(x, y + 0.56) - 0.86, np.arctan2(x, y + 0.56)  # along an arc that opens upwards
    thick = 0.42 * np.sqrt(np.clip(1 - (turn / 1.3) ** 2, 0, 1))
    edge = 0.8 * (np.abs(across - 0.1) < 0.03) + 0.5 * (across < -0.16)
    colours = _mix(_rgb(255, 228, 40), _rgb(224, 178, 8), edge)
    colours[np.abs(turn) > 1.1] = _rgb(92, 66, 22)
    return np.abs(across) < thick, colours


def plum(rng, x, y, u, v):
    fruit = _ellipse(x, y, 0, 0.08, 0.84, 0.88)
    stem = _capsule(x, y, 0, -0.7, 0.12, -0.93, 0.06)
    shine = np.exp(-6 * ((x + 0.3) ** 2 + (y + 0.3) ** 2))
    crease = np.abs(x - 0.25 * (1 - y * y)) < 0.035
    colours = _mix(_mix(_rgb(104, 30, 132), _rgb(176, 116, 200), shine), _rgb(60, 10, 84), 0.8 * crease)
    colours[stem & ~fruit] = _rgb(86, 60, 30)
    return fruit | stem, colours


def fish(rng, x, y, u, v):
    body = _ellipse(x, y, 0.2, 0, 0.74, 0.5)
    tail = (x < -0.25) & (x > -0.95) & (np.abs(y) < -0.85 * (x + 0.25) + 0.08)
    fin = (y < -0.3) & (y > -0.68) & (np.abs(x - 0.1) < 0.34 + 0.45 * (y + 0.3))
    row = np.floor(v / 0.045)
    scale = np.hypot((u / 0.09 + 0.5 * (row % 2) + rng.random()) % 1 - 0.5, (v / 0.045) % 1 * 0.5)
    colours = _mix(_rgb(60, 208, 200), _rgb(0, 108, 120), np.clip(4 * scale - 0.9, 0, 1))
    colours[_ellipse(x, y, 0.62, -0.12, 0.12, 0.12)] = _rgb(245, 245, 245)
    colours[_ellipse(x, y, 0.64, -0.12, 0.06, 0.06)] = _rgb(10, 10, 10)
    return body | tail | fin, colours


def strawberry(rng, x, y, u, v):
    down = np.clip((y + 0.72) / 1.66, 0, 1)
    fruit = (np.abs(x) < 0.82 * np.maximum(0, np.sin(np.pi * down**0.55)) ** 0.75) & (y > -0.72) & (y < 0.94)
    cap = (np.abs(x) < 0.56) & (y > -0.84) & (y < -0.5 + 0.14 * np.sin(x * 22))
    colours = _mix(_rgb(232, 14, 42), _rgb(250, 222, 130), _dots(u + rng.random(), v, 0.085, 0.016))
    colours[cap] = _rgb(40, 130, 30)
    return fruit | cap, colours


def flower(rng, x, y, u, v):
    r, turn = np.hypot(x, y), np.arctan2(y, x)
    petals = r < 0.96 * (0.52 + 0.48 * np.abs(np.cos(2.5 * turn)) ** 0.6)
    colours = _mix(
        _rgb(232, 70, 160), _rgb(255, 176, 222), np.clip(r, 0, 1) * (0.5 + 0.5 * _wave(turn * 25 / TAU))
    )
    colours[r < 0.2] = _rgb(120, 40, 60)
    return petals, colours


def kite(rng, x, y, u, v):
    sail = np.abs(x) / 0.9 + np.where(y < -0.25, (-0.25 - y) / 0.74, (y + 0.25) / 1.1) < 1
    tail = (np.abs(x - 0.1 * np.sin(14 * y)) < 0.07) & (y > 0.6) & (y < 1)
    checks = (np.floor(u / 0.06 + rng.random()) + np.floor(v / 0.06 + rng.random())) % 2
    colours = _mix(_rgb(24, 40, 214), _rgb(64, 96, 255), checks)
    colours[(np.abs(x) < 0.035) | (np.abs(y + 0.25) < 0.035)] = _rgb(235, 235, 245)
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
