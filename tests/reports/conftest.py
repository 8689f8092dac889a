"""A browser for pages, a tiny model, and scenes."""

import pytest
import tiny_run
from browser import chromium

from groupvit_jax.drawn import scenes


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass


@pytest.fixture(scope="module")
def browse():
    """browse(path) -> (Playwright's page of that file, what it asked for or complained of)."""
    with chromium() as browser:
        def browse(path, **settings):
            page, problems = browser.new_context(**settings).new_page(), []
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("requestfailed", lambda request: problems.append(request.url))
            page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else
                    problems.append(request.url))
            page.goto(f"file://{path}", wait_until="load")
            return page, problems

        yield browse


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A tiny model and its workdir."""
    workdir = tmp_path_factory.mktemp("model")
    return tiny_run.load(workdir), workdir


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """30 scenes to train on, 9 to evaluate on, as scenes and as VOC."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, train=30, val=9, seed=3, size=40, workers=1)
    (folder / "VOCdevkit/VOC2012").symlink_to(folder / "VOCdevkit/scenes")
    return folder
