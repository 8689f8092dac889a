"""launch/tpu_worker.sh, run for real in a home folder of its own."""

import os
import signal

import pytest


def installs(bench) -> list[str]:
    return [call for call in bench.calls() if call.startswith(("uv", "curl"))]


def test_setup_installs_a_python_and_the_pinned_requirements_on_every_worker(bench):
    bench.set_up()
    one = installs(bench)[:3]
    assert one[0].startswith("curl") and "astral.sh/uv/0." in one[0]
    assert one[1] == "uv venv --quiet --clear --python 3.12 venv"
    assert one[2].endswith("--constraint code/launch/constraints.txt --editable code[tpu] gcsfs")
    assert sorted(installs(bench)[3:]) == sorted(one)
    assert bench.tpu("setup").out.splitlines() == [
        f"w-{i} is set up: Python 3.12.0, a copy of the operator's checkout" for i in (0, 1)]


def test_setup_again_brings_the_new_code_and_installs_nothing(bench):
    bench.set_up()
    before = installs(bench)
    (bench.checkout / "configs/tiny.py").unlink()
    (bench.checkout / "configs/new.py").write_text("")
    assert bench.tpu("setup").code == 0
    assert [file.name for file in (bench.home / "groupvit/code/configs").iterdir()] == ["new.py"]
    assert installs(bench) == before


def test_setup_with_other_requirements_installs_them(bench):
    bench.set_up()
    (bench.checkout / "launch/constraints.txt").write_text("jax==0.10.3\n")
    before = len(installs(bench))
    assert bench.tpu("setup").code == 0
    assert len(installs(bench)) == before + 2 * 2  # two workers; uv is there


def test_setup_that_broke_off_is_done_again(bench):
    bench.set_up()
    (bench.home / "groupvit/installed").unlink()
    before = len(installs(bench))
    bench.tpu("setup")
    assert len(installs(bench)) == before + 2


@pytest.mark.parametrize("revision", ["HEAD", "old"])
def test_setup_fetches_a_revision_of_a_repository(bench, revision):
    bench.set_up().commit()
    bench.git("branch", "old")
    (bench.checkout / "configs/new.py").write_text("")
    bench.commit()
    done = bench.worker("setup", f"file://{bench.checkout}", revision)
    assert done.code == 0 and bench.git("rev-parse", revision).strip() in done.out
    assert (bench.home / "groupvit/code/configs/new.py").exists() == (revision == "HEAD")


def test_setup_names_a_revision_that_is_not_there_and_keeps_the_code(bench):
    bench.set_up().commit()
    done = bench.worker("setup", f"file://{bench.checkout}", "none")
    assert done.code == 2 and "groupvit: w-0: cannot fetch none" in done.err
    assert (bench.home / "groupvit/code/configs/tiny.py").exists()


def test_mounts_are_made_once_and_again_after_a_reboot(bench):
    bench.set_up()
    mounts = [f"gs://bucket/dir:{bench.folder}/data", f"10.0.0.2:/share:{bench.folder}/runs"]
    made = [f"gcsfuse --implicit-dirs --only-dir=dir bucket {bench.folder}/data",
            f"mount -t nfs 10.0.0.2:/share {bench.folder}/runs"]
    called = lambda: [call for call in bench.calls() if call.startswith(("gcsfuse", "mount"))]  # noqa: E731
    for _ in range(2):
        assert bench.worker("setup", "groupvit.tar.gz", "HEAD", *mounts).code == 0
        assert called() == made
    (bench.folder / "data/mounted").unlink()
    assert bench.start().code == 0
    assert called() == [*made, made[0]]


def test_a_mount_that_stays_does_not_keep_the_lock(bench):
    bench.set_up()
    for _ in range(2):
        assert bench.worker("setup", "groupvit.tar.gz", "HEAD", f"gs://bucket:{bench.folder}/data").code == 0


@pytest.mark.parametrize("codes, state, trainings", [
    ([], "done", 1), ([1, 1, 0], "done", 3), ([134, 75, 0], "done", 3), ([2, 0], "refused", 1),
    ([1, 2, 0], "refused", 2), ([1, 1, 1, 0], "failed", 3), ([75, 75, 75, 0], "failed", 3),
    (["75 9", 75, "75 10", 75, 1, 0], "done", 6), (["75 9", "75 9", 75, 75, 0], "failed", 4),
    ([f"75 ../seed-{i}/checkpoints/9" for i in (2, 0, 1)] + [0], "done", 4)])
