"""From a recipe to a job: every choice checked and every file opened before any compute."""

from bisect import bisect_left
from collections import Counter
from dataclasses import replace
from pathlib import Path

from loopkit import cost
from loopkit.checkpoint.atomic import new_folder
from loopkit.checkpoint.folder import newest, open_folder
from loopkit.checkpoint.initial import initialize
from loopkit.data.batches import Batches
from loopkit.data.counter import key
from loopkit.data.files import read_pairs
from loopkit.data.loading import Packing, finetuning_batches, make_codec, open_batches
from loopkit.data.mixture import Mixture, parse_mixture
from loopkit.data.sources import Primitives
from loopkit.data.tasks import find, questions
from loopkit.data.tokenizers import Codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec, preset
from loopkit.training.folder import State
from loopkit.training.growth import Stage, grow_arrays, growth_plan
from loopkit.training.loop import Job
from loopkit.training.recipe import ModelPart, Recipe
from loopkit.training.recurrence import parse_recurrence
from loopkit.training.schedule import cooldown_start
from loopkit.training.trackers import parse_trackers

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
DECIDED = (*SIZES, "layout", "vocab_size", "preset", "tie_word_embeddings", "qk_norm")  # by model.init_from, where it is given


def prepare(recipe: Recipe, tokenizer: Path) -> Job:
    """The job of a recipe. Its tokenizer is made and saved in the folder ``tokenizer``, or read where it is there already.

    Raises UsageError or LoopkitError at whatever the recipe asks for that cannot be.
    """
    _check_numbers(recipe)
    mixture = parse_mixture(recipe.data.mix)
    mixture.check()
    codec = _codec(recipe, mixture, tokenizer)
    spec = model_spec(recipe, codec.vocab_size)
    stages = growth_stages(recipe, spec)
    batches = _training_batches(recipe, mixture, codec)
    _check_targets(batches, recipe)
    job = Job(
        recipe=recipe,
        spec=spec,
        stages=stages,
        batches=batches,
        cooldown_batches=_cooldown_batches(recipe, codec, batches),
        heldout=_heldout(recipe, mixture, codec),
        tokenizer=tokenizer,
        recurrence=parse_recurrence(recipe.train.recurrence) if recipe.train.recurrence else None,
        prompt=[codec.end_id],
    )
    for step in (*(stage.start for stage in stages), job.cooldown, recipe.schedule.steps - 1):
        job.plan(min(step, recipe.schedule.steps - 1))  # a plan that does not fit must not wait for its step
    return job


def model_spec(recipe: Recipe, vocab_size: int) -> Spec:
    """The model at the end of training. Raises UsageError where the tokenizer does not fit, or sizes contradict init_from."""
    part = recipe.model
    if part.init_from:
        spec = _initial_spec(part)
    else:
        sizes = {name: getattr(part, name) for name in SIZES if getattr(part, name)}
        base = preset(part.preset)
        layout = part.layout or base.layout
        spec = replace(base, **sizes, layout=layout, tie_word_embeddings=part.tie_word_embeddings, qk_norm=part.qk_norm)
        spec = replace(spec, vocab_size=part.vocab_size or vocab_size)
    if vocab_size > spec.vocab_size:
        raise UsageError(
            f"the tokenizer has {vocab_size} tokens, the model {spec.vocab_size}; raise model.vocab_size or take its own tokenizer"
        )
    if recipe.data.length > spec.max_position_embeddings:
        raise UsageError(
            f"data.length {recipe.data.length} is more than the model's {spec.max_position_embeddings} positions; "
            f"lower it or raise model.max_position_embeddings"
        )
    return spec


def initial_state(job: Job) -> State:
    """Weights and zero moments of the first stage: random ones, or init_from's."""
    part = job.recipe.model
    spec = job.spec_after(0)
    if part.init_from:
        checkpoint = open_folder(part.init_from)
        arrays = {name: checkpoint.arrays[name].astype("float32") for name in checkpoint.spec.shapes()}
        weights = grow_arrays(arrays, checkpoint.spec.plan) if part.untie else arrays
    else:
        weights = initialize(spec, job.recipe.train.seed, part.init_scale)
    zeros = {name: array * 0 for name, array in weights.items()}
    return {"weights": weights, "first": zeros, "second": dict(zeros)}


