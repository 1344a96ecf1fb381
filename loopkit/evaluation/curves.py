"""Accuracy as a curve: against worked examples in the prompt (paper, figures 7 and 16), against examples trained on (8 and 15)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopkit.checkpoint.atomic import write_text
from loopkit.checkpoint.folder import newest, open_folder, read_json
from loopkit.data.tasks import few_shot, find, questions
from loopkit.data.tokenizers import checkpoint_codec
from loopkit.errors import UsageError
from loopkit.evaluation.choice import Accuracy, accuracies, request
from loopkit.evaluation.statistics import share_interval
from loopkit.progress import Bars, silent
from loopkit.session import Model, load
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import Recipe, override
from loopkit.training.start import begin, resume, train


@dataclass(frozen=True)
class Spot:
    """One point of a curve: accuracies at ``examples``, one a seed."""

    examples: int
    accuracies: tuple[Accuracy, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy, 0 to 1."""
        return float(np.mean([each.share for each in self.accuracies]))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval: of the mean over seeds (Student's t), or with one seed over questions (Wilson)."""
        if len(self.accuracies) == 1:
            return self.accuracies[0].interval
        return share_interval([each.share for each in self.accuracies])


@dataclass(frozen=True)
class Curve:
    """A model's curve on a task."""

    name: str
    task: str
    plan: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Tuning:
    """How a fine-tuning run goes: ``rows`` sequences a step, peak learning rate, and the model's visits untied or not."""

    steps: int = 100
    rows: int = 8
    rate: float = 3e-4
    untie: bool = False


def in_context(
    model: Model, name: str, task: str, plans: Sequence[str | None], shots: Sequence[int], count: int, seed: int, bars: Bars = silent
) -> Iterator[Curve]:
    """A curve for each plan over the numbers of worked examples; every question asks the same at each of them."""
    found = [accuracies(model, task, plans, count, each, seed, progress=bars(f"{task}, {each} examples, {name}")) for each in shots]
    for i, plan in enumerate(plans):
        yield Curve(name, task, model.text(plan), tuple(Spot(n, (each[i],)) for n, each in zip(shots, found, strict=True)))


def fitting_shots(model: Model, task: str, count: int, seed: int) -> list[int]:
    """0, 1, 2, 4, ...: as many worked examples as fit the model's positions before each question. Raises UsageError where none fits."""
    found: list[int] = []
    while not found or _longest(model, task, count, found[-1], seed) <= model.spec.max_position_embeddings:
        found.append(2 ** (len(found) - 1) if found else 0)
    if not found[:-1]:
        raise UsageError(f"no question of {task} fits the model's {model.spec.max_position_embeddings} positions")
    return found[:-1]


def keep_weights(out: Path, checkpoints: Mapping[str, Path]) -> None:
    """Note in OUT/weights.json from which weights the runs of each checkpoint, by name, start. Raises UsageError where those are others."""
    file = out / "weights.json"
    known = read_json(file) if file.exists() else {}
    found = {name: open_folder(path).fingerprint for name, path in checkpoints.items()}
    for name, path in checkpoints.items():
        if known.get(name, found[name]) != found[name]:
            raise UsageError(f"{out} holds runs from other weights of {path}; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({**known, **found}, indent=1) + "\n")


def finetuning(path: Path, task: str, examples: int, seed: int, tuning: Tuning, count: int, folder: Path, hardware: Hardware) -> Accuracy:
    """Accuracy after fine-tuning on so many training questions, the loss on answers only; 0 is the checkpoint as it is.

    The run lies in ``folder``: a finished one is not trained again, an interrupted one goes on. ``seed`` is that of the examples and
    of their order; the held-out questions are the same for all. Raises UsageError where an example does not fit the model, or the
    folder holds another run.
    """
    if not examples:
        return accuracies(load(path, hardware.backend.name, hardware.device, hardware.dtype), task, count=count)[0]
    run = RunFolder(folder)
    recipe = _recipe(path, task, examples, seed, tuning)
    if run.path.exists() and run.recipe != recipe:
        raise UsageError(f"{folder} holds a run with other settings; choose another --out")
    saved = run.newest() if run.path.exists() else None
    if saved is None or run.position(saved).step < tuning.steps:
        ready = resume(run, hardware) if run.path.exists() else begin(recipe, run, hardware)
        for _ in train(ready, run, hardware):
            pass
    return accuracies(load(run.path, hardware.backend.name, hardware.device, hardware.dtype), task, count=count)[0]


def _recipe(path: Path, task: str, examples: int, seed: int, tuning: Tuning) -> Recipe:
    asked = {
        "model.init_from": path,
        "model.untie": str(tuning.untie).lower(),
        "data.mix": f"primitives:{task}",
        "data.examples": examples,
        "data.rows": tuning.rows,
        "data.length": _row_length(path, task, examples, seed),
        "schedule.steps": tuning.steps,
        "schedule.rate": tuning.rate,
        "schedule.warmup": tuning.steps // 20,
        "train.seed": seed,
        "train.evaluate_every": 0,
        "train.save_every": 0,
        "train.sample_tokens": 0,
        "train.keep": 1,
    }
    return override(Recipe(), [f"{key}={value}" for key, value in asked.items()])


def _row_length(path: Path, task: str, examples: int, seed: int) -> int:
    """Tokens of the longest example with an end-of-text on either side."""
    codec = checkpoint_codec(newest(path))
    texts = [question.text for question in questions(find(task), "train", seed, examples)]
    return max(len(ids) for ids in codec.encode(texts)) + 2


def _longest(model: Model, task: str, count: int, shots: int, seed: int) -> int:
    asked = (request(model, question) for question in few_shot(find(task), seed, count, shots))
    return max(len(each.prompt) + max(map(len, each.options)) for each in asked)
