"""A page that is one file: markup whose text is always escaped, pictures inside it, nothing that is fetched."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

from PIL import Image

from groupvit_jax.reports.style import SCRIPT, STYLE

VOID = {"img", "meta", "link"}  # elements without content
# Nothing may be fetched, whatever a name in the page looks like.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Markup(str):
    """HTML. Any other string is text."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """<tag attribute="value">children</tag>: children are Markup, or text, or None for nothing; a name of an attribute
    has _ for -, and class_ is class; one whose value is None is left out."""
    parts = [f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
             for name, value in attributes.items() if value is not None]
    begin = f"<{tag}{''.join(parts)}>"
    return Markup(begin if tag in VOID else f"{begin}{joined(children)}</{tag}>")


def joined(children: Iterable) -> Markup:
    """One behind the other."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(str(child))
                          for child in children if child is not None))


def number(value: float | None, digits: int = 1) -> str:
    """A score for people, – where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def table(head: Sequence, rows: Iterable[Sequence], class_: str | None = None) -> Markup:
    """The first cell of each row names it; the others are numbers, set right. It scrolls where it is too wide."""
    top = element("tr", *(element("th", cell, scope="col") for cell in head))
    body = [element("tr", element("th", cell, scope="row"), *(element("td", x) for x in rest)) for cell, *rest in rows]
    whole = element("table", element("thead", top), element("tbody", *body), class_=class_)
    return element("div", whole, class_="wide")


def picture(image: Image.Image, alt: str, quality: int = 82, **attributes: object) -> Markup:
    """An <img> that holds its JPEG."""
    return image_of(jpeg(image, quality), alt, width=image.width, height=image.height, **attributes)


def image_of(data: bytes, alt: str, **attributes: object) -> Markup:
    """An <img> that holds this JPEG."""
    uri = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return element("img", src=uri, alt=alt, **attributes)


def jpeg(image: Image.Image, quality: int = 82) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def key(colour: Sequence[int], *content: object) -> Markup:
    """A patch of a colour and what it stands for, for a legend."""
    return element("span", element("i", style=f"background:{css(colour)}"), *content, class_="key")


def css(colour: Sequence[int]) -> str:
    return f"rgb({','.join(str(int(c)) for c in colour)})"


def section(name: str, title: str, *content: object) -> Markup:
    """name: what links lead to."""
    return element("section", element("h2", title), *content, id=name)


def document(title: str, lead: str, contents: Sequence[tuple[str, str]], *body: object) -> bytes:
    """The whole page. contents: (name of a section, text) for the list of links; none if there are fewer than two."""
    links = [element("a", text, href=f"#{name}") for name, text in contents]
    head = element(
        "head", element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("link", rel="icon", href="data:,"),
        element("title", title), element("style", Markup(STYLE)))
    top = element("header", element("h1", title), element("p", lead, class_="lead"),
                  element("nav", *links, aria_label="contents") if len(links) > 1 else None)
    whole = element("html", head, element("body", top, element("main", *body), element("script", Markup(SCRIPT))),
                    lang="en")
    return f"<!doctype html>\n{whole}\n".encode("utf-8", "replace")