def total_flops(job: Job) -> float:
    """Training FLOPs of the whole job; with sampled recurrence, of the very counts that will be drawn."""
    tokens = job.recipe.data.rows * job.recipe.data.length
    plans = Counter(job.plan(step)[0] for step in range(job.recipe.schedule.steps))
    return cost.training_flops(job.spec, [(plan, tokens * times) for plan, times in plans.items()], job.recipe.data.length)


def match_flops(job: Job, target: float) -> Recipe:
    """The job's recipe with the number of steps that brings its training FLOPs closest to ``target``: the FLOP-matched baseline."""

    def spent(steps: int) -> float:
        recipe = replace(job.recipe, schedule=replace(job.recipe.schedule, steps=steps))
        return total_flops(replace(job, recipe=recipe, stages=growth_stages(recipe, job.spec)))

    least = max(1, job.recipe.schedule.warmup, job.recipe.growth.steps, len(job.stages) ** 2)
    high = least
    while spent(high) < target:
        high *= 2
    steps = bisect_left(range(high), target, lo=least, key=spent)
    closest = min((s for s in (steps - 1, steps) if s >= least), key=lambda s: abs(spent(s) - target))
    return replace(job.recipe, schedule=replace(job.recipe.schedule, steps=closest))


def _initial_spec(part: ModelPart) -> Spec:
    plain = ModelPart()
    named = [name for name in DECIDED if getattr(part, name) != getattr(plain, name)]
    if named:
        raise UsageError(f"model.{named[0]} cannot be set beside model.init_from, which decides the model; leave it out")
    if part.norm_scaling:
        raise UsageError("model.norm_scaling is for models trained from scratch; it cannot be added to model.init_from")
    if part.init_scale != 1:
        raise UsageError("model.init_scale is for models trained from scratch; leave it out beside model.init_from")
    checkpoint = open_folder(part.init_from)
    if checkpoint.quantized:
        raise LoopkitError(f"{part.init_from} is quantized and cannot be trained; start from the original checkpoint")
    if part.untie and not checkpoint.spec.looped:
        raise UsageError(f"model.untie needs a looped checkpoint, {part.init_from} is not; leave it out")
    return checkpoint.spec.with_layout(str(len(checkpoint.spec.plan))) if part.untie else checkpoint.spec


def growth_stages(recipe: Recipe, spec: Spec) -> tuple[Stage, ...]:
    """The stages of a run by depth, one where it does not grow. Raises UsageError where it cannot grow."""
    growth, total = recipe.growth, recipe.schedule.steps
    if not growth.operator:
        return (Stage(0, total, spec.n_layers),)
    if recipe.model.init_from or spec.looped:
        why = "model.init_from starts at full depth" if recipe.model.init_from else f"layout {spec.layout} is looped"
        raise UsageError(f"growth makes plain models from scratch, but {why}; leave out growth.operator")
    steps = growth.steps or cooldown_start(total, recipe.schedule.cooldown)
    return growth_plan(growth.operator, growth.block, spec.n_layers, steps, total, growth.alpha)


def _codec(recipe: Recipe, mixture: Mixture, folder: Path) -> Codec:
    if (folder / "tokenizer.json").exists():
        return make_codec(str(folder), mixture)
    given = recipe.data.tokenizer
    own = str(newest(Path(recipe.model.init_from))) if recipe.model.init_from and given == "byte" else given
    codec = make_codec(own, mixture, parse_mixture(recipe.cooldown.mix) if recipe.cooldown.mix else None)
    with new_folder(folder) as part:
        codec.save(part)
    return codec


def _packing(recipe: Recipe) -> Packing:
    data = recipe.data
    return Packing(data.rows, data.length, recipe.train.seed, data.documents, data.answers, data.heldout, data.shots, data.limit or None)


def _training_batches(recipe: Recipe, mixture: Mixture, codec: Codec) -> Batches:
    data, packing = recipe.data, _packing(recipe)
    if data.examples and data.pairs:
        raise UsageError("data.examples and data.pairs are two ways to fine-tune; give one")
    if data.pairs:
        return finetuning_batches(_pairs(recipe)[1], codec, packing)
    if data.examples:
        return finetuning_batches(_examples(mixture, data.examples, recipe.train.seed), codec, packing)
    return open_batches(mixture, codec, packing)


