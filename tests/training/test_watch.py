"""The watch, ticked by hand in a folder; real processes are in tests/end_to_end/test_lost_hosts.py."""

import json

import jax
import pytest

from groupvit_jax import writer
from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.training import watch as watches
from groupvit_jax.training.watch import Watch

TIMEOUT = 10  # seconds, and ticks


class Ended(BaseException):
    """In place of the end of the process, which no code comes after."""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """make(process, processes) -> a watch whose thread is not started and whose end is the exception Ended."""
    monkeypatch.setattr(watches, "TICK", 1.0)
    monkeypatch.setattr(watches.time, "sleep", lambda _: None)

    def end(code):
        raise Ended(code)

    def of(process=0, processes=1, run="now"):
        made = Watch(str(tmp_path), TIMEOUT, run, process, processes, end)
        made.hosts.tell(doing="starting")
        return made

    return of


def ended(call, capfd):
    """The code and the last line with which the process ends in call()."""
    with pytest.raises(Ended) as end:
        call()
    return end.value.args[0], capfd.readouterr().err.splitlines()[-1]


def ticks(*given, number=4 * TIMEOUT):
    for _ in range(number):
        for watch in given:
            watch.tick()


def compiled(watch):
    for _ in range(2):
        writer.moved()
        watch.tick()


def test_no_progress_ends_the_process_with_75_what_it_did_and_the_stacks(make, capfd):
    watch = make()
    compiled(watch)
    watch.doing("waiting for a batch")
    with pytest.raises(Ended) as end:
        ticks(watch)
    printed = capfd.readouterr().err
    assert end.value.args[0] == RunAgain.code == 75
    assert printed.splitlines()[-1].startswith(f"groupvit: no progress for {TIMEOUT} s while waiting for a batch; ")
    assert "most recent call first" in printed and "test_watch.py" in printed


def test_nothing_is_said_where_the_main_thread_has_begun_to_end_the_process(make, capfd):
    watch = make()
    compiled(watch)
    with watch.ending:
        ticks(watch)
    assert capfd.readouterr().err == ""


def test_nothing_is_timed_before_the_first_step_is_done(make):
    watch = make()
    ticks(watch)
    writer.moved()  # dispatched: it is compiled here, and may not be elsewhere
    ticks(watch)


def test_the_first_of_what_compiles_is_not_timed_and_the_second_is(make, capfd):
    watch = make()
    compiled(watch)
    watch.doing("evaluating", compiles=True)
    ticks(watch)
    compiled(watch)
    watch.doing("evaluating", compiles=True)
    assert ended(lambda: ticks(watch), capfd)[0] == 75


def test_any_progress_line_that_moves_is_progress(make):
    watch = make()
    with writer.Progress("pictures", 100) as progress:
        for _ in range(5 * TIMEOUT):
            progress.advance(1)
            ticks(watch, number=TIMEOUT - 1)


def test_another_that_stands_still_is_named_with_what_it_did_last(make, capfd):
    ours, theirs = make(0, 2), make(1, 2)
    theirs.doing("waiting for step 37")
    ticks(ours, theirs)
    code, line = ended(lambda: ticks(ours), capfd)
    assert code == 75 and "process 1 has been silent for 10 s (last: waiting for step 37)" in line


def test_one_that_waits_for_a_silent_one_names_it_and_not_itself(make, capfd):
    ours, theirs = make(0, 2), make(1, 2)
    compiled(ours)
    ticks(theirs, number=2)
    assert "process 1 has been silent" in ended(lambda: ticks(ours), capfd)[1]


def test_one_that_hangs_and_still_speaks_is_told_of_by_those_who_wait_for_it(make, capfd):
    ours, *theirs = (make(i, 4) for i in range(4))
    ours.doing("waiting for step 5")
    for other, what in zip(theirs, ("waiting for a batch", "waiting for step 5", "waiting for a batch")):
        other.doing(what)
    compiled(ours)
    ours.process = 1  # lingers not
    _, line = ended(lambda: ticks(ours, *theirs), capfd)
    assert "no progress for" in line and "while waiting for step 5; waiting for a batch: process 1, 3;" in line


