"""What the page says, as HTML, and how it looks."""

import html
from collections.abc import Sequence

from groupvit_jax.demo.answers import Answer
from groupvit_jax.demo.drawing import Colour, Row

GROUPS = 16  # rows of the table of groups
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.lead { margin: -4px 0 4px; }
.note { font-size: 0.85em; line-height: 1.45; overflow-wrap: anywhere; }
.lead, .note, .faint { color: var(--body-text-color) !important; opacity: 0.75; font-weight: 400; }
.said { padding: 2px 0; overflow-wrap: anywhere; }
.said.wrong { border-left: 4px solid #d9480f; padding: 8px 12px; background: var(--background-fill-secondary); }
#answer:has(#status .said) #results, #status:not(:has(.said)) { display: none !important; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; }
.legend span.entry { display: inline-flex; align-items: center; gap: 7px; overflow-wrap: anywhere; }
.swatch { width: 14px; height: 14px; border-radius: 3px; flex: none; display: inline-block; vertical-align: -2px; }
table.groups { width: 100%; border-collapse: collapse; font-size: 0.92em; border: 0 !important; }
table.groups tr { border: 0 !important; }
table.groups th { text-align: left; font-weight: 600; }
table.groups th, table.groups td { padding: 4px 12px 4px 0 !important; vertical-align: top; overflow-wrap: anywhere;
    border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
table.groups th:nth-child(-n+2), table.groups td:nth-child(-n+2) { white-space: nowrap; }
.scale { display: flex; align-items: center; gap: 8px; font-size: 0.85em; }
.scale i { flex: 1; max-width: 260px; height: 10px; border-radius: 3px;
           background: linear-gradient(90deg, #440154, #3b528b, #21918c, #5ec962, #fde725); }
.picture img { cursor: crosshair; }
#photo img { width: 100% !important; height: 100% !important; object-fit: contain !important; }
#examples, #examples * { min-height: 0 !important; }
#examples .grid-wrap { padding: 0 !important; max-height: none !important; height: auto !important; }
#examples .grid-container { padding: 0 !important; grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
footer { display: none !important; }
"""
TITLE = ('<h1>Segments by words</h1><p class="lead">GroupViT groups the pixels of a photograph and names each group by '
         "your words. It learned from captions alone, without any drawn mask.</p>")
SCALE = '<div class="scale">0 <i></i> 1: the whole patch</div>'
# On a phone the answer is below the questions: it is brought into view.
TO_ANSWER = """() => { const at = document.querySelector("#answer");
    if (at && window.innerWidth < 700) at.scrollIntoView({behavior: "smooth"}); }"""

# Numbers what a page asks: Gradio may send two questions at once, and an older one may arrive last.
NEXT_TURN = "(...asked) => asked.with(-2, window.turn = (window.turn ?? 0) + 1)"


def said(text: str, wrong: bool = False) -> str:
    return f'<div class="said{" wrong" * wrong}" role="status">{html.escape(text)}</div>'


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def word(text: str) -> str:
    """In its own direction, whatever its script."""
    return f"<bdi>{html.escape(text)}</bdi>"


def swatch(colour: Colour) -> str:
    return f'<i class="swatch" style="background: rgb{colour}"></i>'


def legend(rows: Sequence[Row]) -> str:
    entries = (f'<span class="entry">{swatch(row.colour)}{word(row.name)} <span class="faint">{percent(row.share)}'
               "</span></span>" for row in rows)
    return f'<div class="legend">{"".join(entries)}</div>'


def group_table(answer: Answer, colours: Sequence[Colour]) -> str:
    """The groups with their colours, the largest first."""
    rows = ["<tr><th>group</th><th>area</th><th>best words, with scores from 0 to 1</th></tr>"]
    for i, (group, colour) in enumerate(zip(answer.groups[:GROUPS], colours), 1):
        best = ", ".join(f'{word(name)} <span class="faint">{score:.2f}</span>' for name, score in group.best)
        rows.append(f"<tr><td>{swatch(colour)} {i}</td><td>{percent(group.share)}</td><td>{best}</td></tr>")
    more = len(answer.groups) - GROUPS
    return f'<table class="groups">{"".join(rows)}</table>' + (note(f"and {more} smaller ones") if more > 0 else "")


def label_list(names: Sequence[str]) -> str:
    """What the label map's numbers mean."""
    return ('<p class="note">Numbers in the label map: '
            + ", ".join(f"{i} {word(name)}" for i, name in enumerate(names)) + ".</p>")