def _examples(mixture: Mixture, count: int, seed: int) -> list:  # type: ignore[type-arg]
    """``count`` training questions, in equal parts of the mixture's tasks."""
    names = [name for part in mixture.parts if isinstance(part.source, Primitives) for name in part.source.names]
    if not names or len(names) > count:
        raise UsageError(f"data.examples {count} needs at least one example of each generated task; e.g. data.mix=primitives:var-code-1")
    return [q for i, name in enumerate(names) for q in questions(find(name), "train", seed, len(range(i, count, len(names))))]


def _cooldown_batches(recipe: Recipe, codec: Codec, batches: Batches) -> Batches:
    if not recipe.cooldown.mix:
        return batches
    mixture = parse_mixture(recipe.cooldown.mix)
    mixture.check()
    start = cooldown_start(recipe.schedule.steps, recipe.schedule.cooldown)
    return open_batches(mixture, codec, _packing(recipe)).after(batches, start)


def _heldout(recipe: Recipe, mixture: Mixture, codec: Codec) -> Batches | None:
    if not recipe.train.evaluate_every:
        return None
    if recipe.data.pairs:
        return finetuning_batches(_pairs(recipe)[0], codec, _packing(recipe))
    return open_batches(mixture, codec, _packing(recipe), "evaluation")


def _pairs(recipe: Recipe) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The pairs that are held out, at least one where a loss on them is asked for, and those to train on."""
    pairs = read_pairs(Path(recipe.data.pairs))
    if not recipe.train.evaluate_every:
        return [], pairs
    count = max(1, round(recipe.data.heldout * len(pairs))) if recipe.data.heldout else 0
    if not 0 < count < len(pairs):
        what = "data.heldout 0 holds none out" if not count else f"{len(pairs)} pairs are too few to hold {count} out"
        raise UsageError(f"{what} to evaluate on; train on all of them with --set train.evaluate_every=0")
    by_hash = sorted(range(len(pairs)), key=lambda number: int(key("pair", *pairs[number])))
    heldout = set(by_hash[:count])
    return [pairs[i] for i in by_hash[:count]], [pair for i, pair in enumerate(pairs) if i not in heldout]


def _check_targets(batches: Batches, recipe: Recipe) -> None:
    """Raises UsageError where the first rows hold nothing that counts, as where questions are longer than a row."""
    mask = batches.at(0).loss_mask
    if mask is not None and not mask.any():
        raise UsageError(f"no answer lies within the first rows of data.length {recipe.data.length}; raise it, or data.answers=false")


def _check_numbers(recipe: Recipe) -> None:
    """What no later step would notice before compute."""
    schedule, train = recipe.schedule, recipe.train
    if recipe.data.rows % train.micro_batches or train.micro_batches < 1:
        raise UsageError(f"data.rows {recipe.data.rows} must be a multiple of train.micro_batches {train.micro_batches}")
    if recipe.model.init_scale <= 0:
        raise UsageError(f"model.init_scale must be above 0, got {recipe.model.init_scale}")
    if schedule.rate <= 0:
        raise UsageError(f"schedule.rate must be above 0, got {schedule.rate}")
    if (recipe.cooldown.plan or recipe.cooldown.mix) and not schedule.cooldown:
        raise UsageError(
            "cooldown.plan and cooldown.mix change the cooldown, and schedule.cooldown 0 leaves none; e.g. schedule.cooldown=0.15"
        )
    if recipe.model.untie and not recipe.model.init_from:
        raise UsageError("model.untie gives the visits of a looped checkpoint layers of their own; say which one: model.init_from")
    for name in ("seed", "evaluate_every", "save_every", "keep", "sample_tokens"):
        if getattr(train, name) < 0:
            raise UsageError(f"train.{name} must be 0 or more, got {getattr(train, name)}")
    if train.evaluate_every and train.evaluate_rows < 1:
        raise UsageError("train.evaluate_rows must be 1 or more; train.evaluate_every=0 turns evaluating off")
    schedule.at(0)
    parse_trackers(train.log)
