"""What the story would take: every command, and for each training its tokens, FLOPs, parameters, memory and time. Opens no data."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from jobs import Job, Story
from runner import spoken

from loopkit import cost
from loopkit.data.loading import make_codec
from loopkit.data.mixture import Mixture, parse_mixture
from loopkit.data.sources import Primitives
from loopkit.plan import Plan, parse_plan
from loopkit.spec import Spec
from loopkit.training.prepare import growth_stages, model_spec
from loopkit.training.recipe import Recipe, override
from loopkit.training.schedule import cooldown_start

FLOPS = 4e14  # 40% of the 989e12 FLOP/s of an H100 (SXM) in bfloat16 without sparsity
FLOAT = 4  # bytes
COPIES = 4  # of every parameter in training: weight, gradient, two moments
OPTIONS = {"--layout": "model.layout", "--grow": "growth.operator", "--block": "growth.block", "--cooldown-plan": "cooldown.plan"}


@dataclass(frozen=True)
class Cost:
    """Of one training: ``memory`` in bytes is that of weights, gradients and moments in float32, activations come on top; ``disk`` that of
    the checkpoints it keeps, which hold no gradients."""

    tokens: int
    flops: float
    unique: int
    memory: int
    disk: int

    def line(self, rate: float) -> str:
        """In words, with the time at ``rate`` FLOP/s."""
        return (
            f"{self.tokens:.3g} tokens, {self.flops:.3g} training FLOPs, {self.unique:,} unique parameters, "
            f"{self.memory / 2**30:.3g} GiB and activations, {spoken(self.flops / rate)}"
        )


def describe(story: Story, rate: float) -> Iterator[str]:
    """The lines of the dry run; times are of one accelerator that reaches ``rate`` FLOP/s in training."""
    known = costs(story)
    yield f"{story.size.name}: {story.size.about}"
    yield f"times: of training, at {rate:.3g} FLOP/s; 4e14 is 40% of an H100's dense bfloat16 rate. Another machine: --flops RATE"
    for job in story.jobs:
        yield shlex.join(["loopkit", *job.arguments, *job.hardware])
        if job.name in known:
            yield f"    {known[job.name].line(rate)}"
    tokens, flops, disk = (sum(getattr(each, what) for each in known.values()) for what in ("tokens", "flops", "disk"))
    time = f"{spoken(flops / rate)} at {rate:.3g} FLOP/s"
    yield f"all {len(known)} trainings: {tokens:.3g} tokens, {flops:.3g} training FLOPs, {time}, {disk / 2**30:.3g} GiB on disk"
    yield f"{len(story.jobs)} jobs in all"


def costs(story: Story) -> dict[str, Cost]:
    """Of each training by its job's name; a branch costs its cooldown."""
    recipe = story.size.recipe
    vocabulary = recipe.model.vocab_size or make_codec(recipe.data.tokenizer, _generated(recipe)).vocab_size
    branches = story.branches()
    found = {}
    for job in story.jobs:
        if job.trains:
            name = job.made.parent.name
            model = story.size.models[branches[name][0] if name in branches else name]
            own = override(recipe, [f"{OPTIONS[key]}={value}" for key, value in _pairs((*model.options, *_plan(job)))])
            found[job.name] = _cost(own, model_spec(own, vocabulary), name in branches)
    return found


def _generated(recipe: Recipe) -> Mixture:
    """The generated part of the mixture, which is all that is read without a network."""
    return Mixture(tuple(part for part in parse_mixture(recipe.data.mix).parts if isinstance(part.source, Primitives)))


def _plan(job: Job) -> tuple[str, ...]:
    at = job.arguments.index("--cooldown-plan") if "--cooldown-plan" in job.arguments else None
    return () if at is None else job.arguments[at : at + 2]


def _pairs(words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


def _cost(recipe: Recipe, spec: Spec, branched: bool) -> Cost:
    plans, each = _plans(recipe, spec, branched), recipe.data.rows * recipe.data.length
    flops = cost.training_flops(spec, [(plan, steps * each) for plan, steps in plans], recipe.data.length)
    unique = cost.parameters(spec)
    kept = 1 if branched else -(-recipe.schedule.steps // recipe.train.save_every)
    return Cost(sum(steps for _, steps in plans) * each, flops, unique, COPIES * FLOAT * unique, kept * (COPIES - 1) * FLOAT * unique)


def _plans(recipe: Recipe, spec: Spec, branched: bool) -> list[tuple[Plan, int]]:
    """The plans of a training with the steps of each; of a branch those of its cooldown."""
    schedule = recipe.schedule
    cooldown = cooldown_start(schedule.steps, schedule.cooldown)
    last = (parse_plan(recipe.cooldown.plan, spec.plan) if recipe.cooldown.plan else spec.plan, schedule.steps - cooldown)
    if branched:
        return [last]
    stages = growth_stages(recipe, spec)
    plans = [tuple(range(stage.layers)) for stage in stages] if len(stages) > 1 else [spec.plan]
    return [*((plan, min(stage.start + stage.steps, cooldown) - stage.start) for plan, stage in zip(plans, stages, strict=True)), last]
