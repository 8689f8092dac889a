"""A real browser for the pages that people look at."""

import contextlib
import os
import shutil

import pytest

NAMES = "chromium", "chromium-browser", "google-chrome", "chrome"
# As root, without a GPU, and without a word to its maker: what it would look up is not the page's.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]


@contextlib.contextmanager
def chromium():
    """Playwright's Browser, headless. Without one on this machine the test is skipped, but fails in CI."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on the PATH (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
