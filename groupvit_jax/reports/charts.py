"""Curves, bars and a confusion map as markup."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from groupvit_jax.palette import colours
from groupvit_jax.reports.page import Markup, css, element, key, number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 190, 46, 8, 8, 22  # of a chart, and its margins
MARKED = 30  # points; so few are marked
ALL_CELLS = 40  # classes; of more, only cells from SHOWN of a row are drawn
SHOWN = 0.005


def line_chart(title: str, steps: Sequence[int], curves: Mapping[str, Sequence[float | None]],
               note: str = "") -> Markup:
    """Curves over the same steps, None where there is no value; a legend with their newest values."""
    known = [y for values in curves.values() for y in values if y is not None]
    if not known:
        return Markup("")
    low, high = min(known), max(known)
    pad = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    ticks = ticks_between(low - pad, high + pad)
    low, high, first, last = low - pad, high + pad, steps[0], max(steps[-1], steps[0] + 1)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(step: float) -> float:
        return round(LEFT + across * (step - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(TOP + down * (high - value) / (high - low), 1)

    parts = [element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid") for tick in ticks]
    parts += [element("text", short(tick), x=LEFT - 6, y=y(tick) + 4, text_anchor="end") for tick in ticks]
    parts += [element("text", short(step), x=min(max(x(step), LEFT), WIDTH - RIGHT), y=HEIGHT - 6,
                      text_anchor="end" if x(step) > WIDTH - RIGHT - 20 else "middle")
              for step in ticks_between(first, last, 6) if step == int(step)]
    parts.append(element("line", y1=TOP, y2=HEIGHT - BOTTOM, x1=0, x2=0, class_="at", visibility="hidden"))
    hues = colours(len(curves))
    for hue, values in zip(hues, curves.values()):
        points = [None if value is None else (x(step), y(value)) for step, value in zip(steps, values)]
        parts.append(element("path", d=path(points), stroke=css(hue)))
        alone = [point for i, point in enumerate(points) if point and not any(points[max(i - 1, 0) : i])
                 and not any(points[i + 1 : i + 2])]
        marked = [p for p in points if p] if len(points) <= MARKED else alone
        parts += [element("circle", cx=cx, cy=cy, r=2.4, fill=css(hue)) for cx, cy in marked]
    svg = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    legend = [key(hue, f"{name} ", element("b", newest(values))) for hue, (name, values) in zip(hues, curves.items())]
    data = {"steps": list(steps), "values": [[None if v is None else float(f"{v:.5g}") for v in values]
                                             for values in curves.values()],
            "first": first, "last": last, "across": [LEFT, WIDTH - RIGHT]}
    script = element("script", Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
                     type="application/json")
    return element("figure", element("figcaption", f"{title} ", element("small", note)), svg,
                   element("div", *legend, class_="keys"), script, class_="chart")


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """The `d` of an SVG path through the points, broken where there is None."""
    found, pen = [], "M"
    for point in points:
        if point:
            found.append(f"{pen}{point[0]:g} {point[1]:g}")
        pen = "L" if point else "M"
    return "".join(found)


def newest(values: Sequence[float | None]) -> str:
    value = next((value for value in reversed(values) if value is not None), None)
    return "–" if value is None else f"{value:.4g}"


def ticks_between(low: float, high: float, most: int = 5) -> list[float]:
    """Up to `most` round numbers from low to high."""
    size = 10 ** math.floor(math.log10((high - low) / most))
    step = next(size * k for k in (1, 2, 5, 10, 20) if (high - low) / (size * k) <= most)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def short(value: float) -> str:
    """For an axis: 0.00005 -> 5e-5, 12000 -> 12k."""
    if value == 0:
        return "0"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.4g}".replace("e-0", "e-")


def bars(rows: Sequence[tuple[str, float | None, float | None, str]]) -> Markup:
    """(name, percent, percent of a mark on its bar or None, what is said on pointing at it) of each, in columns."""
    def bar(name: str, value: float | None, mark: float | None, title: str) -> Markup:
        track = [element("i", style=f"width:{value:.2f}%")] if value is not None else []
        track += [element("b", style=f"left:{mark:.2f}%")] if mark is not None else []
        return element("div", element("span", name), element("span", *track, class_="track"),
                       element("span", number(value)), class_="bar", title=title)

    return element("div", *(bar(*row) for row in rows), class_="bars")


def heat_map(names: Sequence[str], counts: np.ndarray) -> Markup:
    """counts int64 [truth label]: of the pixels of each class, a row, the share that was called each class. Right is
    blue, wrong is orange; a cell tells names and numbers."""
    n = len(names)
    side, letters = (30, 11) if n <= 25 else (20, 11) if n <= 60 else (13, 10)
    label = min(26, max(map(len, names)))
    edge = round(letters * 0.56 * label) + 12
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size, parts = edge + n * side + 4, []
    parts.append(element("rect", x=edge, y=edge, width=n * side, height=n * side, class_="frame"))
    for i, name in enumerate(names):
        middle, said = edge + (i + 0.5) * side, name if len(name) <= label else name[: label - 1] + "…"
        parts.append(element("text", said, x=edge - 6, y=f"{middle + 4:g}", text_anchor="end", font_size=letters))
        parts.append(element("text", said, font_size=letters,
                             transform=f"translate({middle + 4:g} {edge - 6}) rotate(-90)"))
    for i, j in np.argwhere((shares >= SHOWN) | (n <= ALL_CELLS)).tolist():
        share, kind = shares[i, j], "hit" if i == j else "miss"
        title = f"{names[i]} called {names[j]}: {100 * share:.1f} % of its pixels ({counts[i, j]:,})"
        parts.append(element("rect", element("title", title), x=edge + j * side, y=edge + i * side, width=side - 1,
                             height=side - 1, class_=f"cell {kind}", fill_opacity=f"{share ** 0.7:.3f}"))
        if side >= 30 and share >= SHOWN:
            parts.append(element("text", f"{100 * share:.0f}", x=edge + (j + 0.5) * side, y=edge + (i + 0.5) * side + 4,
                                 text_anchor="middle", class_="in deep" if share > 0.5 else "in"))
    svg = element("svg", *parts, width=size, height=size, viewBox=f"0 0 {size} {size}", role="img",
                  aria_label="confusion of classes")
    return element("div", svg, class_="map")
