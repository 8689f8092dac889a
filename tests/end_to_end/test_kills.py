"""Trainings that are killed, told to stop, lose workers or find a checkpoint damaged, and end as if nothing was."""

import os
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from processes import children, together

from groupvit_jax.errors import RunAgain
from groupvit_jax.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
STEPS, EVERY = 120, 4
RUN = (f"--config.train.steps={STEPS}", f"--config.checkpoint.every={EVERY}", "--config.eval.every=50")
DEADLINE = 300  # seconds, for whatever is waited for


@pytest.fixture(scope="module")
def undisturbed(trainings):
    trainings.run("never_killed", *RUN)
    return "never_killed"


def wait_for(condition, process):
    """Returns False when the process ended before the condition came true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


def steps_done(folder: pathlib.Path) -> int:
    """By the log: steps of which there is a row."""
    path = folder / "metrics.jsonl"
    return sum('"loss"' in line for line in path.read_text().splitlines()) if path.exists() else 0


def saving(folder: pathlib.Path) -> bool:
    return any("orbax-checkpoint-tmp" in name for name in os.listdir(folder / "checkpoints"))


def kill_when(trainings, workdir, moment, rng):
    """Starts a training and kills it at such a moment -> whether it ended before, and whether it was saving."""
    folder = trainings.folder / workdir
    before = steps_done(folder)
    process = trainings.start(workdir, *RUN)
    if moment == "starting":
        moment = time.monotonic() + rng.uniform(0, 6)
        wait_for(lambda: time.monotonic() > moment, process)
    else:
        wait_for(lambda: steps_done(folder) > before // EVERY * EVERY, process)  # rows after its checkpoint are new
        more = steps_done(folder) + rng.randrange(EVERY)
        wait_for(lambda: steps_done(folder) >= more or moment == "saving" and saving(folder), process)
        if moment == "saving":
            wait_for(lambda: saving(folder), process)
        time.sleep(rng.uniform(0, 0.01))
    was_saving = (folder / "checkpoints").is_dir() and saving(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode != -signal.SIGKILL, was_saving


@pytest.fixture(scope="module")
def killed(trainings):
    """A training that was killed 20 times, and how often while it saved."""
    rng, while_saving = random.Random(7), 0
    for i in range(20):
        moment = "starting" if i % 7 == 6 else "saving" if i % 2 else "training"
        ended, was_saving = kill_when(trainings, "killed_often", moment, rng)
        assert not ended, f"it was done before it was killed for the {i + 1}th time"
        while_saving += was_saving
    trainings.run("killed_often", *RUN)
    return "killed_often", while_saving


def assert_same_end(trainings, ours, theirs):
    (_, ours, step, _), (_, theirs, *_) = (checkpoint.load(str(trainings.folder / w)) for w in (ours, theirs))
    assert step == STEPS
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_killed_twenty_times_it_ends_bit_equal_to_one_never_killed(trainings, killed, undisturbed):
    workdir, while_saving = killed
    assert while_saving >= 3
    assert_same_end(trainings, workdir, undisturbed)


def test_every_step_and_score_is_in_its_log_once_and_the_same(trainings, killed, undisturbed):
    for name in ("loss", "scenes/mIoU"):
        assert trainings.rows(killed[0], name) == trainings.rows(undisturbed, name)


def test_nothing_half_written_is_left(trainings, killed):
    left = [path.name for path in (trainings.folder / killed[0]).rglob("*")]
    assert not [name for name in left if "tmp" in name or "part" in name or "damaged" in name]


def test_a_newest_checkpoint_that_is_damaged_costs_only_its_steps(trainings, undisturbed):
    shutil.copytree(trainings.folder / undisturbed, trainings.folder / "damaged")
    newest = trainings.folder / f"damaged/checkpoints/{STEPS}/model/manifest.ocdbt"
    newest.write_bytes(newest.read_bytes()[:-10])
    output = trainings.run("damaged", *RUN)
    assert f"checkpoint {STEPS} in " in output and "model/manifest.ocdbt is not what was written" in output
    assert f"going on from step {STEPS - EVERY} in " in output
    assert_same_end(trainings, "damaged", undisturbed)


# ---------------------------------------------------------------- told to stop


def test_told_to_stop_it_saves_the_step_says_so_and_goes_on_from_there(trainings, undisturbed):
    folder = trainings.folder / "stopped"
    process = trainings.start("stopped", *RUN, "--config.checkpoint.every=1000", "--config.data.workers=1")
    assert wait_for(lambda: steps_done(folder) > 20, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == RunAgain.code, output
    step, = checkpoint.steps_in(folder / "checkpoints")
    assert 20 < step < STEPS and f"groupvit: told to stop: step {step} is saved" in output.splitlines()[-1]
    assert f"going on from step {step}" in trainings.run("stopped", *RUN)
    assert_same_end(trainings, "stopped", undisturbed)
    assert trainings.rows("stopped", "scenes/mIoU") == trainings.rows(undisturbed, "scenes/mIoU")


def test_an_evaluation_that_was_due_is_made_up_for(trainings, undisturbed):
    """Told to stop before its first step, it stops after it; all that is due at that step is put off."""
    run = (*RUN[:-1], "--config.eval.every=1", "--config.train.steps=3", "--config.train.warmup_steps=1")
    folder = trainings.folder / "stopped_at_once"
    process = trainings.start("stopped_at_once", *run)
    assert wait_for((folder / "metrics.jsonl").exists, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == RunAgain.code, output
    stopped_at, = checkpoint.steps_in(folder / "checkpoints")
    assert stopped_at not in {row["step"] for row in trainings.rows("stopped_at_once", "scenes/mIoU")}
    trainings.run("stopped_at_once", *run)
    assert [row["step"] for row in trainings.rows("stopped_at_once", "scenes/mIoU")] == [1, 2, 3]


def test_one_of_two_processes_told_to_stop_stops_both_at_the_same_step(trainings):
    processes = []

    def start(*flags):
        processes.append(trainings.start("two_stopped", *RUN, "--config.train.steps=100000", *flags))
        if len(processes) == 2:
            assert wait_for(lambda: steps_done(trainings.folder / "two_stopped") > 5, processes[0])
            processes[1].send_signal(signal.SIGTERM)
        return processes[-1]

    outputs = together(start, 2, code=RunAgain.code)
    newest = checkpoint.steps_in(trainings.folder / "two_stopped/checkpoints")[-1]
    assert all(f"told to stop: step {newest} is saved" in output.splitlines()[-1] for output in outputs)


def test_told_to_stop_while_they_start_two_resumed_processes_stop_after_a_step(trainings):
    run = ("told_early", "--config.checkpoint.every=8", "--config.eval.every=50")
    trainings.run(*run, "--config.train.steps=8")
    processes = []

    def start(*flags):
        processes.append(trainings.start(*run, "--config.train.steps=100000", "--resume=force", *flags))
        if len(processes) == 2:  # they have joined, and neither has asked yet
            assert wait_for((trainings.folder / "told_early/hosts/process-1.json").exists, processes[0])
            processes[1].send_signal(signal.SIGTERM)
        return processes[-1]

    together(start, 2, code=RunAgain.code)
    assert checkpoint.steps_in(trainings.folder / "told_early/checkpoints")[-1] > 8


def test_it_saves_by_the_clock_too(trainings):
    trainings.run("by_the_clock", "--config.train.steps=30", "--config.checkpoint.every=1000",
                  "--config.checkpoint.keep=9", "--config.checkpoint.minutes=1e-6", "--config.train.log_every=10")
    assert checkpoint.steps_in(trainings.folder / "by_the_clock/checkpoints") == [10, 20, 30]
    stalls = trainings.rows("by_the_clock", "checkpoint_stall")
    assert [row["step"] for row in stalls] == [10, 20, 30] and all(row["checkpoint_stall"] > 0 for row in stalls)


# ---------------------------------------------------------------- workers


def kill_workers(process):
    workers = children(process.pid, "spawn_main")
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)


def test_a_worker_that_is_killed_is_replaced_and_changes_nothing(trainings, undisturbed):
    folder = trainings.folder / "lost_workers"
    process = trainings.start("lost_workers", *RUN, "--config.data.workers=1")
    for step in (10, 40):
        assert wait_for(lambda step=step: steps_done(folder) > step, process)
        kill_workers(process)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, output
    assert output.count("a worker process that makes batches ended (exit code -9;") == 2 and "Traceback" not in output
    assert_same_end(trainings, "lost_workers", undisturbed)


def test_workers_that_go_on_dying_end_the_run_with_one_line(trainings):
    folder = trainings.folder / "workers_die"
    process = trainings.start("workers_die", *RUN, "--config.data.workers=1", "--config.data.worker_restarts=0")
    assert wait_for(lambda: steps_done(folder) > 3, process)
    kill_workers(process)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2 and "lower config.data.workers" in output.splitlines()[-1], output


# ---------------------------------------------------------------- more and fewer processes


def test_from_one_process_to_two_to_four_and_back_the_losses_are_those_of_one(trainings, undisturbed):
    """On the way the batches are made by threads, by one worker and by two."""
    run = ("--config.eval.every=0", "--config.checkpoint.every=1000", "--config.checkpoint.minutes=0")
    for processes, workers, last in ((1, 0, 20), (2, 1, 40), (4, 0, 60), (1, 2, 80)):
        flags = (*run, f"--config.data.workers={workers}")
        stop_at(trainings, "elastic", processes, flags, last)
    ours, theirs = ({row["step"]: row["loss"] for row in trainings.rows(w)} for w in ("elastic", undisturbed))
    assert len(ours) >= 80
    np.testing.assert_allclose([*ours.values()], [theirs[n] for n in ours], rtol=1e-4)


def stop_at(trainings, workdir, number, flags, step):
    """Trains on in so many processes until after that step, and tells one to stop."""
    processes = []

    def start(*joining):
        joining = joining if number > 1 else ()
        processes.append(trainings.start(workdir, *RUN, *flags, *joining))
        if len(processes) == number:
            assert wait_for(lambda: steps_done(trainings.folder / workdir) >= step, processes[0])
            processes[-1].send_signal(signal.SIGTERM)
        return processes[-1]

    together(start, number, code=RunAgain.code)
