"""A hook of MkDocs: what the pages link to in the repository is shown as a page of the site, line by line.

Pages link to files as they lie, `[optim.py](../groupvit_jax/training/optim.py)`, which also works where the repository
is read without the site; README.md and CONTRIBUTING.md are shown as pages, not as lines. An item of a list may quote a
line of code, in this form:

    - [optim.py, warmup_cosine](../groupvit_jax/training/optim.py): `linear = start`

On the site the link then leads to the one line of that function that has this text. No line number is written down:
each is found when the site is built, and a quote that is not there any more, or twice, ends the build.
"""

import ast
import html
import pathlib
import posixpath
import re
from typing import NamedTuple

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
OWN = re.compile(r"\]\((?!https?:|#)([\w./-]+)")
LINK = re.compile(r"\]\(((?:\.\./)+[\w./-]+?)(#[\w-]+)?\)")
QUOTE = re.compile(r"^( *- )\[(\S+), ([\w.]+)\]\(((?:\.\./)+[\w./-]+)\): `([^`]+)`(.*)$", re.M)


class Quote(NamedTuple):
    """That the function `name` (with its class, as "Dense.__call__") of the file `path` has `code` in a line."""

    path: str
    name: str
    code: str


def quotes(markdown: str, page: str) -> list[Quote]:
    """Those of a page, whose path in the repository is `page`; paths are then from the repository's root."""
    return [Quote(target(page, path), name, code) for _, _, name, path, code, _ in QUOTE.findall(markdown)]


def target(page: str, link: str) -> str:
    """Where a link of a page leads, from the root: ("docs/api/a.md", "../../setup.py") -> "setup.py"."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def line_of(quote: Quote) -> int:
    """The number of the line, from 1. Raises ValueError where there is none, or several."""
    text = (ROOT / quote.path).read_text()
    node = ast.parse(text)
    for name in quote.name.split("."):
        inside = [child for child in node.body if getattr(child, "name", None) == name]
        if not inside:
            raise ValueError(f"{quote.path} has no {quote.name}")
        node = inside[-1]  # those before it are overloads
    lines = text.splitlines()
    found = [n for n in range(node.lineno, node.end_lineno + 1) if quote.code in lines[n - 1]]
    if len(found) != 1:
        raise ValueError(f"{quote.name} of {quote.path} has {len(found)} lines with {quote.code!r}, not one")
    return found[0]


def linked_files(markdown: str, page: str) -> list[str]:
    """Files outside docs/ that a page links to, from the root."""
    found = {target(page, link) for link, _ in LINK.findall(markdown)}
    return sorted(path for path in found if not path.startswith("docs/"))


def source_page(path: str) -> str:
    """The page, below docs/, that shows a file."""
    return f"source/{path}.md"


def show(path: str) -> str:
    """A file as a page: one element a line, L1 and so on; a page of Markdown at the root as it is, its links moved."""
    if path.endswith(".md"):
        return OWN.sub(lambda link: f"]({moved(link[1])}", (ROOT / path).read_text())
    lines = (ROOT / path).read_text().splitlines()
    rows = "".join(f'<span id="L{n}" data-n="{n}">{html.escape(line)}</span>' for n, line in enumerate(lines, 1))
    return f'# {path.replace("_", chr(92) + "_")}\n\n<pre class="source"><code>{rows}</code></pre>\n'


def moved(link: str) -> str:
    """A link from the root, as it is from a page in docs/source/."""
    return posixpath.relpath(link if link.startswith("docs/") else f"docs/{source_page(link)}", "docs/source")


# ---------------------------------------------------------------- what MkDocs calls


def on_files(files, config):
    linked = set()
    for file in files.documentation_pages():
        linked.update(linked_files(file.content_string, f"docs/{file.src_uri}"))
    for path in sorted(linked):
        if not (ROOT / path).is_file():
            raise PluginError(f"a page links to {path}, which is not there")
        files.append(File.generated(config, source_page(path), content=show(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    own = f"docs/{page.file.src_uri}"
    if own.startswith("docs/source/"):
        return markdown

    def quoted(match):
        start, label, name, link, code, rest = match.groups()
        try:
            n = line_of(Quote(target(own, link), name, code))
        except ValueError as error:
            raise PluginError(f"{own}: {error}") from None
        return f"{start}[{label}, `{name}`, line {n}]({link}#L{n}): `{code}`{rest}"

    def rewritten(match):
        path = target(own, match[1])
        if path.startswith("docs/"):
            return match[0]
        return f"]({posixpath.relpath(source_page(path), posixpath.dirname(page.file.src_uri) or '.')}{match[2] or ''})"

    return LINK.sub(rewritten, QUOTE.sub(quoted, markdown))
