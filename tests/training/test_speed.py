"""Rates and waiting, on a clock that stands until it is set and steps that end when a test says so."""

import multiprocessing
import time
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest

from groupvit_jax.training import speed


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(speed.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(speed, "done_at", lambda step: step.result(timeout=60))
    clock = SimpleNamespace(now=100.0)
    return clock


class Loop:
    """A loop of steps of 8 images and 4e12 operations on 4 devices; times are seconds after the start."""

    def __init__(self, clock, kind="cpu"):
        devices = np.array([SimpleNamespace(device_kind=kind)] * 4)
        self.clock, self.arrival = clock, 0
        self.pace = speed.Speed(8, 4e12, SimpleNamespace(size=4, devices=devices))
        self.stream = self.pace.batches(self._batches())

    def _batches(self):
        while True:
            self.clock.now = 100.0 + self.arrival
            yield

    def fetch(self, arrival):
        """Asks now for the next batch, which is there at `arrival`."""
        self.arrival = arrival
        next(self.stream)

    def run(self):
        """Dispatches a step -> what ends it, given a time."""
        ended = Future()
        self.pace.ran(ended)
        return lambda done: (ended.set_result(100.0 + done), self.pace.wait())

    def step(self, batch, done):
        """A batch that is there at `batch`, a step that is done at `done` and waited for."""
        self.fetch(batch)
        self.run()(done)
        self.clock.now = 100.0 + done


def test_rates_are_of_the_steps_between_two_cuts_from_end_to_end(clock):
    loop = Loop(clock)
    for n in range(1, 6):
        loop.step(batch=2 * n - 1, done=2 * n)
    first = loop.pace.cut()
    loop.step(batch=10, done=20)
    second = loop.pace.cut()
    assert first()["images_per_second"] == 4 and second()["images_per_second"] == 0.8  # 4 steps in 8 s, 1 in 10 s
    assert first()["images_per_second_per_chip"] == 1 and first()["tflops_per_chip"] == 0.5


def test_the_first_step_which_compiles_gives_no_rate(clock):
    loop = Loop(clock)
    loop.step(batch=1, done=500)
    assert "images_per_second" not in loop.pace.cut()()
    loop.step(batch=501, done=502)
    assert loop.pace.cut()()["images_per_second"] == 4


def test_what_lies_before_a_restart_is_not_counted(clock):
    loop = Loop(clock)
    loop.step(batch=1, done=2)
    clock.now += 500
    loop.pace.restart()
    loop.step(batch=503, done=506)
    assert loop.pace.cut()()["images_per_second"] == 2


def test_time_between_the_end_of_a_step_and_the_next_batch_is_waiting(clock):
    loop = Loop(clock)
    loop.step(batch=0, done=10)
    loop.step(batch=12, done=20)
    loop.step(batch=20, done=30)
    assert loop.pace.cut()()["input_wait"] == pytest.approx(100 * 2 / 20)


def test_time_in_which_a_step_still_ran_is_not(clock):
    loop = Loop(clock)
    loop.step(batch=0, done=10)
    loop.fetch(11)
    end = loop.run()
    loop.fetch(15)
    end(16)
    loop.run()(20)
    assert loop.pace.cut()()["input_wait"] == pytest.approx(100 * 1 / 10)  # from 10 to 11


def test_a_wait_after_the_last_step_of_a_row_counts_for_the_next_row(clock):
    loop = Loop(clock)
    loop.step(batch=0, done=10)
    loop.step(batch=10, done=20)
    row = loop.pace.cut()
    loop.step(batch=25, done=30)
    assert row()["input_wait"] == 0 and loop.pace.cut()()["input_wait"] == pytest.approx(50)


@pytest.mark.parametrize("kind, peak", [("TPU v5 lite", 197), ("NVIDIA H100 80GB HBM3", 989)])
def test_a_known_chip_gives_the_share_of_its_peak_in_percent(clock, kind, peak):
    loop = Loop(clock, kind)
    loop.step(batch=0, done=1)
    loop.step(batch=1, done=1.02)
    values = loop.pace.cut()()
    assert values["tflops_per_chip"] == pytest.approx(50) and values["peak_share"] == pytest.approx(100 * 50 / peak)
    assert speed.note(values).startswith(f"{100 * 50 / peak:.0f} % of peak  input wait 0 %")


def test_an_unknown_chip_has_no_peak(clock):
    loop = Loop(clock)
    loop.step(batch=0, done=1)
    loop.step(batch=1, done=2)
    values = loop.pace.cut()()
    assert "peak_share" not in values and speed.note(values).startswith("1 TFLOP/s a chip")


def test_a_step_that_fails_fails_the_loop_at_the_next(clock):
    loop = Loop(clock)
    next(loop.stream)
    failed = Future()
    loop.pace.ran(failed)
    failed.set_exception(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.pace.ran(Future())


def test_memory_of_devices_is_that_of_the_fullest(monkeypatch):
    stats = [{"bytes_in_use": n * speed.GIB, "peak_bytes_in_use": 2 * n * speed.GIB} for n in (1, 3, 2)]
    devices = [SimpleNamespace(memory_stats=lambda one=one: one) for one in stats]
    monkeypatch.setattr(speed.jax, "local_devices", lambda: devices)
    found = speed.memory()
    assert (found["device_memory_gib"], found["device_memory_peak_gib"]) == (3, 6)


def hold(pipe):
    held = np.ones(300 << 20, np.uint8)
    pipe.send(len(held))
    time.sleep(60)


@pytest.mark.skipif(not speed.resident_bytes(1), reason="no /proc here")
def test_memory_of_the_host_includes_worker_processes():
    before = speed.memory()["host_memory_gib"]
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=hold, args=(theirs,))
    worker.start()
    try:
        assert ours.recv()
        assert speed.memory()["host_memory_gib"] - before > 0.25
    finally:
        worker.kill()
        worker.join()


def test_every_value_has_its_name_in_the_list(clock):
    loop = Loop(clock, "TPU v4")
    loop.step(batch=0, done=1)
    loop.step(batch=1, done=2)
    assert loop.pace.cut()().keys() <= set(speed.NAMES)
