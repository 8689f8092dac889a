"""Every test in this folder compiles with XLA's optimizations off."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass
