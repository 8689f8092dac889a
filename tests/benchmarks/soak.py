"""A soak: one training left alone, and beside it the same training, which is killed, told to stop, loses workers and
finds checkpoints damaged, at random moments; both on scenes with broken pictures and a cut tar among them, both
evaluated on the way. In the end both must be the same bit for bit, and nothing may have grown or been left behind.
Prints a markdown table and ends with code 1 if a line of it does not hold.

    python tests/benchmarks/soak.py --minutes=30 [--config=configs/scenes.py] [--folder=runs/soak] [--seed=0]

In the middle third of its time the disturbed training keeps its process, so that what grows can be seen to grow. Linux
only, as it reads /proc.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import RunAgain
from groupvit_jax.training import checkpoint, speed

PROGRAM = [sys.executable, "-c", "from groupvit_jax.cli.main import main; main()"]
ROOT = pathlib.Path(__file__).parent.parent.parent
SAMPLE = 1.0  # seconds between two looks at the processes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--config", default="configs/scenes.py")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("runs/soak"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    soak = Soak(asked.folder.absolute(), str(pathlib.Path(asked.config).absolute()))
    soak.make_data()
    steps = soak.calibrate(asked.minutes)
    flags = (f"--config.train.steps={steps}", f"--config.checkpoint.every={max(steps // 50, 2)}",
             f"--config.eval.every={max(steps // 8, 2)}")
    alone = soak.start("alone", *flags)
    disturbed = Disturbed(soak, flags, asked.minutes * 60, random.Random(asked.seed))
    of_alone = Life(alone)
    while alone.poll() is None or not disturbed.done:
        of_alone.look()
        disturbed.look()
        time.sleep(SAMPLE)
    rows = [*soak.compare(steps), *of_alone.growth("the training left alone"),
            *disturbed.longest().growth("the longest life of the other"), *soak.left_behind(disturbed)]
    print(f"\n{steps} steps; {disturbed.said()}\n\n| what | found | |\n|---|---|---|")
    for what, found, holds in rows:
        print(f"| {what} | {found} | {'holds' if holds else 'FAILS'} |")
    sys.exit(not all(holds for *_, holds in rows))


class Soak:
    """The folder of a soak, its data and the trainings in it."""

    def __init__(self, folder: pathlib.Path, config: str):
        self.folder, self.config = folder, config
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "tmp").mkdir(parents=True)
        self.shared_memory = set(os.listdir("/dev/shm"))
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "TMPDIR": str(folder / "tmp"),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "SOAK": str(folder)}

    def make_data(self) -> None:
        """2,000 scenes; a tar with 20 pictures that are none, and a copy of another that is cut off."""
        subprocess.run([*PROGRAM, "data", "scenes", f"--output={self.folder}/scenes", "--train=2000", "--val=40"],
                       cwd=ROOT, env=self.environment, check=True)
        train = self.folder / "scenes"
        write_tar(train / "train-broken.tar", [part for i in range(20) for part in (
            (f"{i:03}.jpg", b"\xff\xd8\xff none"), (f"{i:03}.txt", b"a kite"))])
        whole = next(train.glob("train-0*.tar")).read_bytes()
        (train / "train-cut.tar").write_bytes(whole[: len(whole) // 3])

    def start(self, workdir: str, *flags: str) -> subprocess.Popen:
        with (self.folder / f"{workdir}.log").open("a") as log:
            return subprocess.Popen(
                [*PROGRAM, "train", f"--config={self.config}", f"--workdir={self.folder / workdir}",
                 f"--config.data.train[0].path={self.folder}/scenes/train-*.tar", "--config.data.workers=1",
                 f"--config.eval.data_root={self.folder}/scenes", "--config.data.max_bad=0.5",
                 "--config.data.worker_restarts=100", "--config.train.log_every=1", *flags],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def calibrate(self, minutes: float) -> int:
        """Steps that last for so long, with another training beside and with all that happens on the way."""
        first = self.start("calibration", "--config.train.steps=30", "--config.train.warmup_steps=1",
                           "--config.eval.every=30")
        assert first.wait() == 0, f"see {self.folder}/calibration.log"
        rows = self.rows("calibration")
        batch = checkpoint.load(str(self.folder / "calibration")).config.data.batch
        rate = statistics.median(row["images_per_second"] for row in rows if "images_per_second" in row) / batch
        return max(100, int(0.3 * rate * 60 * minutes))

    def rows(self, workdir: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / workdir / "metrics.jsonl").read_text().splitlines()]

    def compare(self, steps: int):
        """The two trainings' losses, scores and weights."""
        for name in ("loss", "scenes/mIoU"):
            ours, theirs = ([(r["step"], r[name]) for r in self.rows(w) if name in r] for w in ("disturbed", "alone"))
            yield f"{name}, all {len(theirs)} rows", "equal" if ours == theirs else "different", ours == theirs
        ours, theirs = (checkpoint.load(str(self.folder / w)) for w in ("disturbed", "alone"))
        same = ours.step == theirs.step == steps and all(
            np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves(x.variables) for x in (ours, theirs)), strict=True))
        yield "weights at the end", "bit-equal" if same else "different", same
        loss = [r["loss"] for r in self.rows("alone") if "loss" in r]
        yield "loss, first and last", f"{loss[0]:.3f}, {loss[-1]:.3f}", loss[-1] < loss[0]

    def left_behind(self, disturbed: "Disturbed"):
        """What is there that should not be."""
        files = [p for w in ("disturbed", "alone") for p in (self.folder / w).rglob("*")
                 if "orbax-checkpoint-tmp" in p.name or p.name.endswith(".part")]
        yield "half-written files", len(files), not files
        aside = len(list((self.folder / "disturbed/checkpoints").glob("*.damaged")))
        yield "checkpoints set aside, of those damaged", f"{aside} of {disturbed.counts['damage']}", (
            aside <= disturbed.counts["damage"])
        temporary = list((self.folder / "tmp").iterdir())
        yield "temporary files", len(temporary), not temporary
        shared = set(os.listdir("/dev/shm")) - self.shared_memory
        yield "blocks of shared memory", len(shared), not shared
        running = [pid for pid in processes() if environment_of(pid).get("SOAK") == str(self.folder)]
        yield "processes", len(running), not running
        yield "zombies seen for long", disturbed.zombies, not disturbed.zombies


