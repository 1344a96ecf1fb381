"""Begin a run or go on with one."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Event
from loopkit.training.folder import Position, RunFolder, State
from loopkit.training.loop import Hardware, Job, run
from loopkit.training.prepare import initial_state, match_flops, prepare, total_flops
from loopkit.training.recipe import Recipe
from loopkit.training.trackers import tracked

Ready = tuple[Job, Callable[[], State], Position]  # the state is made when training begins, and given up as soon as it is on the device


def begin(recipe: Recipe, folder: RunFolder, hardware: Hardware) -> Ready:
    """A new run, its folder made once everything is checked. Raises UsageError or LoopkitError."""
    if hardware.rank == 0:
        job = _create(recipe, folder)
    hardware.backend.barrier()
    if hardware.rank > 0:
        job = prepare(recipe, folder.tokenizer)
    return job, partial(initial_state, job), Position(0)


def _create(recipe: Recipe, folder: RunFolder) -> Job:
    """The job, and its folder unless anything is wrong with it."""
    folder.refuse_existing()
    try:
        folder.create(recipe)  # first, so that a run killed while its data is read can be resumed
        job = prepare(recipe, folder.tokenizer)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return job


def resume(folder: RunFolder, hardware: Hardware) -> Ready:
    """A run from its last whole checkpoint, or from the start where it has none."""
    job = prepare(folder.recipe, folder.tokenizer)
    saved = folder.newest()
    if saved is None:
        return job, partial(initial_state, job), Position(0)
    spec, _, position = folder.load(saved)
    if spec != job.spec_after(len(position.history)):
        raise LoopkitError(f"{saved} is of another shape than {folder.path / 'config.toml'} says; was the file edited?")
    return job, lambda: folder.load(saved)[1], position


def branch(source: RunFolder, recipe: Recipe, folder: RunFolder, hardware: Hardware) -> Ready:
    """A new run that begins as ``source`` did, from its last checkpoint ahead of the first step that ``recipe`` does otherwise.

    Raises UsageError where the recipe differs from the first step on, or nowhere; LoopkitError where no such checkpoint is kept.
    """
    if hardware.rank == 0:
        folder.refuse_existing()
        if not source.newest():
            raise LoopkitError(
                f"{source.path} has no checkpoint to branch from; train it first: loopkit train --out {source.path} --resume"
            )
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copytree(source.tokenizer, Path(scratch) / "tokenizer")
            shared = _shared_steps(prepare(source.recipe, source.tokenizer), prepare(recipe, Path(scratch) / "tokenizer"))
        folder.begin_as(source, recipe, shared)
    hardware.backend.barrier()
    return resume(folder, hardware)


def _shared_steps(theirs: Job, ours: Job) -> int:
    """How many steps two runs share. Raises UsageError as ``branch``."""
    for name in ("model", "growth", "data", "optimizer"):
        _check_equal(name, asdict(getattr(theirs.recipe, name)), asdict(getattr(ours.recipe, name)))
    _check_equal(
        "train", *({key: getattr(job.recipe.train, key) for key in ("seed", "recurrence", "micro_batches")} for job in (theirs, ours))
    )
    both = range(min(theirs.recipe.schedule.steps, ours.recipe.schedule.steps))
    shared = next((step for step in both if theirs.update(step) != ours.update(step)), len(both))
    if shared == 0:
        raise UsageError("the recipe does otherwise from the first step on, so there is nothing to branch from; start a run of its own")
    if shared == theirs.recipe.schedule.steps == ours.recipe.schedule.steps:
        raise UsageError("a branch that does nothing otherwise is the run itself; say what differs, e.g. --cooldown-plan 8:12x2")
    return shared


def _check_equal(section: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    for key, value in theirs.items():
        if ours[key] != value:
            raise UsageError(
                f"a branch shares the beginning of its run, where {section}.{key} is {value!r}, not {ours[key]!r};"
                f" it may change schedule, cooldown and what is logged. Start a run of its own instead"
            )


def train(ready: Ready, folder: RunFolder, hardware: Hardware, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Run to the end; process 0 records every event in the folder and with the recipe's trackers, then yields it.

    What was recorded after the step that the run begins with is forgotten. Raises LoopkitError where another process trains in the folder.
    """
    job, make_state, position = ready
    events = run(job, hardware, folder, make_state, position, stop)
    if hardware.rank > 0:
        yield from events
        return
    with folder.held(), tracked(job.recipe, folder.path, position.step) as log:
        folder.rewind(position.step)
        for event in events:
            folder.record(event)
            log(event)
            yield event


def matched(recipe: Recipe, other: Path, scratch: Path) -> Recipe:
    """``recipe`` with as many steps as spend the training FLOPs of the run in ``other``. Raises LoopkitError where that is none."""
    theirs = RunFolder(other)
    target = total_flops(prepare(theirs.recipe, theirs.tokenizer))
    quiet = replace(recipe, train=replace(recipe.train, evaluate_every=0))
    return replace(recipe, schedule=match_flops(prepare(quiet, scratch), target).schedule)
