"""Streams of one text, kept by what has run, so that a plan like one before it costs only what is new in it."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from loopkit.inference.trie import Pull, Step, Visit, steps
from loopkit.run import Run, Stream

CAPACITY = 256  # streams


class Prefixes:
    """Passes over one text that begin where an earlier one with the same first steps stands.

    ``advance`` takes a step of one visit. At most ``capacity`` streams are kept, the beginnings of the newest plans first.
    """

    def __init__(self, advance: Callable[[Stream, Run], Stream], start: Stream, capacity: int = CAPACITY) -> None:
        self._advance = advance
        self._start = start
        self._capacity = capacity
        self._kept: OrderedDict[tuple[Step, ...], Stream] = OrderedDict()

    def end(self, run: Run) -> tuple[Stream, int]:
        """The stream after a run, and how many visits had to be run for it."""
        path = tuple(steps(run))
        done = self._longest(path)
        needed = {step.since for step in path if isinstance(step, Pull)}
        streams = {at: self._at(path[:at]) for at in (done, *_pulled(path, done))}
        for at in range(done, len(path)):
            streams[at + 1] = self._step(path[at], streams, at)
            if at < self._capacity:
                self._kept[path[: at + 1]] = streams[at + 1]
            if at not in needed:
                del streams[at]
        self._tidy(path)
        return streams[len(path)], sum(isinstance(step, Visit) for step in path[done:])

    def each(self, run: Run) -> Iterator[Stream]:
        """The stream before the first visit of a run and after each."""
        for visits in range(len(run.plan) + 1):
            scale = {visit: scale for visit, scale in run.scale.items() if visit < visits}
            yield self.end(Run(run.plan[:visits], scale=scale, blend=tuple(span for span in run.blend if span.stop <= visits)))[0]

    def _step(self, step: Step, streams: dict[int, Stream], at: int) -> Stream:
        if isinstance(step, Pull):
            return streams[step.since].blend(streams[at], step.weight)
        return self._advance(streams[at], step.run)

    def _longest(self, path: tuple[Step, ...]) -> int:
        """The most steps of ``path`` after which all streams that the rest needs are there."""
        return next(
            done for done in range(len(path), -1, -1) if all(not at or path[:at] in self._kept for at in (done, *_pulled(path, done)))
        )

    def _at(self, path: tuple[Step, ...]) -> Stream:
        return self._kept[path] if path else self._start

    def _tidy(self, path: tuple[Step, ...]) -> None:
        """Make this plan's beginnings the newest, the shortest last, and drop what is oldest."""
        for at in range(len(path), 0, -1):
            if path[:at] in self._kept:
                self._kept.move_to_end(path[:at])
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)


def _pulled(path: tuple[Step, ...], done: int) -> list[int]:
    """The streams before ``done`` that a Pull further on goes back to."""
    return [step.since for step in path[done:] if isinstance(step, Pull) and step.since < done]
