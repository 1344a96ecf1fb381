"""Tensorboard, wandb and trackio, fed by the events that metrics.jsonl records; on resume each goes on with the run that it has."""

import importlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from loopkit.checkpoint.atomic import write_text
from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Event
from loopkit.training.recipe import Recipe


class Tracker(Protocol):
    """Where numbers go by name and step."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Record them."""

    def close(self) -> None:
        """Write what is left."""


class Tensorboard:
    """Event files in the run's folder ``tensorboard``."""

    def __init__(self, path: Path, recipe: Recipe, step: int) -> None:
        events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        files = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self.writer, self.event = files.EventFileWriter(str(path / "tensorboard")), events.Event
        self.summary = importlib.import_module("tensorboard.compat.proto.summary_pb2").Summary
        started = events.SessionLog(status=events.SessionLog.START)  # what was written from ``step`` on no longer counts
        self.writer.add_event(self.event(wall_time=time.time(), step=step, session_log=started))

    def log(self, values: dict[str, float], step: int) -> None:
        """See Tracker."""
        summary = self.summary(value=[self.summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """See Tracker."""
        self.writer.close()


class WandbLike:
    """wandb, and trackio, which has its interface."""

    def __init__(self, module: str, path: Path, recipe: Recipe, **options: Any) -> None:
        self.module = importlib.import_module(module)
        with redirect_stdout(sys.stderr):
            self.module.init(project="loopkit", name=_identity(path), resume="allow", config=asdict(recipe), **options)

    def log(self, values: dict[str, float], step: int) -> None:
        """See Tracker."""
        self.module.log(values, step=step)

    def close(self) -> None:
        """See Tracker."""
        with redirect_stdout(sys.stderr):
            self.module.finish()


TRACKERS: dict[str, Callable[[Path, Recipe, int], Tracker]] = {
    "tensorboard": Tensorboard,
    "wandb": lambda path, recipe, _: WandbLike("wandb", path, recipe, id=_identity(path), dir=str(path)),
    "trackio": lambda path, recipe, _: WandbLike("trackio", path, recipe),
}


def parse_trackers(text: str) -> list[str]:
    """The trackers of ``tensorboard,wandb``. Raises UsageError at an unknown one, LoopkitError where one is not installed."""
    names = text.split(",") if text else []
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"no tracker {name!r}; trackers are {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise LoopkitError(f"{name} is not installed; install it with: pip install 'loopkit-lm[loggers]'")
    return names


@contextmanager
def tracked(recipe: Recipe, path: Path, step: int) -> Iterator[Callable[[Event], None]]:
    """The function that gives an event of the run in ``path``, which stands at ``step``, to all the trackers of its recipe."""
    trackers = [_opened(name, path, recipe, step) for name in parse_trackers(recipe.train.log)]

    def log(event: Event) -> None:
        values = numbers(event)
        for tracker in trackers if values else []:
            tracker.log(values, event.step)

    try:
        yield log
    finally:
        for tracker in trackers:
            tracker.close()


def numbers(event: Event) -> dict[str, float]:
    """An event's numbers, each under the event's name and its own: ``step/loss``, ``evaluated/loss``, ``grown/layers``."""
    kind = type(event).__name__.lower()
    return {f"{kind}/{name}": value for name, value in asdict(event).items() if name != "step" and isinstance(value, int | float)}


def _opened(name: str, path: Path, recipe: Recipe, step: int) -> Tracker:
    try:
        return TRACKERS[name](path, recipe, step)
    except Exception as error:  # of any kind: no account, no network, no space
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LoopkitError(f"{name} does not start ({first}); mend that and go on with --resume, or train without --log {name}") from error


def _identity(path: Path) -> str:
    """The run's name for trackers, unlike any other's: that of its folder and a few letters that stay in the folder."""
    file = path / "tracker_id"
    if not file.exists():
        write_text(file, f"{path.resolve().name}-{uuid.uuid4().hex[:8]}")
    return file.read_text(encoding="utf-8")
