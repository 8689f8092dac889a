"""Processes of a training that stop, vanish, fail or hang: the others end soon, say why, and can be started again."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from processes import CONFIG, ROOT, children, environment, joining

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TIMEOUT = 15  # of the watch, seconds
LONG = (f"--config.train.hang_timeout={TIMEOUT}", "--config.train.steps=100000", "--config.checkpoint.every=100000")
STREAM = """
from groupvit_jax.data import pipeline
from groupvit_jax.errors import InputError
stream = pipeline.stream
def broken(*args):
    for i, batch in enumerate(stream(*args)):
        if i == 12:
            {}
        yield batch
pipeline.stream = broken
"""
MAIN = "from groupvit_jax.cli.main import main; main()"


def start(trainings, workdir, *flags, before=""):
    """A training in a process of its own, in which the code `before` runs first."""
    arguments = ["train", f"--config={CONFIG}", *trainings.flags(workdir), *LONG, *flags]
    return subprocess.Popen([sys.executable, "-c", before + MAIN, *arguments], cwd=ROOT, text=True,
                            env=environment(trainings.folder, 1), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@contextlib.contextmanager
def joined(trainings, workdir, number, before=("",) * 8):
    """So many processes that join each other and train; what is left of them is killed in the end."""
    processes = [start(trainings, workdir, *flags, before=code) for flags, code in zip(joining(number), before)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def until_step(trainings, workdir, step, processes, seconds=400):
    metrics, deadline = trainings.folder / workdir / "metrics.jsonl", time.monotonic() + seconds
    while not metrics.exists() or len(metrics.read_text().splitlines()) < step:
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def ends(processes, seconds):
    """The codes and the last lines of processes, which end within so long."""
    deadline = time.monotonic() + seconds
    outputs = [process.communicate(timeout=deadline - time.monotonic())[0] for process in processes]
    return [process.returncode for process in processes], [output.splitlines()[-1] for output in outputs], outputs


def test_a_stopped_process_ends_the_others_with_75_and_is_named(trainings):
    with joined(trainings, "host_stopped", 4) as processes:
        until_step(trainings, "host_stopped", 8, processes)
        stopped = processes.pop(2)
        stopped.send_signal(signal.SIGSTOP)
        codes, lines, _ = ends(processes, TIMEOUT + 60)  # JAX's own heartbeat would end them then
        assert codes == [75] * 3
        assert all("process 2 has been silent for 15 s (last: waiting for step " in line for line in lines), lines
        stopped.send_signal(signal.SIGCONT)  # it finds itself alone
        assert ends([stopped], 60)[0] != [0]


@pytest.mark.parametrize("victim, number", [(1, 4), (0, 2)])  # process 0 holds JAX's coordination service
def test_a_killed_process_ends_the_others_with_75_and_one_line(trainings, victim, number):
    workdir = f"killed_{victim}"
    with joined(trainings, workdir, number) as processes:
        until_step(trainings, workdir, 8, processes)
        processes.pop(victim).send_signal(signal.SIGKILL)
        codes, lines, outputs = ends(processes, 60)
    assert codes == [75] * (number - 1), outputs
    assert all("lost another host" in line and line.startswith("groupvit: ") for line in lines), lines
    assert not any("Traceback" in output for output in outputs)


def test_wrong_input_on_one_host_in_mid_run_ends_all_with_2(trainings):
    for victim in (0, 1):
        before = ["", ""]
        before[victim] = STREAM.format("raise InputError('no such shard here')")
        with joined(trainings, f"refused_{victim}", 2, before) as processes:
            codes, lines, outputs = ends(processes, 400)
        assert codes == [2, 2], outputs
        assert lines[victim] == "groupvit: no such shard here"
        assert lines[1 - victim] == f"groupvit: process {victim} ended: no such shard here"


def test_a_batch_that_never_comes_ends_the_process_with_75_and_the_stacks(trainings):
    process = start(trainings, "hung", before=STREAM.format("__import__('threading').Event().wait()"))
    codes, lines, outputs = ends([process], 400)
    assert codes == [75] and "no progress for 15 s while waiting for a batch" in lines[0]
    assert "most recent call first" in outputs[0] and "in broken" in outputs[0]
    assert not (trainings.folder / "hung/hosts").exists()


def test_a_process_that_was_stopped_alone_and_goes_on_is_not_ended(trainings):
    process = start(trainings, "suspended")
    try:
        until_step(trainings, "suspended", 8, [process])
        process.send_signal(signal.SIGSTOP)
        time.sleep(TIMEOUT + 3)  # the claim is about time that passes
        process.send_signal(signal.SIGCONT)
        until_step(trainings, "suspended", len(trainings.rows("suspended")) + 20, [process], seconds=200)
    finally:
        process.kill()
        process.communicate()


def test_a_local_pod_that_starts_again_trains_to_the_end_after_a_process_was_killed(trainings):
    pod = subprocess.Popen(
        ["bash", ROOT / "launch/local_pod.sh", "2", CONFIG, *trainings.flags("again"), "--config.checkpoint.every=4",
         "--config.train.steps=60"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(trainings.folder, 1) | {"PYTHON": sys.executable, "RESTARTS": "3"})
    try:
        until_step(trainings, "again", 10, [pod])
        (second,) = children(pod.pid, "--process=1")
        os.kill(second, signal.SIGKILL)
        output, _ = pod.communicate(timeout=400)
    finally:
        pod.terminate()
        pod.communicate()
    assert pod.returncode == 0, output
    assert output.count("starting again") == 1 and "going on from step" in output
    assert [row["step"] for row in trainings.rows("again")] == list(range(1, 61))
    assert not (trainings.folder / "again/hosts").exists()
