"""Training as a person starts it: the console script's `main` in a process of its own, on scenes in tars."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from groupvit_jax.data import scenes

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = ROOT / "tests/end_to_end/tiny_training.py"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with 200 scenes in two tars, and 6 with masks."""
    made = tmp_path_factory.mktemp("end_to_end")
    scenes.write(str(made / "scenes"), 200, 6, 0, 32)
    return made


def groupvit(folder: pathlib.Path, *arguments: str, devices: int = 1) -> subprocess.Popen:
    """`groupvit ARGUMENTS` in a process of its own; those of one folder share compiled programs, as compiling is most
    of their time."""
    program = "from groupvit_jax.cli.main import main; main()"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def together(start, number: int) -> list[str]:
    """What `number` processes that join each other printed: start(*flags) starts one with the flags of --multihost."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start("--multihost", f"--coordinator=localhost:{port}", f"--processes={number}", f"--process={i}")
                 for i in range(number)]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * number, "\n".join(outputs)
    return outputs


class Trainings:
    """Starts trainings in `folder`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def start(self, workdir: str, *overrides: str, devices: int = 1) -> subprocess.Popen:
        return groupvit(self.folder, "train", f"--config={CONFIG}", f"--workdir={self.folder / workdir}",
                        f"--config.data.train[0].path={self.folder}/scenes/train-*.tar",
                        f"--config.eval.data_root={self.folder}/scenes", *overrides, devices=devices)

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
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows if name in row]


@pytest.fixture(scope="session")
def trainings(folder):
    return Trainings(folder)
