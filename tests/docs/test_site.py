"""The documentation builds without a warning, asks nothing of other hosts, and its links lead somewhere."""

import html.parser
import logging
import os
import re
import urllib.parse

import doc_pages as pages
import pytest
from mkdocs.commands import build
from mkdocs.config import load_config

LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src",
          "audio": "src", "object": "data", "embed": "src"}  # what a browser fetches by itself


class Page(html.parser.HTMLParser):
    """Of one page: what it loads, where it links to, and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in LOADED and attributes.get(LOADED[tag]) and attributes.get("rel") != "canonical":
            self.loads.append(attributes[LOADED[tag]])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("site"), os.getcwd()
    os.chdir(pages.ROOT)  # where mkdocstrings looks for the package
    warned = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        config = load_config("mkdocs.yml", site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build.build(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
        os.chdir(before)
    assert not warned
    return folder


@pytest.fixture(scope="module")
def parsed(site):
    """Path below the site -> Page."""
    return {str(path.relative_to(site)): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_there_and_is_reached_from_the_first(parsed):
    written = {page.removeprefix("docs/").replace(".md", ".html") for page in pages.PAGES if page != "README.md"}
    assert written <= set(parsed)
    linked = {resolved("index.html", link)[0] for link in parsed["index.html"].links if is_inside(link)}
    assert written <= linked | {"index.html"}


def test_no_page_loads_anything_from_another_host(site, parsed):
    for name, page in parsed.items():
        for load in page.loads:
            assert is_inside(load), (name, load)
            assert (site / resolved(name, load)[0]).is_file(), (name, load)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", sheet.read_text(errors="replace")), sheet
        assert not re.search(r"@import\s+(url\()?['\"]?(https?:)?//", sheet.read_text(errors="replace")), sheet


def test_links_and_anchors_inside_the_site_lead_somewhere(site, parsed):
    for name, page in parsed.items():
        if name == "404.html":  # its links are from the host's root
            continue
        for link in filter(is_inside, page.links):
            path, anchor = resolved(name, link)
            assert (site / path).is_file(), (name, link)
            assert not anchor or path not in parsed or anchor in parsed[path].anchors, (name, link)


def test_the_api_has_signatures_shapes_and_errors(site):
    text = re.sub(r"<[^>]+>", "", (site / "api" / "inference.html").read_text())
    for words in ("segment", "background", "uint8 [h w 3]", "Raises InputError"):
        assert words in text


def test_a_quoted_line_of_code_is_linked_to_on_the_page_that_shows_its_file(site, parsed):
    all_links = parsed["the-paper-in-our-code.html"].links
    links = [link for link in all_links if re.search(r"grouping\.py\.html#L\d+$", link)]
    assert len(links) >= 10
    number = links[0].rpartition("#L")[2]
    shown = (site / "source" / "groupvit_jax" / "models" / "grouping.py.html").read_text()
    assert re.search(rf'<span id="L{number}" data-n="{number}">[^<]*tokens = TokenMlp', shown)


def is_inside(link: str) -> bool:
    return not re.match(r"[a-z]+:|//", link)


def resolved(page: str, link: str) -> tuple[str, str]:
    """A link of a page -> path below the site, anchor."""
    parts = urllib.parse.urlsplit(link)
    path = urllib.parse.unquote(parts.path)
    path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    return path.lstrip("/"), urllib.parse.unquote(parts.fragment)
