"""Every test in this folder compiles with XLA's optimizations off."""

import pytest
import tiny_run


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model of two stages."""
    return tiny_run.load(tmp_path_factory.mktemp("run"), **tiny_run.TWO_STAGES)
