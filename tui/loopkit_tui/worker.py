"""One thread that owns all models. Requests come with a kind: a newer one of the same kind cancels the older, a more urgent one is
let in between two visits of one that takes long."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import count

from loopkit.errors import LoopkitError

Emit = Callable[[object], None]
Work = Callable[[Emit], None]


class Urgency(IntEnum):
    """What goes first: what the person looks at, text that is being written, long studies."""

    NOW = 0
    SOON = 1
    LONG = 2


@dataclass(frozen=True)
class Answer:
    """Something that request ``number`` has to say; the last is Done, Failed or Stopped."""

    kind: str
    number: int
    value: object


@dataclass(frozen=True)
class Done:
    """The request is answered."""


@dataclass(frozen=True)
class Stopped:
    """The request was cancelled while it ran."""


@dataclass(frozen=True)
class Failed:
    """What went wrong, in one line."""

    text: str


class Cancelled(BaseException):
    """Ends the work of a request nobody waits for; not an Exception, so that no handler of errors takes it for one."""


@dataclass
class _Job:
    kind: str
    number: int
    urgency: Urgency
    work: Work
    deliver: Callable[[Answer], object]
    cancelled: bool = False

    def say(self, value: object) -> None:
        self.deliver(Answer(self.kind, self.number, value))


class Worker:
    """The thread and its queue. ``ask`` and ``cancel`` are for other threads, ``breathe`` for the work itself."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._pending: dict[str, _Job] = {}
        self._running: list[_Job] = []
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def ask(self, kind: str, work: Work, deliver: Callable[[Answer], object], urgency: Urgency = Urgency.NOW) -> int:
        """Queue a request in place of all older ones of its kind; ``deliver`` is called on the engine's thread. Returns its number."""
        job = _Job(kind, next(self._numbers), urgency, work, deliver)
        with self._change:
            self._cancel(kind)
            self._pending[kind] = job
            self._change.notify()
        return job.number

    def cancel(self, kind: str | None = None) -> bool:
        """Give up the requests of a kind, or all; whether there was one."""
        with self._change:
            return self._cancel(kind)

    def breathe(self) -> None:
        """Called between steps of a long work: lets more urgent requests run. Raises Cancelled where this one is not wanted any more."""
        job = self._running[-1]
        while urgent := self._take(job.urgency):
            self._run(urgent)
        if job.cancelled or self._closed:
            raise Cancelled

    def close(self, seconds: float = 2.0) -> bool:
        """Ask the thread to end; whether it did in that time."""
        with self._change:
            self._closed = True
            self._cancel(None)
            self._change.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _cancel(self, kind: str | None) -> bool:
        running = [job for job in self._running if kind in (None, job.kind) and not job.cancelled]
        for job in running:
            job.cancelled = True
        waiting = [job for job in self._pending.values() if kind in (None, job.kind)]
        for job in waiting:
            del self._pending[job.kind]
        return bool(running or waiting)

    def _take(self, below: int) -> _Job | None:
        """The most urgent request that waits, the oldest of several, if it is more urgent than ``below``."""
        with self._change:
            best = min(self._pending.values(), key=lambda job: (job.urgency, job.number), default=None)
            if best is None or best.urgency >= below:
                return None
            del self._pending[best.kind]
            self._running.append(best)  # under the lock, so that no request is ever neither waiting nor running
            return best

    def _serve(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._pending)
                if self._closed:
                    return
            if job := self._take(len(Urgency)):
                self._run(job)

    def _run(self, job: _Job) -> None:
        def emit(value: object) -> None:
            if not job.cancelled:
                job.say(value)
            self.breathe()

        last: object = Done()
        try:
            job.work(emit)
        except Cancelled:
            last = Stopped()
        except LoopkitError as error:
            last = Failed(str(error))
        except Exception as error:  # a defect must not take the thread down; the screen shows it in a line
            last = Failed(f"{type(error).__name__}: {error}".splitlines()[0])
        with self._change:
            self._running.remove(job)
        job.say(last)
