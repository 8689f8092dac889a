"""Shards as the web leaves them: a run goes through, says what was wrong, and stops when too much is."""

import pytest

from groupvit_jax.data.tar import write_tar

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(trainings):
    """Good pairs, and a tar in which one sample is whole, 40 have no picture that can be read, and the end is cut."""
    folder = trainings.folder / "bad_data"
    folder.mkdir()
    (folder / "0.tar").symlink_to(trainings.folder / "scenes/train-00000.tar")
    broken = [part for i in range(40) for part in ((f"{i:02}.jpg", b"\xff\xd8\xff broken"), (f"{i:02}.txt", b"a kite"))]
    write_tar(folder / "1.tar", [*broken, ("x.jpg", b"picture"), ("y.jpg", b"cut off " * 1000)])
    data = (folder / "1.tar").read_bytes()
    (folder / "1.tar").write_bytes(data[: data.index(b"cut off ") + 3000])
    return f"--config.data.train[0].path={folder}/*.tar"


def test_bad_samples_are_replaced_and_reported_at_the_end(trainings, shards):
    output = trainings.run("some_bad", shards, "--config.train.steps=14", "--config.data.max_bad=0.9")
    assert any(f"240 pairs; left out: 1 x {a}, 1 x {b}" in output
               for a, b in (("truncated shard", "no caption"), ("no caption", "truncated shard")))
    assert "data since step 0: 224 samples, " in output and "x broken image); 0 texts cut to fit their rows" in output
    assert sum(row["bad_samples"] for row in trainings.rows("some_bad")) > 0


def test_more_of_them_than_the_limit_end_the_run_with_one_line(trainings, shards):
    output = trainings.run("too_many_bad", shards, "--config.train.steps=40", code=2)
    assert "samples drawn so far are bad" in output.splitlines()[-1]
    assert "config.data.max_bad=0.05" in output.splitlines()[-1]
