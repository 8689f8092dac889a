"""docs/the-paper-in-our-code.md quotes lines of code that are there."""

import importlib.util

import doc_pages as pages
import pytest

PAGE = "docs/the-paper-in-our-code.md"
spec = importlib.util.spec_from_file_location("source_links", pages.ROOT / "docs" / "source_links.py")
source_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(source_links)
QUOTES = source_links.quotes(pages.text(PAGE), PAGE)


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: f"{quote.name}: {quote.code}")
def test_a_quoted_line_is_in_the_function_that_the_page_names(quote):
    line = (pages.ROOT / quote.path).read_text().splitlines()[source_links.line_of(quote) - 1]
    assert quote.code in line and len(quote.code) > 15


def test_each_part_of_the_paper_has_its_lines():
    sections = pages.text(PAGE).split("\n## ")[1:]
    assert len(sections) == 9 and all(source_links.quotes(section, PAGE) for section in sections)


def test_an_item_that_looks_like_a_quote_is_one():
    assert len(QUOTES) == sum(line.startswith("- [") for line in pages.text(PAGE).splitlines()) > 50


@pytest.mark.parametrize("name, code, said", [
    ("hard_assignment", "hard = soft", "0 lines"), ("hard_assignment", "soft", "3 lines"), ("soft", "x", "has no soft"),
    ("GroupingBlock.hard", "x", "has no GroupingBlock.hard")])
def test_a_quote_that_is_not_there_or_not_alone_is_refused(name, code, said):
    with pytest.raises(ValueError, match=said):
        source_links.line_of(source_links.Quote("groupvit_jax/models/grouping.py", name, code))
