"""Hangs and lost hosts: a run in which nothing moves ends, so that it can be started again.

A thread of each process counts its own ticks, and no clock: a process that was stopped, as a suspended machine is,
finds on waking that little has passed. The processes of a run tell each other what they do by files in WORKDIR/hosts,
one each, which its process alone writes, and removes when it ends well.
"""

import contextlib
import faulthandler
import json
import os
import pathlib
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax

from groupvit_jax import files, parallel, writer
from groupvit_jax.errors import InputError, RunAgain

TICK = 1.0  # seconds
LEAST = 5.0  # seconds of a timeout
LEARN = 2.0  # seconds in which one that lost another looks for its last words; below what cli.hosts.wait_in_abort gives
LOST = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "by peer", "Socket closed", "unhealthy", "heartbeat")


class Hosts:
    """What the processes of one start of a run tell each other; an OSError only means to try again later.

    run: names this start, so that what an earlier one left says nothing. told[i]: what process i said last, {} if
    nothing yet, None if it ended well; still[i]: for how many looks that has not changed.
    """

    def __init__(self, folder: pathlib.Path, run: str, process: int, processes: int) -> None:
        self.folder, self.run, self.process, self.beat = folder, run, process, 0
        self.others = [i for i in range(processes) if i != process]
        self.told: dict[int, dict | None] = {i: {} for i in self.others}
        self.still = dict.fromkeys(self.others, 0)
        self.over, self.lock = False, threading.Lock()

    def path(self, process: int) -> pathlib.Path:
        return self.folder / f"process-{process}.json"

    def tell(self, **what: Any) -> None:
        """Writes this process's file; `what` is "doing", or "ended" and "message", after which nothing is said."""
        with self.lock, contextlib.suppress(OSError, InputError):
            if self.over:
                return
            self.over, self.beat = "ended" in what, self.beat + 1
            files.write(self.path(self.process), json.dumps({"run": self.run, "beat": self.beat, **what}).encode())

    def look(self) -> None:
        """Reads the others' files."""
        for i in self.others:
            try:
                said = json.loads(self.path(i).read_bytes())
            except FileNotFoundError:
                said = None if self.told[i] != {} else {}
            except (OSError, ValueError):
                said = self.told[i]
            if said is not None and said.get("run") != self.run:
                said = self.told[i]
            self.still[i] = self.still[i] + 1 if said == self.told[i] else 0
            self.told[i] = said

    def silent(self, looks: int) -> dict[int, dict]:
        """What those said last that have said nothing new for so many looks."""
        return {i: said for i, said in self.told.items()
                if said is not None and "ended" not in said and self.still[i] >= looks}

    def failed(self) -> tuple[int, str] | None:
        """The code and the line with which to follow one that ended with an error, if one did."""
        for i, said in self.told.items():
            if said and "ended" in said:
                line = said["message"]
                return said["ended"], line if line.startswith("process ") else f"process {i} ended: {line}"
        return None

    def gone(self, lost: set[int]) -> bool:
        """Whether all others but the lost ones have ended, well or not."""
        return all(said is None or "ended" in said for i, said in self.told.items() if i not in lost)

    def remove(self) -> None:
        """This process's file, and the folder with the last of them; what was left by more processes, too."""
        number = len(self.others) + 1
        left = [path for path in self.folder.glob("process-*.json") if int(path.stem.rpartition("-")[2]) >= number]
        for path in [self.path(self.process), *left]:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class Watch:
    """`with Watch.of_run(...) as watch:` around a run; in it, `watch.doing` says what the process is about to wait for.

    Ends the process with one line, and code 75, when for `timeout` seconds nothing moves here (no `writer.moved`) or
    another process has said nothing; and when another process has ended with an error, with that one's code. With one
    process, there are no files.
    """

    def __init__(self, workdir: str, timeout: float, run: str = "", process: int = 0, processes: int = 1,
                 end: Callable[[int], None] = os._exit) -> None:
        """end: ends the process with a code."""
        if timeout < LEAST:
            raise InputError(f"config.train.hang_timeout={timeout}: give {LEAST:g} seconds or more")
        self.timeout, self.process, self.end_process = timeout, process, end
        self.hosts = Hosts(pathlib.Path(workdir).expanduser() / "hosts", run, process, processes)
        # Many processes on one file system look less often; a few times within the timeout they always do.
        self.every = int(max(1, min(max(5, processes // 8), timeout / TICK // 5)))  # ticks between looks
        self.what = "starting"
        self.compiled: set[str] = set()
        self.ticks, self.moved, self.still = 0, writer.moves(), 0
        self.untimed = 2  # movements to come: the first is made here, while others may compile; at the next, all had it
        self.left: tuple[int, str] | None = None  # the code and the line with which this process ends
        self.following = False
        self.ended, self.ending, self.lock = threading.Event(), threading.Lock(), threading.Lock()
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @classmethod
    def of_run(cls, workdir: str, timeout: float) -> "Watch":
        """Of this process, as JAX numbers it. All processes of a run must call it."""
        run = parallel.first(secrets.randbits(24))  # a float32 holds so many
        return cls(workdir, timeout, f"{run:.0f}", jax.process_index(), jax.process_count())

    def __enter__(self) -> "Watch":
        if self.hosts.others:
            self.hosts.tell(doing=self.what)
        self.thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        self.leaves(kind, error)
        self.ended.set()
        self.thread.join()
        if self.hosts.others and self.left is None:
            self.hosts.remove()

    def doing(self, what: str, compiles: bool = False) -> None:
        """Says what this process waits for from here on. compiles: the first time it may compile, which takes as long
        as it takes, here and elsewhere: nothing is timed until something has moved twice."""
        with self.lock:
            if compiles and what not in self.compiled:
                self.compiled.add(what)
                self.moved, self.untimed = writer.moves(), 2
            self.what = what

    def leaves(self, kind: Any, error: Any, _: Any = None) -> None:
        """For `ExitStack.push` after all that may wait for the others when it is closed: tells them of an error, before
        anything is closed. An error that comes of a lost host ends the process here."""
        if error is None or isinstance(error, RunAgain) or not self.hosts.others or self.left:
            return
        if is_lost(error):
            self.follow()
        code = 2 if isinstance(error, InputError) else RunAgain.code  # for the others
        line = " ".join(str(error).split()) if code == 2 else f"{kind.__name__}: {error}".partition("\n")[0]
        self.left = code, line
        self.hosts.tell(ended=code, message=line)
        self._linger(set())
        error.others_know = True  # for cli.hosts.leave

    def follow(self) -> None:
        """Ends as another process did, or having lost one. All that are left come here, and beat fast: who does not is
        lost."""
        self.following = True  # the thread looks no more
        looks = int(LEARN / TICK * 10)
        for _ in range(looks):
            self.hosts.tell(doing=self.what)
            self.hosts.look()
            if failed := self.hosts.failed():
                self.end(*failed)
            time.sleep(TICK / 10)
        lost = self.hosts.silent(looks // 2)
        self.end(RunAgain.code, f"lost another host: {listed(lost)}" if lost else "lost another host", lost)

    def end(self, code: int, line: str, lost: Iterable[int] = ()) -> None:
        """Prints the line, tells the others (the lost will not hear) and ends the process; once."""
        if not self.ending.acquire(blocking=False):
            time.sleep(1e6)  # another thread is at it
        with contextlib.suppress(OSError):
            remedy = "; the same command goes on from the newest checkpoint" if code == RunAgain.code else ""
            print(f"groupvit: {line}{remedy}", file=sys.stderr, flush=True)
            sys.stdout.flush()
        if self.hosts.others:
            self.hosts.tell(ended=code, message=line)
            self._linger(set(lost))
        self.end_process(code)

    def tick(self) -> None:
        """One look around."""
        self.ticks += 1
        with self.lock:
            moved = writer.moves() - self.moved
            self.moved += moved
            self.untimed = max(0, self.untimed - moved)
            self.still = 0 if moved or self.untimed else self.still + 1
        if self.hosts.others and self.ticks % self.every == 0:
            self.hosts.tell(doing=self.what)
            if not self.left and not self.following:
                self._look()
        grace = 2 * self.every if self.hosts.others else 0  # in which to learn that it is another that is silent
        if self.still * TICK >= self.timeout + grace * TICK:
            self._hangs()

    def _look(self) -> None:
        self.hosts.look()
        if failed := self.hosts.failed():
            self.end(*failed)
        if lost := self.hosts.silent(int(self.timeout / TICK) // self.every):
            self.end(RunAgain.code, listed(lost, f" for {self.timeout:g} s"), lost)

    def _hangs(self) -> None:
        if self.ending.locked():  # the main thread is ending the process, and has said why
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stderr that is no file
            faulthandler.dump_traceback(all_threads=True)
        if self.left:  # closing after an error does not end
            self.end(*self.left)
        others: dict[str, list[str]] = {}
        for i, said in self.hosts.told.items():
            if said and said.get("doing", self.what) != self.what:
                others.setdefault(said["doing"], []).append(str(i))
        elsewhere = "".join(f"; {what}: process {', '.join(which)}" for what, which in others.items())
        self.end(RunAgain.code, f"no progress for {self.still * TICK:.0f} s while {self.what}{elsewhere}; if that only "
                 "takes longer, raise config.train.hang_timeout")

    def _linger(self, lost: set[int]) -> None:
        """Process 0 holds JAX's coordination service, without which the others' JAX aborts: it goes last."""
        for _ in range(20 * (self.every + 3) if self.process == 0 else 0):
            self.hosts.look()
            if self.hosts.gone(lost):
                break
            time.sleep(TICK / 10)

    def _run(self) -> None:
        while not self.ended.wait(TICK):
            self.tick()


def is_lost(error: BaseException | None) -> bool:
    """Whether it is one of JAX's errors that come of a lost host."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error) for word in LOST):
            return True
        error = error.__cause__ or error.__context__
    return False


def listed(silent: dict[int, dict], since: str = "") -> str:
    """{2: {"doing": "waiting for step 3"}} -> "process 2 has been silent (last: waiting for step 3)"."""
    return "; ".join(f"process {i} has been silent{since} (last: {said.get('doing', 'nothing')})"
                     for i, said in silent.items())
