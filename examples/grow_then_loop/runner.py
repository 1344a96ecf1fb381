"""Doing the jobs: some at a time, in the order of what they need, each as the command that a person types."""

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs import Job

from loopkit.errors import LoopkitError, UsageError

POLL = 0.1  # seconds between two looks at what is running
LAST_LINES = 12  # of a failed command that are shown
TIMES = "times.jsonl"


@dataclass(frozen=True)
class Running:
    """A job under way since ``began``; what it says goes to ``log``, JSON to ``part``."""

    job: Job
    process: subprocess.Popen[bytes]
    began: float
    log: Path
    part: Path


def lock(out: Path) -> IO[str]:
    """Hold the folder for this process and the commands it starts: the lock lasts until the last of them has ended.

    Raises UsageError where others hold it, such as commands that outlived the process that had started them.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = (out / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(f"something is still at work in {out}; wait until it has ended, or end it, and give the command again") from None
    return file


class Runner:
    """Does jobs in a folder that is locked by ``held``, ``at_once`` of them at a time."""

    def __init__(self, out: Path, at_once: int, held: IO[str]) -> None:
        self.out, self.at_once, self.held = out, at_once, held
        self.running: list[Running] = []

    def run(self, jobs: Sequence[Job], finished: set[str]) -> bool:
        """Do what is not ``finished``; whether all of it was done. A failed job stops what needs it; Ctrl-C stops all and is raised."""
        waiting, failed = [job for job in jobs if job.name not in finished], False
        total = len(waiting)
        with noting_interrupts() as asked:  # at any other moment than those below, a job that has just begun could be forgotten
            while (waiting or self.running) and not asked:
                ready = [job for job in waiting if finished.issuperset(job.needs)]
                for job in ready[: self.at_once - len(self.running)]:
                    waiting.remove(job)
                    self.running.append(self._start(job))
                if not self.running:
                    break  # what is left needs what failed
                time.sleep(POLL)
                for each in [each for each in self.running if each.process.poll() is not None]:
                    self.running.remove(each)
                    failed |= not self._end(each, finished, waiting, total)
            if asked:
                self._stop(asked)
                raise KeyboardInterrupt
        for job in waiting:
            print(f"not done: {job.name} needs {', '.join(sorted(set(job.needs) - finished))}", file=sys.stderr)
        return not failed and not waiting

    def _start(self, job: Job) -> Running:
        log = self.out / "logs" / f"{job.name.replace(' ', '-')}.log"
        part = log if job.trains else job.made.with_name(f".{job.made.name}.part")
        for path in (log, part, job.made):
            path.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // self.at_once)
        with log.open("wb") as said, part.open("ab" if job.trains else "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "loopkit", *job.next_arguments],
                stdout=out,
                stderr=said,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                start_new_session=True,  # a Ctrl-C of the terminal reaches them once, through us
                pass_fds=(self.held.fileno(),),
            )
        return Running(job, process, time.monotonic(), log, part)

    def _end(self, ended: Running, finished: set[str], waiting: Sequence[Job], total: int) -> bool:
        """Keep what a command has made, or say how it failed."""
        job = ended.job
        if ended.process.returncode:
            last = ended.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            shown = "\n  ".join((shlex.join(["loopkit", *job.next_arguments]), *last))
            print(f"failed: {job.name} (exit code {ended.process.returncode}), see {ended.log}\n  {shown}", file=sys.stderr, flush=True)
            return False
        seconds = self._keep(ended)
        finished.add(job.name)
        left = [*waiting, *(each.job for each in self.running)]
        print(f"[{total - len(left)}/{total}] {job.name}: {spoken(seconds)}{self._left(left)}", flush=True)
        return True

    def _keep(self, ended: Running) -> float:
        """Give what it has made its name, and write down how many seconds it took."""
        seconds, job = time.monotonic() - ended.began, ended.job
        if not job.trains:
            ended.part.replace(job.made)
        with (self.out / TIMES).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"job": job.name, "seconds": round(seconds, 2)}) + "\n")
        return seconds

    def _left(self, jobs: Sequence[Job]) -> str:
        """An estimate from the times of finished jobs: the same with other seeds, or else the same command."""
        taken = times(self.out)
        known = [estimate for job in jobs if (estimate := _estimate(job.name, taken)) is not None]
        if not known:
            return ""
        some = "" if len(known) == len(jobs) else f" for {len(known)} of the {len(jobs)} jobs to come"
        return f"; about {spoken(sum(known) / self.at_once)} left{some}"

    def _stop(self, asked: Sequence[int]) -> None:
        """Ask all to stop, as Ctrl-C does: a training saves where it is. Where a second Ctrl-C is ``asked`` it ends them at once."""
        for each in self.running:
            each.process.send_signal(signal.SIGINT)
        while len(asked) < 2 and any(each.process.poll() is None for each in self.running):
            time.sleep(POLL)
        for each in self.running:
            each.process.kill()  # nothing to one that has ended
            if each.process.wait() == 0:
                self._keep(each)


@contextmanager
def noting_interrupts() -> Iterator[list[int]]:
    """Ctrl-C and a polite kill are noted in the list that this gives, and interrupt nothing; one that is ignored stays so."""
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def times(out: Path) -> dict[str, float]:
    """Seconds that each finished job took, by name."""
    if not (out / TIMES).exists():
        return {}
    try:
        entries: list[dict[str, Any]] = [json.loads(line) for line in (out / TIMES).read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise LoopkitError(f"{out / TIMES} is damaged ({error}); it only says how long jobs took: delete it to go on") from error
    return {entry["job"]: entry["seconds"] for entry in entries}


def spoken(seconds: float) -> str:
    """0.7 s, 45 s, 3.5 min, 2.1 h, 6.0 days."""
    for limit, unit, name in ((90, 1, "s"), (90, 60, "min"), (48, 3600, "h")):
        if seconds < limit * unit:
            return f"{seconds / unit:.{int(unit > 1 or seconds < 10)}f} {name}"
    return f"{seconds / 86400:.1f} days"


def _estimate(name: str, taken: dict[str, float]) -> float | None:
    kind, command = name.rpartition(" seed ")[0], name.split(" ")[0]
    same = [seconds for job, seconds in taken.items() if job.rpartition(" seed ")[0] == kind]
    alike = same or [seconds for job, seconds in taken.items() if job.split(" ")[0] == command]
    return sum(alike) / len(alike) if alike else None
