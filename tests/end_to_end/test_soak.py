"""The soak of tests/benchmarks in small: two minutes of a tiny training that is killed, stopped and damaged."""

import subprocess
import sys

import pytest
from processes import CONFIG, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_training_that_much_happens_to_ends_as_one_left_alone_and_leaves_nothing_behind(tmp_path):
    program = [sys.executable, ROOT / "tests/benchmarks/soak.py", "--minutes=2", f"--config={CONFIG}",
               f"--folder={tmp_path}/soak", "--seed=1"]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 10 and "FAILS" not in ended.stdout
    assert any("weights at the end | bit-equal | holds" in row for row in rows)
