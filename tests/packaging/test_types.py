"""The package is typed: mypy finds nothing, and tells a user's script what everything is."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
USER = pathlib.Path(__file__).parent / "user.py"


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """`mypy(argument...)` -> code, what it printed. Nothing is kept between runs of the tests."""
    cache = tmp_path_factory.mktemp("mypy")

    def call(*arguments):
        done = subprocess.run([sys.executable, "-m", "mypy", f"--cache-dir={cache}", *map(str, arguments)], cwd=ROOT,
                              capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_mypy_finds_nothing_in_the_package_and_knows_what_a_users_script_gets(mypy):
    code, said = mypy("groupvit_jax", USER)
    assert code == 0, said
    expected = {number: line.rpartition("  # ")[2] for number, line in enumerate(USER.read_text().splitlines(), 1)
                if line.startswith("reveal_type(")}
    revealed = {int(line): kind for line, kind in re.findall(r'user\.py:(\d+): note: Revealed type is "(.+)"', said)}
    assert revealed.keys() == expected.keys()
    for number, kind in expected.items():
        assert revealed[number].removeprefix("builtins.").startswith(kind), said


def test_every_exception_to_the_types_has_a_reason():
    for file in (ROOT / "groupvit_jax").rglob("*.py"):
        for line in file.read_text().splitlines():
            if "type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z-]+\]  # \w", line), f"{file}: {line}"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "groupvit_jax/py.typed").is_file()
