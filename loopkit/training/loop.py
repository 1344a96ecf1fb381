"""The one training loop: a generator of events over a run folder, from the first step or from the last whole checkpoint."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loopkit import cost
from loopkit.backend import Backend, Learner
from loopkit.checkpoint.initial import fold_norm_scaling
from loopkit.data.batches import Batches
from loopkit.errors import LoopkitError
from loopkit.plan import Plan, key_value_slots, parse_plan
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec
from loopkit.training.events import Evaluated, Event, Grown, Sampled, Saved, Step, Stopped
from loopkit.training.folder import Position, RunFolder, State
from loopkit.training.growth import Stage, grow_arrays
from loopkit.training.recipe import Recipe
from loopkit.training.recurrence import Recurrence, draw
from loopkit.training.schedule import cooldown_start

EXPLODED = 3.0  # a loss of so many times the loss of guessing ends the run


class DivergedError(LoopkitError):
    """The loss is no number or exploded; every process meets this at the same step."""


@dataclass(frozen=True)
class Hardware:
    """Where a run computes; no part of the recipe, since any hardware may go on with it."""

    backend: Backend
    device: str
    dtype: str
    compiled: bool = False
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Job:
    """A run made ready: recipe, data, stages of growth, and the model at their end."""

    recipe: Recipe
    spec: Spec
    stages: tuple[Stage, ...]
    batches: Batches
    cooldown_batches: Batches
    heldout: Batches | None
    tokenizer: Path
    recurrence: Recurrence | None
    prompt: list[int]

    @property
    def cooldown(self) -> int:
        """The first step of the cooldown."""
        return cooldown_start(self.recipe.schedule.steps, self.recipe.schedule.cooldown)

    def growths(self, step: int) -> int:
        """How often the model has grown by update ``step``."""
        return sum(stage.start <= step for stage in self.stages) - 1

    def spec_after(self, growths: int) -> Spec:
        """The model after so many growths."""
        return self.spec if len(self.stages) == 1 else self.spec.with_layout(str(self.stages[growths].layers))

    def plan(self, step: int) -> tuple[Plan, int | None]:
        """The plan of update ``step``, and the visit before which gradients stop."""
        plan = self.spec_after(self.growths(step)).plan
        if self.recipe.cooldown.plan and step >= self.cooldown:
            plan = parse_plan(self.recipe.cooldown.plan, plan)
        return (plan, None) if self.recurrence is None else draw(self.recurrence, plan, self.recipe.train.seed, step)

    def batches_at(self, step: int) -> Batches:
        """The data of update ``step``."""
        return self.cooldown_batches if step >= self.cooldown else self.batches

    def update(self, step: int) -> tuple[object, ...]:
        """What update ``step`` is made of beside the state: its rate, plan, depth and mixture."""
        data, cooldown = self.recipe.data, self.recipe.cooldown
        mix = cooldown.mix if cooldown.mix and step >= self.cooldown else data.mix
        return self.recipe.schedule.at(step), self.plan(step), self.growths(step), mix


def run(
    job: Job,
    hardware: Hardware,
    folder: RunFolder,
    make_state: Callable[[], State],
    position: Position,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train from ``position`` to the end, yielding events. Process 0 writes checkpoints.

    Where ``stop`` of any process says so, all save and stop after the same step. Raises DivergedError where the loss is no number or
    explodes; the last whole checkpoint stays.
    """
    learner = _learner(job, hardware, make_state(), position)
    total, train = job.recipe.schedule.steps, job.recipe.train
    while position.step < total:
        if len(position.history) < job.growths(position.step):
            started = time.perf_counter()
            stage = job.stages[len(position.history) + 1]
            position = replace(position, history=(*position.history, (stage.start, stage.source or ())))
            learner = _learner(job, hardware, _grown(learner.state(), stage), position)
            yield Grown(position.step, stage.layers, stage.source or (), time.perf_counter() - started)
        step, position = _update(job, hardware, learner, position)
        yield step
        done = position.step == total
        if job.heldout is not None and train.evaluate_every and (done or position.step % train.evaluate_every == 0):
            yield _evaluate(job, learner, position)
            if train.sample_tokens and hardware.rank == 0:
                yield _sample(job, hardware, learner, position)
        stopped = learner.agree(stop())
        if done or stopped or (train.save_every and position.step % train.save_every == 0):
            if hardware.rank == 0:
                yield _save(job, folder, learner, position)
            if stopped and not done:
                yield Stopped(position.step)
                return


