"""The distributions as they are built, and empty environments to install them in."""

import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import tarfile
import venv
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = """from configs import scenes


def get_config():
    config = scenes.get_config()
    config.update_from_flattened_dict({
        "model.image.image_size": 32, "model.image.width": 16, "model.image.heads": 2,
        "model.text.width": 16, "model.text.heads": 2, "model.projector.hidden": 32, "model.projector.features": 16,
        "data.batch": 8, "train.steps": 2, "train.warmup_steps": 1, "eval.every": 0, "checkpoint.every": 2,
    })
    return config
"""


@pytest.fixture(scope="session")
def declared() -> dict[str, list[Requirement]]:
    """setup.py's requirements, by extra; "" for the core."""
    import setuptools

    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **arguments: said.update(arguments))
        runpy.run_path("setup.py")
    lists = {"": said["install_requires"]} | said["extras_require"]
    return {extra: [Requirement(text) for text in texts] for extra, texts in lists.items()}


@pytest.fixture(scope="session")
def pins() -> dict[str, Requirement]:
    """The lines of launch/constraints.txt that are for this Python and machine, by name."""
    lines = [line for line in (ROOT / "launch/constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)
            if not pin.marker or pin.marker.evaluate()}


class Environment:
    """A virtual environment in `folder`, whose commands run there; `call` says what was printed."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        venv.create(folder / "venv")
        self.python = folder / "venv/bin/python"

    def pip(self, *arguments) -> None:
        subprocess.run([sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet",
                        "--disable-pip-version-check", *map(str, arguments)], check=True, env=surroundings())

    def call(self, *command) -> str:
        done = subprocess.run([self.python, *map(str, command)], cwd=self.folder, text=True, capture_output=True,
                              env=surroundings())
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def groupvit(self, *arguments) -> str:
        return self.call(self.folder / "venv/bin/groupvit", *arguments)

    def train_two_steps(self) -> str:
        """Draws scenes and trains on them by a recipe of one's own -> what the training said."""
        self.groupvit("data", "scenes", "--output=runs/scenes", "--train=32", "--val=2")
        (self.folder / "mine.py").write_text(SMALL)
        return self.groupvit("train", "--config=mine.py", "--workdir=runs/mine")


def surroundings() -> dict[str, str]:
    """The environment variables, less those by which this Python finds packages and JAX makes eight devices."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XLA_", "JAX_"))}
    return kept | {"JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> SimpleNamespace:
    """`wheel` and `sdist` of this tree, and `again`, the wheel that the sdist builds."""
    folder = tmp_path_factory.mktemp("built")
    left_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    build(folder / "tree", "--sdist", "--wheel")
    (sdist,), (wheel,) = ((folder / "tree/dist").glob(kind) for kind in ("*.tar.gz", "*.whl"))
    with tarfile.open(sdist) as tar:
        tar.extractall(folder / "sdist", filter="data")
    source, = (folder / "sdist").iterdir()
    build(source, "--wheel")
    again, = (source / "dist").glob("*.whl")
    return SimpleNamespace(wheel=wheel, sdist=sdist, again=again, tree=folder / "tree")


def build(folder: pathlib.Path, *kinds: str) -> None:
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", *kinds], cwd=folder, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))
