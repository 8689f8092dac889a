"""The README is finished, short, and names files that are there. What it says can be typed is typed by tests/docs."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINKS = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]


def test_it_is_finished_and_short():
    assert not re.search(r"@[A-Z]+@", README)
    assert len(README.splitlines()) <= 200


def test_files_that_it_names_are_there():
    for name in re.findall(r"(?:configs|launch|docs|tests)/[\w/.-]+\.(?:py|sh|png|md)", README):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(link):
    path, _, anchor = link.partition("#")
    assert (ROOT / (path or "README.md")).is_file()
    headings = re.findall(r"^#+ (.*)$", (ROOT / (path or "README.md")).read_text(), re.M) if anchor else []
    assert not anchor or anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("script", sorted(set(re.findall(r"launch/\w+\.sh", README))))
def test_a_script_that_it_names_can_be_started(script):
    assert (ROOT / script).stat().st_mode & 0o100
