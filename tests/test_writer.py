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


def sent(file):
    """The records of a .wandb file, which is a LevelDB log: after 7 bytes blocks of 32 kB, in them pieces of records,
    each with checksum, size and kind (1 whole, 2 first, 3 middle, 4 last)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, begun = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        begun += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):
            yield Record.FromString(begun)
            begun = b""


def of_history(record):
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}


def test_weights_and_biases_gets_the_same_rows_and_a_resumed_run_goes_on_in_its_run(tmp_path, monkeypatch):
    """Really, without a network."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for resumed, steps in ((0, (1, 2)), (1, (2, 3))):
        run = writer.open_wandb("segments", "abc123", str(tmp_path), {"optim": {"lr": 0.5}})
        metrics = writer.MetricWriter(str(tmp_path), resumed, run)
        for step in steps:
            metrics.write(step, {"loss": step / 2, "scenes/mIoU": 10.0 * step})
        metrics.close()
    wandb.teardown()  # its files are whole only when its own process has ended
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-abc123.wandb"), key=lambda file: file.stat().st_mtime)
    records = [list(sent(file)) for file in files]
    found = [[of_history(record) for record in one if record.HasField("history")] for one in records]
    shown = [[(row["step"], row["loss"], row["scenes/mIoU"]) for row in one] for one in found]
    assert shown == [[(1, 0.5, 10.0), (2, 1.0, 20.0)], [(2, 1.0, 20.0), (3, 1.5, 30.0)]]
    for one in records:
        (about,) = [record.run for record in one if record.HasField("run")]
        assert (about.run_id, about.project) == ("abc123", "segments")
        assert json.loads({item.key: item.value_json for item in about.config.update}["optim"]) == {"lr": 0.5}


def test_a_service_that_cannot_be_reached_is_a_warning_and_the_rows_wait(tmp_path, monkeypatch, caplog):
    wandb = pytest.importorskip("wandb")
    for name, value in (("BASE_URL", "http://127.0.0.1:9"), ("API_KEY", "0" * 40), ("INIT_TIMEOUT", "2")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    metrics = writer.MetricWriter(str(tmp_path), 0, writer.open_wandb("segments", "abc124", str(tmp_path), {}))
    metrics.write(1, {"loss": 0.5})
    metrics.close()
    wandb.teardown()
    assert "Weights & Biases cannot be reached" in caplog.text and "wandb sync" in caplog.text
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-abc124.wandb")
    assert [of_history(record)["loss"] for record in sent(file) if record.HasField("history")] == [0.5]


def test_nobody_logged_in_to_weights_and_biases_is_an_input_error(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="config.train.wandb='segments': .*wandb login.* or set WANDB_MODE=offline"):
        writer.open_wandb("segments", "abc125", str(tmp_path), {})
    wandb.teardown()


def test_no_project_is_no_weights_and_biases(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not to be had
    writer.check_wandb("")
    assert writer.open_wandb("", "abc123", "nowhere", {}) is None
    with pytest.raises(InputError, match="config.train.wandb='segments' needs .*pip install"):
        writer.check_wandb("segments")


def test_a_folder_that_weights_and_biases_left_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError, match="pip install"):
        writer.check_wandb("segments")


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


def test_waiting_says_for_how_long(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with writer.waiting("compiling for v5e:2x2", every=0.02):
        time.sleep(0.5)
    shown = lines(capsys)
    assert len(shown) > 1 and set(shown) == {"compiling for v5e:2x2, 0:00"}
