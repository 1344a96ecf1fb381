"""Begin a run or go on with one."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from loopkit.errors import LoopkitError
from loopkit.training.events import Event
from loopkit.training.folder import Position, RunFolder, State
from loopkit.training.loop import Hardware, Job, run
from loopkit.training.prepare import initial_state, match_flops, prepare, total_flops
from loopkit.training.recipe import Recipe
from loopkit.training.trackers import tracked

Ready = tuple[Job, State, Position]


def begin(recipe: Recipe, folder: RunFolder, hardware: Hardware) -> Ready:
    """A new run, its folder made once everything is checked. Raises UsageError or LoopkitError."""
    if hardware.rank == 0:
        job = _create(recipe, folder)
    hardware.backend.barrier()
    if hardware.rank > 0:
        job = prepare(recipe, folder.tokenizer)
    return job, initial_state(job), Position(0)


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
    """A run from its last whole checkpoint, or from the start where it has none; what was recorded since is forgotten."""
    job = prepare(folder.recipe, folder.tokenizer)
    saved = folder.newest()
    if saved is None:
        state, position = initial_state(job), Position(0)
    else:
        spec, state, position = folder.load(saved)
        if spec != job.spec_after(len(position.history)):
            raise LoopkitError(f"{saved} is of another shape than {folder.path / 'config.toml'} says; was the file edited?")
    if hardware.rank == 0:
        folder.rewind(position.step)
    hardware.backend.barrier()
    return job, state, position


def train(ready: Ready, folder: RunFolder, hardware: Hardware, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Run to the end; process 0 records every event in the folder and with the recipe's trackers, then yields it."""
    job, state, position = ready
    events = run(job, hardware, folder, state, position, stop)
    if hardware.rank > 0:
        yield from events
        return
    with tracked(job.recipe, folder.path, position.step) as log:
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
