"""Checkpoints of which a file was lost, cut or changed: the same variables, or one line; never others."""

import pathlib
import random
import shutil

import jax
import numpy as np
import pytest
import tiny_run
from mutations import case

from groupvit_jax.errors import InputError
from groupvit_jax.training import checkpoint

HARMS = {
    "gone": lambda data, rng: None,
    "empty": lambda data, rng: b"",
    "cut": lambda data, rng: data[: rng.randrange(len(data))],
    "zeros": lambda data, rng: bytes(len(data)),
    "flipped": lambda data, rng: flipped(data, rng.randrange(len(data)), rng),
    "of another": lambda data, rng: rng.randbytes(len(data)),
}  # fmt: skip


def flipped(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.save(workdir, tiny_run.config(model__text__vocabulary=512))
    return workdir


@pytest.fixture(scope="module")
def right(run):
    return jax.device_get(checkpoint.load(str(run)).variables)


def files(run: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())


def load_harmed(run, right, tmp_path, file: pathlib.Path, how: str, seed: int) -> str:
    """"refused" or "right"."""
    workdir = tmp_path / f"{seed}"
    shutil.copytree(run, workdir)
    data = HARMS[how]((run / file).read_bytes(), random.Random(seed))
    (workdir / file).unlink() if data is None else (workdir / file).write_bytes(data)
    with case(seed, f"{file} {how}"):
        try:
            found = checkpoint.load(str(workdir)).variables
        except InputError as error:
            assert len(" ".join(str(error).split())) < 600 + 2 * len(str(workdir))
            return "refused"
        finally:
            shutil.rmtree(workdir)
        assert jax.tree.structure(found) == jax.tree.structure(right)
        for (path, x), y in zip(jax.tree.leaves_with_path(right), jax.tree.leaves(jax.device_get(found))):
            assert np.array_equal(x, y), f"{jax.tree_util.keystr(path)} is another"
    return "right"


@pytest.mark.parametrize("how", HARMS)
def test_a_harmed_checkpoint_is_the_same_or_refused_in_one_line(run, right, tmp_path, how):
    ended = [load_harmed(run, right, tmp_path, file, how, seed) for seed, file in enumerate(files(run))]
    assert "refused" in ended


def test_a_flipped_bit_of_the_weights_is_noticed(run, right, tmp_path):
    largest = max(files(run), key=lambda file: (run / file).stat().st_size)
    assert {load_harmed(run, right, tmp_path, largest, "flipped", seed) for seed in range(20)} == {"refused"}


@pytest.mark.parametrize("verb, more", [
    ("eval", ["--tasks=scenes", "--data_root=/nowhere"]), ("export", ["--format=hf", "--output=out"]),
    ("segment", ["--images=photo.png", "--classes=zebra,sand", "--output=out"]),
])  # fmt: skip
def test_every_verb_says_so_in_one_line(groupvit, run, tmp_path, monkeypatch, verb, more):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 32)).save("photo.png")
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(path.read_bytes()[:1000])
    ended = groupvit(verb, f"--checkpoint={tmp_path}/run", *more)
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("groupvit: ")] == ended.err.splitlines()[-1:]
    assert not (tmp_path / "out").exists()