def _grown(state: State, stage: Stage) -> State:
    return {part: grow_arrays(arrays, stage.source or ()) for part, arrays in state.items()}


def _learner(job: Job, hardware: Hardware, state: State, position: Position) -> Learner:
    spec = _spec(job, position)
    ordered = {part: {name: arrays[name] for name in spec.shapes()} for part, arrays in state.items()}  # sums round by their order
    return hardware.backend.learner(
        spec,
        ordered,
        position.step,
        job.recipe.optimizer,
        device=hardware.device,
        dtype=hardware.dtype,
        micro_batches=job.recipe.train.micro_batches,
        checkpointing=job.recipe.train.checkpointing,
        compiled=hardware.compiled,
        norm_scaling=job.recipe.model.norm_scaling,
    )


def _spec(job: Job, position: Position) -> Spec:
    return job.spec_after(len(position.history))


def _update(job: Job, hardware: Hardware, learner: Learner, position: Position) -> tuple[Step, Position]:
    started = time.perf_counter()
    schedule = job.recipe.schedule
    rate = schedule.at(position.step)
    batch = job.batches_at(position.step).at(position.step, hardware.rank, hardware.world)
    plan, detach_at = job.plan(position.step)
    loss, norm = learner.step(batch, plan, rate, detach_at)
    _check_loss(loss, norm, job, position)
    tokens = batch.ids.size * hardware.world
    spec = _spec(job, position)
    flops = position.flops + cost.training_flops(spec, [(plan, tokens)], batch.ids.shape[1])
    after = replace(position, step=position.step + 1, tokens=position.tokens + tokens, flops=flops)
    seconds = time.perf_counter() - started
    return Step(position.step, loss, rate, norm, after.tokens, flops, seconds, spec.n_layers, len(plan)), after


def _check_loss(loss: float, norm: float, job: Job, position: Position) -> None:
    guess = math.log(job.spec.vocab_size)
    if not math.isfinite(loss) or loss > EXPLODED * guess + 10:
        what = f"the loss became {loss:.3g} at step {position.step} (guessing costs {guess:.2f})"
    elif not math.isfinite(norm):
        what = f"the gradient's norm became {norm:.3g} at step {position.step}"
    else:
        return
    raise DivergedError(f"{what}, so the run stopped; the last whole checkpoint is kept. Lower schedule.rate or lengthen schedule.warmup")


def _evaluate(job: Job, learner: Learner, position: Position) -> Evaluated:
    assert job.heldout is not None
    plan = job.plan(position.step - 1)[0] if job.recurrence is None else _spec(job, position).plan
    numbers, rows = range(job.recipe.train.evaluate_rows), job.recipe.data.rows // job.recipe.train.micro_batches
    chunks = (numbers[start : start + rows] for start in range(0, len(numbers), rows))  # as many at a time as training holds
    parts = [learner.evaluate(job.heldout.numbered(np.array(chunk)), plan) for chunk in chunks]
    return Evaluated(position.step, sum(loss for loss, _ in parts) / sum(count for _, count in parts))


def _sample(job: Job, hardware: Hardware, learner: Learner, position: Position) -> Sampled:
    from loopkit.checkpoint.tokenizer import open_tokenizer

    spec = _spec(job, position)
    weights = hardware.backend.put(_folded(job, learner.state()["weights"]), hardware.device, hardware.dtype)
    limit = min(job.recipe.train.sample_tokens, spec.max_position_embeddings - len(job.prompt))
    run, slots, sampling = Run(spec.plan), key_value_slots(spec.plan), Sampling(0.8, position.step)
    ids = list(hardware.backend.stream(weights, spec, job.prompt, run, slots, limit, sampling))
    return Sampled(position.step, open_tokenizer(job.tokenizer).decode([*job.prompt, *ids]))


def _save(job: Job, folder: RunFolder, learner: Learner, position: Position) -> Saved:
    state = learner.state()
    spec = _spec(job, position)
    path = folder.save(spec, state, position, _folded(job, state["weights"]), job.tokenizer, job.recipe.train.keep)
    return Saved(position.step, str(path))


def _folded(job: Job, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return fold_norm_scaling(weights) if job.recipe.model.norm_scaling else weights
