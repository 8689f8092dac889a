"""What the README says can be typed, can be typed."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [line.split("  #")[0] for block in BLOCKS for line in block.splitlines()]


def test_it_is_finished_and_its_files_are_there():
    assert not re.search(r"@[A-Z]+@", README)
    for name in re.findall(r"(?:configs|launch|docs|tests)/[\w/.]+\.(?:py|sh|png)", README):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("groupvit ")])
def test_a_commands_flags_exist(command):
    verb, flags = command.split(" -")[0].split()[1:], re.findall(r" --(\w+)", command)
    program = "from groupvit_jax.cli.main import main; main()"
    command = [sys.executable, "-c", program, *verb, "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert flags and all(f"--{flag}" in printed or f"--[no]{flag}" in printed for flag in flags)


@pytest.mark.parametrize("script", [c.split()[0] for c in COMMANDS if c.startswith("launch/")])
def test_a_script_can_be_started(script):
    assert (ROOT / script).stat().st_mode & 0o100
    subprocess.run(["bash", "-n", ROOT / script], check=True)
