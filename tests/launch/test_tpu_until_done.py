"""launch/tpu.sh run --until-done, against a cloud of two folders."""

import pytest

FLAGS = ("run", "--until-done", "--poll=0", "--pause=0", "--type=v4-16", "--spot", "--config=configs/tiny.py")


def verbs(bench) -> list[str]:
    """What was asked of gcloud, without looking."""
    calls = [call.split() for call in bench.calls() if call.startswith("gcloud")]
    asked = [call[4] if call[4] != "ssh" else call[9].rstrip("\\") for call in calls]
    return [verb for verb in asked if verb in ("create", "delete", "setup", "start")]


def watch(bench, *flags):
    return bench.tpu(*FLAGS, f"--workdir={bench.workdir}", *flags)


def happens(bench, trainings: int, change: str) -> None:
    """A shell command that runs once, when gcloud looks at the slice after w-1 has started so many trainings."""
    gcloud = bench.folder / "bin/gcloud"
    first, rest = gcloud.read_text().split("\n", 1)
    happened = f"$BENCH/happened-{trainings}"
    gcloud.write_text(f"""{first}
trained=$(cat "$BENCH/slice/w-1/trainings" 2>/dev/null | wc -l)
if [ "$4" = describe ] && [ ! -e {happened} ] && [ "$trained" = {trainings} ]; then
  touch {happened}; {change}
fi
{rest}""")


def hold(bench) -> None:
    """The trainings of this slice do not end by themselves."""
    for home in bench.folder.glob("slice/*"):
        (home / "hold").touch()


def test_it_creates_sets_up_runs_and_ends(bench):
    done = watch(bench)
    assert done.code == 0, done.err
    assert verbs(bench) == ["create", "setup", "start"]
    assert bench.trainings(bench.folder / "slice/w-1") == bench.trainings() and len(bench.trainings()) == 1


@pytest.mark.parametrize("state", ["PREEMPTED", "TERMINATED"])
def test_a_slice_that_was_preempted_is_replaced_and_the_training_goes_on(bench, state):
    hold(bench.set_up())
    happens(bench, 1, f'echo {state} > "$BENCH/state"; kill -KILL -- "-$(cat "$BENCH"/slice/w-0/groupvit/pid)" '
                      '"-$(cat "$BENCH"/slice/w-1/groupvit/pid)"')
    done = watch(bench)
    assert done.code == 0, done.err
    assert verbs(bench)[2:] == ["setup", "start", "delete", "create", "setup", "start"]


def test_a_worker_that_was_rebooted_is_started_again_beside_the_others(bench):
    hold(bench.set_up())
    happens(bench, 1, 'kill -KILL -- "-$(cat "$BENCH"/slice/w-1/groupvit/pid)"')
    happens(bench, 2, 'rm "$BENCH"/slice/*/hold')
    done = watch(bench)
    assert done.code == 0, done.err
    assert verbs(bench)[2:] == ["setup", "start", "start"]
    assert len(bench.trainings()) == 1 and len(bench.trainings(bench.folder / "slice/w-1")) == 2


def test_wrong_input_ends_it(bench):
    bench.set_up()
    (bench.home / "codes").write_text("2\n")
    done = watch(bench)
    assert done.code == 2 and "groupvit: a worker refused its input" in done.err
    assert verbs(bench)[2:] == ["setup", "start"]


def test_what_the_workers_refuse_to_start_ends_it(bench):
    bench.set_up()
    (bench.checkout / "configs/tiny.py").unlink()
    done = watch(bench)
    assert done.code == 2 and "no configs/tiny.py" in done.err and verbs(bench)[2:] == ["setup", "start"]


def test_workers_that_cannot_be_reached_are_tried_again(bench):
    bench.set_up()
    bench.answer("scp", "255 no route", "255 no route", "0")
    assert watch(bench).code == 0
    assert verbs(bench)[2:] == ["setup", "start"]


def test_what_fails_each_time_ends_it(bench):
    for home in bench.set_up().folder.glob("slice/*"):
        (home / "codes").write_text("1\n" * 9)
    done = watch(bench, "--attempts=2")
    assert done.code == 2 and "fails whenever it starts" in done.err


def test_capacity_is_waited_for(bench):
    bench.answer("create", "1 RESOURCE_EXHAUSTED: no capacity", "0")
    assert watch(bench).code == 0
    assert verbs(bench) == ["create", "create", "setup", "start"]


def test_a_refusal_that_time_does_not_heal_ends_it(bench):
    bench.answer("create", "1 PERMISSION_DENIED: tpu.nodes.create")
    done = watch(bench)
    assert done.code == 2 and "PERMISSION_DENIED" in done.err and verbs(bench) == ["create"]


def test_a_slice_of_which_gcloud_cannot_tell_is_left_alone(bench):
    bench.set_up()
    bench.answer("describe", "1 connection reset", "1 connection reset", "0 READY")
    assert watch(bench).code == 0
    assert verbs(bench)[2:] == ["setup", "start"]


def test_a_queued_resource_is_waited_for_and_replaced_when_it_is_suspended(bench):
    bench.answer("describe", "1 NOT_FOUND: pod", "0 WAITING_FOR_RESOURCES", "0 SUSPENDED", "0 PROVISIONING", "0 ACTIVE")
    assert watch(bench, "--queued").code == 0
    assert verbs(bench) == ["create", "delete", "create", "setup", "start"]
    assert all("queued-resources" in call for call in bench.calls() if " create " in call or " delete " in call)
