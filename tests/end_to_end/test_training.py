"""Training in processes of its own: killed and started again, finished, spread over processes."""

import shutil
import signal
import time

import jax
import numpy as np
import pytest
from processes import together

from groupvit_jax.training import checkpoint

pytestmark = pytest.mark.slow
STEPS = 40


@pytest.fixture(scope="module")
def undisturbed(trainings):
    output = trainings.run("undisturbed")
    assert "done: " in output
    return "undisturbed"


def kill_in_an_epoch(trainings, workdir):
    """Starts a training and kills it after its first checkpoint, not at the end of an epoch (12.5 steps)."""
    process = trainings.start(workdir, "--config.data.workers=1")
    deadline = time.monotonic() + 200
    checkpoints, metrics = (trainings.folder / workdir / name for name in ("checkpoints/10", "metrics.jsonl"))
    while not (checkpoints.is_dir() and len(metrics.read_text().splitlines()) > 13):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(metrics.read_text().splitlines()) < STEPS


@pytest.fixture(scope="module")
def resumed(trainings):
    """(workdir, what the second start printed) of a training that was killed on its way; worker processes read."""
    kill_in_an_epoch(trainings, "killed")
    return "killed", trainings.run("killed", "--config.data.workers=1")


def test_a_killed_training_started_again_ends_bit_equal_to_an_undisturbed_one(trainings, resumed, undisturbed):
    (_, ours, step, _), (_, theirs, *_) = (
        checkpoint.load(str(trainings.folder / w)) for w in (resumed[0], undisturbed))
    assert step == STEPS
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_its_metrics_are_those_of_the_undisturbed_one_each_step_once(trainings, resumed, undisturbed):
    rows = trainings.rows(resumed[0])
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows == trainings.rows(undisturbed)


def test_it_says_where_it_goes_on(resumed):
    assert any(f"going on from step {step} in " in resumed[1] for step in (10, 20, 30))


def test_a_finished_training_started_again_does_nothing(trainings, undisturbed):
    folder = trainings.folder / undisturbed
    listing = lambda: {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}  # noqa: E731
    before = listing()
    output = trainings.run(undisturbed)
    assert "is complete" in output and "done: " in output
    assert listing() == before


def test_a_finished_training_trains_on_when_it_is_given_more_steps_by_force(trainings, undisturbed):
    more = f"--config.train.steps={STEPS + 2}"
    assert "--resume=force" in trainings.run(undisturbed, more, code=2).splitlines()[-1]
    output = trainings.run(undisturbed, more, "--resume=force")
    assert f"going on from step {STEPS}" in output
    assert [row["step"] for row in trainings.rows(undisturbed)] == list(range(1, STEPS + 3))


def test_another_model_in_the_folder_of_a_training_is_one_line_and_code_2(trainings, undisturbed):
    output = trainings.run(undisturbed, "--config.model.text.width=16", code=2)
    assert "config.model.text.width 16 here, 8 in the run" in output.splitlines()[-1]


PODS = [f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor")] + [
    "--config.train.steps=12", "--config.checkpoint.every=6", "--config.eval.every=6"]


@pytest.fixture(scope="module")
def one(trainings):
    """The losses, scores and last variables of a training in one process of eight devices."""
    trainings.run("one", *PODS, devices=8)
    return outcome(trainings, "one")


def outcome(trainings, workdir):
    losses, scores = ({row["step"]: row[name] for row in trainings.rows(workdir, name)}
                      for name in ("loss", "scenes/mIoU"))
    _, variables, step, _ = checkpoint.load(str(trainings.folder / workdir))
    assert step == 12
    return losses, scores, variables


def assert_same(ours, theirs, steps):
    for mine, other, rtol in zip(ours[:2], theirs[:2], (1e-5, 1e-2)):
        assert mine.keys() == {n for n in other if n in steps}
        np.testing.assert_allclose([*mine.values()], [other[n] for n in mine], rtol=rtol)
    for (path, a), b in zip(jax.tree.leaves_with_path(ours[2]), jax.tree.leaves(theirs[2]), strict=True):
        # A bias before a norm or under a softmax has no gradient but rounding, which Adam blows up to steps of the
        # learning rate, 1e-3; so equal losses leave some parameters apart by a few of them.
        np.testing.assert_allclose(a, b, atol=2e-2, err_msg=jax.tree_util.keystr(path))


def test_two_processes_train_evaluate_and_save_as_one(trainings, one):
    together(lambda *flags: trainings.start("two", *PODS, *flags, devices=4), 2)
    assert_same(outcome(trainings, "two"), one, range(1, 13))


@pytest.fixture(scope="module")
def four(trainings):
    """The folder of a training in four processes that launch/local_pod.sh started, with ZeRO-1."""
    trainings.pod("four", 4, *PODS, "--config.mesh.zero1", devices=2)
    return trainings.folder / "four"


def test_four_processes_of_local_pod_train_evaluate_and_save_as_one(trainings, one, four):
    assert_same(outcome(trainings, "four"), one, range(1, 13))
    assert all((four / f"logs/process-{i}.log").is_file() for i in range(4))


@pytest.mark.parametrize("processes", [2, 1])
def test_what_four_processes_saved_fewer_resume_on_another_mesh_with_the_same_losses(trainings, one, four, processes):
    workdir = f"{processes}_of_four"
    mesh = ["--config.mesh.data=-1", "--config.mesh.fsdp=1", "--config.mesh.tensor=1"]
    shutil.copytree(four / "checkpoints/6", trainings.folder / workdir / "checkpoints/6")
    printed = together(lambda *flags: trainings.start(workdir, *PODS, *mesh, *flags), processes)
    assert "going on from step 6" in printed[0]
    assert_same(outcome(trainings, workdir), one, range(7, 13))


def test_multihost_without_anyone_to_say_who_the_others_are_is_one_line_and_code_2(trainings):
    output = trainings.run("nobody", "--multihost", code=2)
    assert "--coordinator" in output.splitlines()[-1]