class Life:
    """What a training's process uses, looked at now and then."""

    def __init__(self, process: subprocess.Popen):
        self.process, self.resident, self.files = process, [], []

    def look(self) -> None:
        pid = self.process.pid
        try:
            resident, files = speed.resident_bytes(pid), len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return  # it has just ended
        if resident:
            self.resident.append(resident)
            self.files.append(files)

    def growth(self, whose: str):
        """From the second fifth of the looks, when all is compiled and was evaluated once, to the last. Nothing is said
        of less than five minutes, most of which are starting and compiling."""
        minutes = len(self.files) * SAMPLE / 60
        if minutes < 5:
            return
        for what, values in (("resident MiB", [x >> 20 for x in self.resident]), ("open files", self.files)):
            n = len(values) // 5
            early, late = (int(statistics.median(part)) for part in (values[n : 2 * n + 1], values[-n - 1 :]))
            yield f"{what} of {whose} ({minutes:.1f} min, median)", f"{early:,} -> {late:,}", late <= 1.1 * early + 5


class Disturbed:
    """The training that things happen to."""

    def __init__(self, soak: Soak, flags: tuple[str, ...], seconds: float, rng: random.Random):
        self.soak, self.flags, self.seconds, self.rng = soak, flags, seconds, rng
        self.began, self.counts, self.done = time.monotonic(), collections.Counter(), False
        self.lives, self.zombies, self.suspects = [], 0, collections.Counter()
        self.live()

    def live(self) -> None:
        self.lives.append(Life(self.soak.start("disturbed", *self.flags)))
        self.next = time.monotonic() + self.seconds * self.rng.uniform(0.01, 0.05)

    def look(self) -> None:
        """Once a second: something may be due, or the training has ended."""
        life, now = self.lives[-1], time.monotonic()
        code = life.process.poll()
        if code is None:
            life.look()
            self.look_for_zombies(life.process.pid)
            if now > self.next and now - self.began < self.seconds:
                self.disturb(life.process, within=(now - self.began) / self.seconds)
                self.next = now + self.seconds * self.rng.uniform(0.01, 0.05)
        elif code == 0:
            self.done = True
        else:
            if code not in (-signal.SIGKILL, -signal.SIGTERM, RunAgain.code):  # the second: told before it began
                sys.exit(f"the disturbed training ended with code {code}: see {self.soak.folder}/disturbed.log")
            self.live()

    def disturb(self, process: subprocess.Popen, within: float) -> None:
        """within: which part of the time is over."""
        what = self.rng.choice(["worker"] if 1 / 3 < within < 2 / 3 else ["kill", "kill", "stop", "worker", "damage"])
        if what == "worker":
            workers = [pid for pid in processes() if parent_of(pid) == process.pid and "spawn_main" in command_of(pid)]
            if not workers:
                return
            os.kill(self.rng.choice(workers), signal.SIGKILL)
        else:
            process.send_signal(signal.SIGTERM if what == "stop" else signal.SIGKILL)
        self.counts[what] += 1
        if what == "damage":
            process.wait()
            directory = self.soak.folder / "disturbed/checkpoints"
            steps = checkpoint.steps_in(directory)
            if len(steps) > 1:
                file = self.rng.choice(sorted(p for p in (directory / str(steps[-1])).rglob("d/*") if p.stat().st_size))
                data = bytearray(file.read_bytes())
                data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
                file.write_bytes(data)
            else:
                self.counts.subtract({"damage": 1, "kill": -1})

    def look_for_zombies(self, pid: int) -> None:
        """Children that have ended and that nobody has asked for ten looks long."""
        dead = [child for child in processes() if parent_of(child) == pid and state_of(child) == "Z"]
        self.suspects = collections.Counter({child: self.suspects[child] + 1 for child in dead})
        self.zombies = max(self.zombies, sum(count >= 10 for count in self.suspects.values()))

    def longest(self) -> Life:
        return max(self.lives, key=lambda life: len(life.files))

    def said(self) -> str:
        names = {"kill": "killed", "stop": "told to stop", "damage": "killed and its newest checkpoint damaged",
                 "worker": "robbed of its worker"}
        happened = ", ".join(f"{self.counts[key]} times {name}" for key, name in names.items())
        return f"{happened}; {(time.monotonic() - self.began) / 60:.0f} minutes"


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_of(pid: int) -> list[str]:
    """State, parent and so on; empty where there is no such process any more."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    return (stat_of(pid) or [""])[0]


def parent_of(pid: int) -> int:
    return int((stat_of(pid) or ["", "0"])[1])


def command_of(pid: int) -> str:
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def environment_of(pid: int) -> dict[str, str]:
    try:
        pairs = pathlib.Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    except OSError:
        return {}


if __name__ == "__main__":
    main()
