"""The house: which part may know which, as CONTRIBUTING.md draws it."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "groupvit_jax"
# What all may use, then the stops of the way of the data; each knows those before it, and itself.
ORDER = ("errors", "files", "chips", "palette", "viz", "parallel", "writer",
         "data", "drawn", "models", "evals", "reports", "interop", "training", "inference",
         "demo", "exported", "aot", "cli")


def parts(path):
    """(line, part) of all that a file imports of this package, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "groupvit_jax":
            below = node.module.split(".")[1:2]
            for name in below or [alias.name for alias in node.names]:
                yield node.lineno, name
        assert not (isinstance(node, ast.ImportFrom) and node.level), "imports are written whole"


@pytest.mark.parametrize("part", ORDER)
def test_a_part_knows_only_those_before_it(part):
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    for path in files:
        for line, known in parts(path):
            assert ORDER.index(known) <= ORDER.index(part), f"{path.relative_to(PACKAGE)}, line {line}: {known}"


def test_every_part_has_its_place():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__"} == set(ORDER)
