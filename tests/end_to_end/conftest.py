"""Training as a person starts it: the console script's `main` in a process of its own, on scenes in tars."""

import json
import pathlib
import subprocess
import sys

import pytest
from processes import CONFIG, ROOT, environment, groupvit

from groupvit_jax.drawn import scenes
from groupvit_jax.training import speed


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with 200 scenes in two tars, and 6 with masks."""
    made = tmp_path_factory.mktemp("end_to_end")
    scenes.write(str(made / "scenes"), 200, 6, 0, 32)
    return made


class Trainings:
    """Starts trainings in `folder`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def flags(self, workdir: str) -> list[str]:
        return [f"--workdir={self.folder / workdir}", f"--config.data.train[0].path={self.folder}/scenes/train-*.tar",
                f"--config.eval.data_root={self.folder}/scenes"]

    def start(self, workdir: str, *overrides: str, devices: int = 1) -> subprocess.Popen:
        return groupvit(self.folder, "train", f"--config={CONFIG}", *self.flags(workdir), *overrides, devices=devices)

    def pod(self, workdir: str, number: int, *overrides: str, devices: int = 1) -> None:
        """Trains to the end in so many processes of launch/local_pod.sh."""
        subprocess.run(["bash", ROOT / "launch/local_pod.sh", str(number), CONFIG, *self.flags(workdir), *overrides],
                       cwd=ROOT, env=environment(self.folder, devices) | {"PYTHON": sys.executable}, check=True,
                       timeout=300)

    def run(self, workdir: str, *overrides: str, code: int = 0, **more) -> str:
        """Trains to the end; returns what was printed."""
        process = self.start(workdir, *overrides, **more)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == code, output
        assert "Traceback" not in output, output
        return output

    def rows(self, workdir: str, name: str = "loss") -> list[dict]:
        """The lines of metrics.jsonl that have `name`, without the speed."""
        lines = (self.folder / workdir / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [{k: v for k, v in row.items() if k not in speed.NAMES} for row in rows if name in row]


@pytest.fixture(scope="session")
def trainings(folder):
    return Trainings(folder)
