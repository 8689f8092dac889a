import json
import struct
import sys
import time

import pytest

from groupvit_jax import writer
from groupvit_jax.errors import InputError


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until `clock.now` is set."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(writer.time, "monotonic", lambda: Clock.now)
    return Clock


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_the_first_and_the_last_line_and_one_every_few_seconds(clock, capsys):
    with writer.Progress("scenes", 100, "scenes") as progress:
        for _ in range(100):
            clock.now += 0.2
            progress.advance()
    shown = lines(capsys)
    assert shown[0].startswith("scenes 1/100") and shown[-1].startswith("scenes 100/100")
    assert len(shown) == 5  # twenty seconds


def test_a_line_has_count_rate_time_left_and_the_note(clock, capsys):
    with writer.Progress("step", 1000, "images", scale=32) as progress:
        clock.now += 10
        progress.advance(100, "loss 1.5")
        assert lines(capsys) == ["step 100/1000  320 images/s  1:30 left  loss 1.5"]
        assert progress.rate() == pytest.approx(320)
        clock.now += 90
        progress.advance(900)
    assert lines(capsys) == ["step 1000/1000  320 images/s  1:40 in all  loss 1.5"]


def test_what_was_done_before_moves_the_position_and_not_the_rate(clock, capsys):
    with writer.Progress("step", 1000, start=900) as progress:
        clock.now += 10
        progress.advance(20)
        assert lines(capsys) == ["step 920/1000  2.0 it/s  0:40 left"]


def test_the_rate_forgets_a_slow_beginning(clock):
    progress = writer.Progress("step", 10_000)
    clock.now += 300
    progress.advance()
    for _ in range(100):
        clock.now += 1
        progress.advance(5)
    assert progress.rate() == pytest.approx(5)


def test_an_error_is_not_followed_by_a_last_line(clock, capsys):
    with pytest.raises(ValueError), writer.Progress("scenes", 10):
        raise ValueError
    assert lines(capsys) == []


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (65.4, "1:05"), (59.7, "1:00"), (3600, "1:00:00")])
def test_clock(seconds, text):
    assert writer.clock(seconds) == text


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def write(workdir, steps, resumed=0):
    metrics = writer.MetricWriter(str(workdir), resumed)
    for step in steps:
        metrics.write(step, {"loss": step / 2})
    metrics.close()


def test_rows_are_on_disk_at_once(tmp_path):
    metrics = writer.MetricWriter(str(tmp_path))
    metrics.write(3, {"loss": 1.0, "voc/mIoU": 52.3})
    assert rows(tmp_path) == [{"step": 3, "loss": 1.0, "voc/mIoU": 52.3}]
    metrics.close()


def test_a_resumed_run_drops_the_rows_after_its_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], resumed=2)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_last_line_that_was_cut_harms_no_other(tmp_path, cut):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    write(tmp_path, [3], resumed=2)
    assert [row["step"] for row in rows(tmp_path)] == ([1, 2, 3] if cut == 1 else [1, 3])


def test_a_full_disk_is_one_line_with_the_remedy(tmp_path):
    metrics = writer.MetricWriter(str(tmp_path))
    metrics.file.close()
    metrics.file = open("/dev/full", "ab", buffering=0)
    with pytest.raises(InputError, match=r"metrics.jsonl \(No space left on device\): make room"):
        metrics.write(1, {"loss": 1.0})
    metrics.close()


def test_tensorboard_reads_the_same_scalars(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    write(tmp_path, [1, 2])
    (file,) = tmp_path.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:  # a record: length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    assert found == [(1, "loss", 0.5), (2, "loss", 1.0)]


def test_waiting_says_for_how_long(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with writer.waiting("compiling for v5e:2x2", every=0.02):
        time.sleep(0.2)
    shown = lines(capsys)
    assert len(shown) > 1 and set(shown) == {"compiling for v5e:2x2, 0:00"}
