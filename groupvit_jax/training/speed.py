"""How fast training goes between two rows of the log: rates, share of the devices' peak, waiting for data, memory.

Steps are dispatched and not waited for: while one runs, the loop brings the next batch to the devices. So a clock
around a step says nothing, and a thread waits for each step's results to note when they came.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from groupvit_jax import chips

NAMES = (  # of the values in a row of the log, where there is something to say
    "images_per_second",
    "images_per_second_per_chip",
    "tflops_per_chip",  # of the model, forward and backward, whatever is computed twice: 1e12 a second
    "peak_share",  # of the chip's published peak, percent ("MFU"); for chips that `chips` knows
    "input_wait",  # of the time, percent: devices had finished, and this process's next batch was not there
    "device_memory_gib", "device_memory_peak_gib",  # of this process's fullest device, where the backend tells
    "host_memory_gib",  # resident, of this process and its workers together (what they share counts for each)
)  # fmt: skip
GIB = 2**30


class Speed:
    """Times the steps of a run; a chip is a JAX device.

    The loop takes its batches by `batches`, calls `ran` when it has dispatched a step, and `cut` where a row of the log
    ends. The first step, which compiles, is not counted, nor is what lies before a `restart`.

    images, flops: of a step, over all devices of the mesh; flops of the model, forward and backward.
    """

    def __init__(self, images: int, flops: float, mesh: jax.sharding.Mesh):
        self.images, self.flops, self.chips = images, flops, mesh.size
        self.chip = chips.find(mesh.devices.flat[0].device_kind)
        self.watcher = ThreadPoolExecutor(1, "steps")
        self.running: Future[float] | None = None  # when the last step was done
        self.begin: Future[float] | None = None  # of the window
        self.steps, self.waited = 0, 0.0  # of the window

    def batches(self, stream: Iterable[Any]) -> Iterator[Any]:
        """The same batches; counts the time in which devices were done and the next one was not there."""
        asked = time.monotonic()
        for batch in stream:
            if self.running and self.running.done():
                self.waited += time.monotonic() - max(asked, self.running.result())
            yield batch
            asked = time.monotonic()

    def ran(self, metrics: Any) -> None:
        """A step was dispatched, and gives these arrays. Waits for the step before it: no more than one is under way
        while another is waited for, as many collectives at once would block each other on CPUs."""
        self.wait()
        self.running = self.watcher.submit(done_at, metrics)
        if self.begin is None:
            self.begin, self.waited = self.running, 0.0
        else:
            self.steps += 1

    def wait(self) -> None:
        """Until the last step is done; raises what it raised."""
        if self.running:
            self.running.result()

    def cut(self) -> Callable[[], dict[str, float]]:
        """The window ends with the step that was dispatched last, and another begins -> what gives the values of the
        one that ended, when that step is done."""
        begin, end, steps, waited = self.begin, self.running, self.steps, self.waited
        self.begin, self.steps, self.waited = end, 0, 0.0
        if not steps or begin is None or end is None:
            return memory
        return lambda: self.rates(steps, end.result() - begin.result(), waited) | memory()

    def restart(self) -> None:
        """The window begins now: what was done just before, as an evaluation, was no training."""
        self.begin, self.steps, self.waited = Future(), 0, 0.0
        self.begin.set_result(time.monotonic())

    def rates(self, steps: int, seconds: float, waited: float) -> dict[str, float]:
        """Of so many steps in so long, the devices waiting for so much of it; the first five of NAMES."""
        seconds = max(seconds, 1e-9)
        images, flops = steps * self.images / seconds, steps * self.flops / seconds / self.chips
        values = {"images_per_second": images, "images_per_second_per_chip": images / self.chips,
                  "tflops_per_chip": flops / 1e12, "input_wait": 100 * waited / seconds}
        return values | ({"peak_share": 100 * flops / self.chip.peak_flops} if self.chip else {})

    def close(self) -> None:
        self.watcher.shutdown(wait=False, cancel_futures=True)


def done_at(arrays: Any) -> float:
    jax.block_until_ready(arrays)
    return time.monotonic()


def memory() -> dict[str, float]:
    """Of devices and host, now; the last three of NAMES, those that can be had here."""
    stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    found = {name: max(one.get(key, 0) for one in stats) / GIB for name, key in (
        ("device_memory_gib", "bytes_in_use"), ("device_memory_peak_gib", "peak_bytes_in_use")) if stats}
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
    resident = sum(map(resident_bytes, processes))
    return found | ({"host_memory_gib": resident / GIB} if resident else {})


def resident_bytes(process: int) -> int:
    """0 where that is not known, as outside Linux, or of a process that has just ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def note(values: dict[str, float]) -> str:
    """What of a row belongs on the progress line, beside the rate."""
    words = []
    if "peak_share" in values:
        words.append(f"{values['peak_share']:.0f} % of peak")
    elif "tflops_per_chip" in values:
        words.append(f"{values['tflops_per_chip']:.2g} TFLOP/s a chip")
    if "input_wait" in values:
        words.append(f"input wait {values['input_wait']:.0f} %")
    if "device_memory_peak_gib" in values:
        words.append(f"{values['device_memory_peak_gib']:.1f} GiB")
    return "  ".join(words)
