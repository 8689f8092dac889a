"""launch/local_pod.sh with a stand-in for Python: what it starts, and that nothing outlives it. (A test in
tests/end_to_end trains by it.)"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
STAND_IN = f"""#!/usr/bin/env bash
[[ $* == *socket* ]] && exec {sys.executable} "$@"
all="$*" me="${{all##*--process=}}"
echo $$ >> pids
echo "process $me has $JAX_NUM_CPU_DEVICES on $JAX_PLATFORMS: ${{*:3}}"
if [[ $me == "${{FAILS:-}}" ]]; then echo "groupvit: no such shard"; exit "${{CODE:-7}}"; fi
if [[ $me == "${{FAILS_ONCE:-}}" && ! -e failed ]]; then touch failed; echo "groupvit: lost"; exit 75; fi
if [[ $me == "${{SAVES:-}}" ]]; then
  trap 'told=true' TERM
  until [[ -n ${{told:-}}${{FAILS:-}} ]]; do sleep 0.1; touch "hangs-$me"; done
  sleep 2
  touch saved
  exit 75
fi
if [[ -n ${{HANGS:-}} ]]; then
  [[ $HANGS == deaf ]] && trap '' TERM
  touch "hangs-$me"
  for ((;;)); do sleep 0.2; done
fi
echo "process $me ends"
"""


@pytest.fixture
def pod(tmp_path):
    """pod(*arguments, **environment) -> the process of the script, started in tmp_path; it is stopped at the end."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "recipe.py").write_text("")
    started = []

    def start(*arguments, **environment):
        environment = {"PYTHON": str(tmp_path / "python")} | environment
        started.append(subprocess.Popen(
            ["bash", ROOT / "launch/local_pod.sh", *arguments], cwd=tmp_path, text=True, env=os.environ | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))  # tests in the background ignore it
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def alive(folder):
    """Of the stand-ins that were started, those that still run."""
    states = [pathlib.Path(f"/proc/{pid}/stat") for pid in (folder / "pids").read_text().split()]
    return [state for state in states if state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"]


@pytest.mark.parametrize("arguments, words", [
    ((), "usage: launch/local_pod.sh N CONFIG"), (("2",), "usage"), (("0", "recipe.py"), "N=0: give the number"),
    (("two", "recipe.py"), "N=two"), (("2", "other.py"), "CONFIG=other.py: no such file"),
    (("2", "recipe.py", "--process=1"), "--process=1: is set here"),
    (("2", "recipe.py", "--config", "x"), "--config: is set here"),
    (("2", "recipe.py", "--workdir="), "--workdir: name a folder"), (("2", "recipe.py", "--workdir"), "name a folder"),
    (("2", "recipe.py", "--workdir=recipe.py/run"), "--workdir=recipe.py/run: cannot make"),
])
def test_wrong_arguments_are_one_line_and_code_2(pod, arguments, words):
    process = pod(*arguments)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 2 and out == ""
    assert err.startswith("local_pod: ") and words in err and len(err.splitlines()) == 1


def test_a_number_of_devices_that_is_none_is_one_line_and_code_2(pod):
    process = pod("2", "recipe.py", JAX_NUM_CPU_DEVICES="all")
    assert "JAX_NUM_CPU_DEVICES=all" in process.communicate(timeout=200)[1] and process.returncode == 2


def test_each_process_is_told_of_the_others_and_has_its_log_and_process_0_speaks(pod, tmp_path):
    process = pod("3", "recipe.py:variant", "--workdir", "run", "--config.seed=1 2", JAX_NUM_CPU_DEVICES="4")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0 and err == ""
    logs = [(tmp_path / f"run/logs/process-{i}.log").read_text() for i in range(3)]
    assert out == logs[0] and logs[0].endswith("process 0 ends\n")
    told = [re.fullmatch(r"process (\d) has 4 on cpu: train --config=recipe.py:variant --workdir run --config.seed=1 2 "
                         r"--workdir=run --multihost --coordinator=localhost:(\d+) --processes=3 --process=\1",
                         log.splitlines()[0]) for log in logs]
    assert [match[1] for match in told] == ["0", "1", "2"] and len({match[2] for match in told}) == 1


def test_when_one_fails_the_others_are_stopped_and_its_code_and_last_line_are_given(pod, tmp_path):
    process = pod("3", "recipe.py", FAILS="1", HANGS="1", PATIENCE="1")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 7
    assert err == ("local_pod: process 1 ended with code 7; runs/local_pod/logs/process-1.log ends: "
                   "groupvit: no such shard\n")
    assert alive(tmp_path) == []


def both_hang(folder):
    deadline = time.monotonic() + 120
    while len(list(folder.glob("hangs-*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("sent, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all(pod, tmp_path, sent, code):
    process = pod("2", "recipe.py", HANGS="deaf" if sent == signal.SIGTERM else "1", PATIENCE="1")
    both_hang(tmp_path)
    assert len(alive(tmp_path)) == 2
    process.send_signal(sent)
    process.communicate(timeout=200)
    assert process.returncode == code and alive(tmp_path) == []


def test_one_that_saves_when_all_are_told_to_stop_may_finish_while_others_have_ended(pod, tmp_path):
    process = pod("2", "recipe.py", HANGS="1", SAVES="1")
    both_hang(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=200)
    assert process.returncode == 143 and (tmp_path / "saved").exists()


def test_one_that_saves_when_another_fails_may_finish(pod, tmp_path):
    process = pod("2", "recipe.py", FAILS="0", CODE="75", SAVES="1")
    process.communicate(timeout=200)
    assert process.returncode == 75 and (tmp_path / "saved").exists()


def test_a_second_signal_ends_those_that_do_not_heed_the_first_at_once(pod, tmp_path):
    process = pod("2", "recipe.py", HANGS="deaf", PATIENCE="800")
    both_hang(tmp_path)
    deadline = time.monotonic() + 200  # of the 800 seconds that they have
    while process.poll() is None:
        assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert process.returncode == 143 and alive(tmp_path) == []


def test_all_are_started_again_as_often_as_asked_for(pod, tmp_path):
    process = pod("2", "recipe.py", FAILS="1", RESTARTS="2")
    _, err = process.communicate(timeout=200)
    assert process.returncode == 7 and len((tmp_path / "pids").read_text().split()) == 6
    assert "starting again, 2 of at most 2 times" in err and "3 of" not in err


def test_those_started_again_that_end_well_end_it_and_the_logs_tell_of_both_starts(pod, tmp_path):
    process = pod("2", "recipe.py", FAILS_ONCE="0", RESTARTS="5")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and len((tmp_path / "pids").read_text().split()) == 4
    log = (tmp_path / "runs/local_pod/logs/process-0.log").read_text()
    assert out == log and log.count("groupvit: lost") == 1 and log.count("process 0 ends") == 1


def test_wrong_input_is_not_started_again(pod, tmp_path):
    process = pod("2", "recipe.py", FAILS="1", CODE="2", RESTARTS="5")
    process.communicate(timeout=200)
    assert process.returncode == 2 and len((tmp_path / "pids").read_text().split()) == 2


def test_a_number_of_restarts_that_is_none_is_one_line_and_code_2(pod):
    process = pod("2", "recipe.py", RESTARTS="often")
    assert "RESTARTS=often" in process.communicate(timeout=200)[1] and process.returncode == 2