def test_training_is_started_again_until_it_is_done_or_its_input_is_wrong(bench, codes, state, trainings):
    bench.set_up()
    (bench.home / "codes").write_text("".join(f"{code}\n" for code in codes))
    assert bench.start("--config.name=a b", attempts=3).code == 0
    bench.until(lambda: bench.state() != "running")
    assert bench.state() == state
    flags = rf" train --multihost --workdir={bench.workdir} --config=configs/tiny.py --config.name=a\ b"
    assert bench.trainings() == [flags] * trainings
    log = (bench.workdir / "logs/w-0.log").read_text()
    assert log.count("step 1: loss 2.0") == trainings
    assert (bench.workdir / "logs/done").exists() == (state == "done")


def test_a_second_start_with_the_same_flags_starts_nothing(bench):
    bench.set_up()
    (bench.home / "hold").touch()
    bench.start()
    bench.until(lambda: len(bench.trainings()) == 1)
    again = bench.start()
    assert again.code == 0 and "already" in again.out
    (bench.home / "hold").unlink()
    bench.until(lambda: bench.state() == "done")
    assert len(bench.trainings()) == 1


def test_neither_another_run_nor_a_setup_can_disturb_one_that_is_going_on(bench):
    bench.set_up()
    (bench.home / "hold").touch()
    bench.start()
    for done in (bench.start("--config.seed=1"), bench.worker("setup", "groupvit.tar.gz", "HEAD")):
        assert done.code == 1 and "groupvit: w-0: " in done.err and "stop" in done.err
    assert bench.state() == "running"


def test_stop_lets_the_training_end_itself_and_starts_nothing_again(bench):
    bench.set_up()
    (bench.home / "hold").touch()
    bench.start()
    bench.until(lambda: "step 1" in bench.worker("status").out)
    assert bench.worker("stop").code == 0
    assert bench.worker("status").out == "w-0 stopped: ended\n"
    assert len(bench.trainings()) == 1
    assert bench.start().code == 0


def test_a_run_that_ended_unasked_is_dead_and_can_be_started_again(bench):
    bench.set_up()
    (bench.home / "hold").touch()
    bench.start()
    bench.until(lambda: bench.trainings())
    os.killpg(int((bench.home / "groupvit/pid").read_text()), signal.SIGKILL)
    bench.until(lambda: bench.state() == "dead")
    (bench.home / "hold").unlink()
    bench.start()
    bench.until(lambda: bench.state() == "done")


def test_what_a_killed_training_leaves_behind_does_not_keep_the_lock(bench):
    bench.set_up()
    (bench.home / "codes").write_text("137\n")
    tool = bench.home / "groupvit/venv/bin/groupvit"
    tool.write_text(tool.read_text().replace("code=0", 'sleep 60 & echo $! >> "$BENCH/pids"; code=0'))
    bench.start()
    bench.until(lambda: bench.state() == "done")
    assert len((bench.folder / "pids").read_text().split()) == 2
    assert "already" not in bench.start().out


def test_a_worker_does_not_wait_for_others_that_are_done(bench):
    bench.set_up()
    (bench.home / "hold").touch()
    (bench.home / "codes").write_text("1\n1\n")
    bench.start()
    bench.until(lambda: bench.trainings())
    (bench.workdir / "logs/done").touch()
    (bench.home / "hold").unlink()
    bench.until(lambda: bench.state() == "done")
    assert len(bench.trainings()) == 1


@pytest.mark.parametrize("break_, words", [
    (lambda bench: (bench.home / "groupvit/venv/bin/groupvit").unlink(), "launch/tpu.sh setup"),
    (lambda bench: (bench.home / "groupvit/code/configs/tiny.py").unlink(), "no configs/tiny.py"),
    (lambda bench: (bench.folder / "runs").touch(), "cannot write")])
def test_what_a_run_lacks_is_said_when_it_is_started(bench, break_, words):
    bench.set_up()
    break_(bench)
    done = bench.start()
    assert done.code == 2 and done.err.startswith("groupvit: w-0: ") and words in done.err
    assert bench.state() == "idle"


def test_logs_shows_the_last_lines(bench):
    bench.set_up()
    assert bench.worker("tail", 1).code == 2
    bench.start()
    bench.until(lambda: bench.state() == "done")
    assert bench.worker("tail", 1).out == "step 1: loss 2.0\n"