def test_files_of_an_earlier_start_are_silence(make, capfd):
    make(1, 2, run="before").hosts.tell(ended=2, message="no such shard")
    code, line = ended(lambda: ticks(make(0, 2)), capfd)
    assert code == 75 and "process 1 has been silent for 10 s (last: nothing)" in line


@pytest.mark.parametrize("error, code, words", [
    (InputError("no space\nfor a checkpoint"), 2, "process 1 ended: no space for a checkpoint"),
    (ZeroDivisionError("by 0"), 75, "process 1 ended: ZeroDivisionError: by 0"),
    (KeyboardInterrupt(), 75, "process 1 ended: KeyboardInterrupt")])
def test_an_error_of_one_ends_the_others(make, capfd, error, code, words):
    ours, theirs = make(0, 2), make(1, 2)
    theirs.leaves(type(error), error)
    ticks(theirs)  # while it closes what it has open, it says no more, and nobody ends it
    ended_with, line = ended(lambda: ticks(ours), capfd)
    assert ended_with == code and line.startswith(f"groupvit: {words}")


def test_one_that_ends_because_of_another_passes_on_who_it_was(make, capfd):
    first, second, third = (make(i, 3) for i in range(3))
    first.leaves(InputError, InputError("no such shard"))
    ended(lambda: ticks(second), capfd)
    (first.hosts.path(0)).unlink()
    assert ended(lambda: ticks(third), capfd) == (2, "groupvit: process 0 ended: no such shard")


def test_an_error_of_jax_that_comes_of_a_lost_host_names_the_host_that_is_gone(make, capfd):
    ours, theirs, _ = (make(i, 3) for i in range(3))
    error = RuntimeError("saving failed")
    error.__cause__ = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    look = ours.hosts.look
    ours.hosts.look = lambda: (theirs.hosts.tell(doing="waiting"), look())
    code, line = ended(lambda: ours.leaves(RuntimeError, error), capfd)
    assert code == 75 and line.startswith("groupvit: lost another host: process 2 has been silent (last: starting);")


def test_an_error_of_jax_that_comes_of_anothers_wrong_input_ends_as_that_does(make, capfd):
    ours, theirs = make(1, 2), make(0, 2)
    theirs.leaves(InputError, InputError("no such shard"))
    error = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    assert ended(lambda: ours.leaves(type(error), error), capfd) == (2, "groupvit: process 0 ended: no such shard")


def test_other_errors_of_jax_are_left_as_they_are(make):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    make(1, 2).leaves(type(error), error)


@pytest.mark.parametrize("error", [None, RunAgain("stopped")])
def test_one_that_ends_well_or_is_told_to_stop_harms_nobody_and_the_folder_goes(make, tmp_path, error):
    ours, theirs = make(0, 2), make(1, 2)
    ticks(ours, theirs, number=5)
    theirs.thread.start()
    theirs.__exit__(type(error), error, None)
    ticks(ours)
    ours.thread.start()
    ours.__exit__(None, None, None)
    assert not (tmp_path / "hosts").exists()


def test_one_process_alone_writes_no_file(tmp_path):
    with Watch(str(tmp_path), TIMEOUT):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_one_process_alone_is_left_as_it_is(make):
    error = jax.errors.JaxRuntimeError("UNAVAILABLE: the device")
    make().leaves(type(error), error)


def test_what_more_processes_left_is_removed_with_the_folder(make, tmp_path):
    make(7, 8, run="before")
    ours = make(0, 2)
    ours.hosts.remove()
    assert not (tmp_path / "hosts").exists()


def test_files_say_what_a_process_does(make):
    ours = make(0, 2)
    ours.doing("saving")
    ticks(ours, number=ours.every)
    assert json.loads(ours.hosts.path(0).read_text()) == {"run": "now", "beat": 2, "doing": "saving"}


def test_a_timeout_too_short_to_look_in_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="hang_timeout=1: give 5 seconds or more"):
        Watch(str(tmp_path), 1)
