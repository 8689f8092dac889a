"""The wheel and the sdist hold what they must, and an installed wheel does what the README says."""

import email
import sysconfig
import tarfile
import zipfile

import pytest

pytestmark = pytest.mark.slow


def contents(wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def installed(built, environment):
    """The wheel in an environment of its own, beside the packages that these tests run with."""
    environment.pip("--no-deps", "--no-index", built.wheel)
    site, = (environment.folder / "venv/lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return environment


def test_the_wheel_holds_the_package_with_all_its_data_and_the_recipes_and_nothing_else(built):
    tree, inside = built.tree, set(contents(built.wheel))
    files = {str(file.relative_to(tree)) for file in (tree / "groupvit_jax").rglob("*") if file.is_file()}
    recipes = {f"groupvit_jax/recipes/configs/{file.name}" for file in (tree / "configs").glob("*.py")}
    assert {name for name in inside if ".dist-info/" not in name} == files | recipes
    assert {"groupvit_jax/py.typed", "groupvit_jax/data/vocabulary/bpe_simple_vocab_16e6.txt.gz"} <= inside


def test_the_sdist_holds_the_repository_and_builds_the_same_wheel(built):
    with tarfile.open(built.sdist) as tar:
        inside = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    files = {str(file.relative_to(built.tree)) for file in built.tree.rglob("*") if file.is_file()}
    assert {name for name in files if not name.startswith(("dist/", "build/", "groupvit_jax.egg-info/"))} <= inside
    assert contents(built.wheel) == contents(built.again)


def test_the_metadata_is_complete(built):
    texts = contents(built.wheel)
    name, = [name for name in texts if name.endswith(".dist-info/METADATA")]
    said = email.message_from_bytes(texts[name])
    assert said["License-Expression"] == "Apache-2.0 AND MIT" and said["Requires-Python"] == ">=3.11"
    assert said["Description-Content-Type"] == "text/markdown" and "# groupvit_jax" in said.get_payload()
    assert "Typing :: Typed" in said.get_all("Classifier")
    assert all("example" not in url and "TODO" not in url for url in said.get_all("Project-URL"))
    folder = name.removesuffix("METADATA") + "licenses/"
    assert {folder + file for file in said.get_all("License-File")} <= set(texts)
    assert b"OpenAI" in texts[folder + "groupvit_jax/data/vocabulary/NOTICE"]


def test_an_installed_wheel_is_what_is_imported_and_answers(installed):
    where = installed.call("-c", "import groupvit_jax; print(groupvit_jax.__file__)")
    assert str(installed.folder / "venv") in where
    assert "usage: groupvit VERB" in installed.groupvit("--help")
    tokens = installed.call("-c", "import groupvit_jax as gv; print(gv.tokenize('a zebra').shape, gv.__version__)")
    assert tokens.split(") ") == ["(1, 77", "0.1.0\n"]


def test_its_class_lists_and_templates_are_there(installed):
    count = "from groupvit_jax.evals.classes import templates as t; print(len(t('tcl')), len(t('groupvit')))"
    assert all(int(number) > 0 for number in installed.call("-c", count).split())


def test_a_recipe_of_ones_own_builds_on_those_of_the_wheel_and_trains(installed):
    assert "done: " in installed.train_two_steps()
    assert (installed.folder / "runs/mine/checkpoints/2").is_dir()


def test_the_recipes_of_the_wheel_are_found_from_anywhere(installed):
    assert "parameters" in installed.groupvit("train", "--config=configs/scenes.py", "--dry_run")
