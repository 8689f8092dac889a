"""What is imported is declared, what is declared is pinned, and the tests run with the pins."""

import ast
import pathlib
import subprocess
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGE = ROOT / "groupvit_jax"


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported(file: pathlib.Path) -> set[str]:
    """The packages that a file imports anywhere in it, less Python's own and this one."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {PACKAGE.name}


def test_whatever_is_imported_is_required_by_the_core_or_an_extra(declared):
    known = set().union(*(names(each) for extra, each in declared.items() if extra != "test"))
    whose = metadata.packages_distributions()
    unknown = {module: str(file) for file in PACKAGE.rglob("*.py") for module in imported(file)
               if not known & {canonicalize_name(name) for name in whose[module]}}
    assert unknown == {}


def test_every_command_can_be_imported_without_the_extras(declared):
    whose, core = metadata.packages_distributions(), names(declared[""])
    extras = set().union(*map(names, declared.values())) - core - {canonicalize_name(PACKAGE.name)}
    missing = [module for module, dists in whose.items() if extras & set(map(canonicalize_name, dists))
               and not core & set(map(canonicalize_name, dists))]
    assert {"torch", "transformers", "gradio", "apache_beam"} <= set(missing)
    verbs = [f"groupvit_jax.cli.{file.stem}" for file in sorted((PACKAGE / "cli").glob("*.py"))]
    program = (f"import sys, importlib; sys.modules.update(dict.fromkeys({missing!r}))\n"
               f"for verb in {verbs!r}: importlib.import_module(verb)\nimport groupvit_jax.inference")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_every_requirement_is_pinned_to_a_version_that_it_allows(declared, pins):
    for requirement in [each for extra in declared.values() for each in extra if not marked_off(each)]:
        if requirement.name != PACKAGE.name:
            pin, = pins[canonicalize_name(requirement.name)].specifier
            assert pin.operator == "==" and not Version(pin.version).local
            assert pin.version in requirement.specifier, requirement


def marked_off(requirement: Requirement, extras: set[str] = frozenset()) -> bool:
    return bool(requirement.marker) and not any(
        requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})


def test_all_that_the_requirements_bring_is_pinned_and_the_tests_run_with_it(pins):
    """Of what is installed: CUDA, TPU and cloud packages are not."""
    seen, left = set(), [(canonicalize_name(PACKAGE.name), frozenset({"test"}))]
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            assert name in pins, f"{name} is required, not installed and not pinned"
            continue
        if name != canonicalize_name(PACKAGE.name):
            version = Version(found.version).public
            assert name in pins and version in pins[name].specifier, (
                f"{name} {version} is not as in launch/constraints.txt: launch/test.sh installs what is")
        left += [(canonicalize_name(each.name), frozenset(each.extras))
                 for each in map(Requirement, found.requires or []) if not marked_off(each, extras)]
    assert len(seen) > 100
