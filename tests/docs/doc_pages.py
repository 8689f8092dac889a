"""The pages that people read, README.md and docs/**/*.md, and the snippets in them.

A fenced snippet in bash or Python is run by test_snippets.py, unless the line before it says why not,
`<!-- not run: reason -->`. `<!-- file: PATH -->` says where a Python snippet is to be saved.
"""

import pathlib
import re
import textwrap
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
LANGUAGES = ("bash", "python", "text")  # what a fence may be of; the first two are run
FENCE = re.compile(r"(?:^ *<!-- (not run|file): *([^\n]*?) *-->\n)?^( *)```(.*?)\n(.*?)^\3```$", re.M | re.S)


class Snippet(NamedTuple):
    """line: its number in the page; not_run: the reason, if there is one; file: where it is saved, if anywhere."""

    line: int
    language: str
    code: str
    not_run: str | None
    file: str | None


def text(page: str) -> str:
    return (ROOT / page).read_text()


def snippets(page: str) -> list[Snippet]:
    found = []
    for match in FENCE.finditer(text(page)):
        mark, said, indent, language, code = match.groups()
        line = text(page)[: match.start(4)].count("\n") + 1
        found.append(Snippet(line, language, textwrap.dedent(code),
                             said if mark == "not run" else None, said if mark == "file" else None))
    return found


def commands(code: str) -> list[str]:
    """The lines of a bash snippet, those that go on joined, without empty ones and comments."""
    lines = re.sub(r"\\\n\s*", "", code).splitlines()
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]
