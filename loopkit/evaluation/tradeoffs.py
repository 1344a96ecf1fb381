"""What a model scores against what it costs: unique parameters, inference FLOPs, training FLOPs (paper, figures 1 and 10)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loopkit import cost
from loopkit.data.loading import Packing, open_batches
from loopkit.data.mixture import Mixture, parse_mixture
from loopkit.data.tokenizers import checkpoint_codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.choice import Accuracy, accuracies
from loopkit.evaluation.statistics import share_interval, wilson
from loopkit.progress import Bars, Progress, quiet, silent
from loopkit.session import Model, load
from loopkit.training.folder import RunFolder

LIKE = 0.05  # costs that differ by no more than this share count as the same
AT_ONCE = 8  # rows of held-out text


@dataclass(frozen=True)
class Group:
    """Checkpoints that differ in their seed only."""

    name: str
    members: tuple[Path, ...]


@dataclass(frozen=True)
class Entry:
    """A group under one plan. Costs are of one member: they are the same for all.

    ``inference`` is FLOPs a token, the mean over a sequence of ``length`` tokens with its causal attention; ``training`` is FLOPs in
    all, None for a checkpoint that no run of ours made.
    ``nll`` is nats a token of held-out text by member, and ``bits`` a byte.
    """

    name: str
    plan: str
    layout: str
    unique: int
    length: int
    inference: float
    training: float | None
    accuracies: tuple[tuple[Accuracy, ...], ...]  # by member, then by task
    nll: tuple[float, ...] = ()
    bits: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """Mean over members and tasks."""
        return float(np.mean(self._means))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy: of the mean over seeds (Student's t), or with one seed over questions (Wilson)."""
        if len(self._means) > 1:
            return share_interval(self._means)
        every = self.accuracies[0]
        return wilson(sum(each.correct for each in every), sum(each.questions for each in every))

    @property
    def _means(self) -> list[float]:
        return [float(np.mean([each.share for each in every])) for every in self.accuracies]


def groups(paths: Sequence[Path]) -> list[Group]:
    """One group a path: a checkpoint, a run, or a folder of runs ``seed_0``, ``seed_1``, ... Raises LoopkitError where there is none."""
    found = []
    for path in paths:
        seeds = sorted(path.glob("seed_*"))
        if not path.exists():
            raise LoopkitError(f"{path} does not exist; give checkpoints, runs or folders of runs")
        found.append(Group(str(path), tuple(seeds) or (path,)))
    return found


@dataclass(frozen=True)
class HeldOut:
    """Text that NLL is measured on: the first ``rows`` held-out rows of a mixture, as ``packing`` lays them out."""

    mixture: Mixture
    rows: int
    packing: Packing


def held_out(found: Sequence[Group], mix: str | None, rows: int, length: int) -> HeldOut | None:
    """Rows of ``length`` tokens of a mixture, by default that of the groups' runs; None where these differ or are no runs.

    Documents are laid out as the runs' recipes say (data.documents, shots and answers) where that is the same for all, else as recipes do
    that say nothing; no more of them is held out than every run held out. Raises UsageError on a mixture that cannot be read.
    """
    members = [path for group in found for path in group.members]
    recipes = [run.recipe.data for run in map(RunFolder, members) if run.begun]
    layouts = {(each.documents, each.shots, each.answers, each.limit) for each in recipes}
    mixes = {each.mix for each in recipes} if len(recipes) == len(members) else set()
    if mix is None and len(mixes) != 1:
        return None
    mixture = parse_mixture(mixes.pop() if mix is None else mix)
    mixture.check()
    packing = Packing(AT_ONCE, length)
    packing = replace(packing, heldout=min([packing.heldout, *(each.heldout for each in recipes)]))
    if len(layouts) == 1:
        documents, shots, answers, limit = layouts.pop()
        packing = replace(packing, documents=documents, shots=shots, answers=answers, limit=limit or None)
    return HeldOut(mixture, rows, packing)


def measure(
    group: Group,
    plans: Sequence[str | None],
    tasks: Sequence[str],
    *,
    count: int = 100,
    shots: int = 0,
    seed: int = 0,
    text: HeldOut | None = None,
    length: int = 256,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    bars: Bars = silent,
) -> Iterator[Entry]:
    """An entry for each plan, with its NLL on ``text``, if any; inference costs are for sequences of ``length`` tokens."""
    scores: list[list[tuple[Accuracy, ...]]] = [[] for _ in plans]
    losses: list[list[tuple[float, float]]] = [[] for _ in plans]
    for path in group.members:
        bars(f"loading {path}")(0, 1)
        model = load(path, backend, device, dtype)
        by_task = [accuracies(model, task, plans, count, shots, seed, progress=bars(f"{task} of {path}")) for task in tasks]
        for i, plan in enumerate(plans):
            scores[i].append(tuple(found[i] for found in by_task))
            if text:
                losses[i].append(nll(model, plan, text, bars(f"held-out text of {path}")))
    for i, plan in enumerate(plans):
        yield Entry(
            group.name,
            model.text(plan),
            model.spec.layout,
            cost.parameters(model.spec),
            length,
            cost.sequence_flops(model.spec, length, model.resolve(plan)) / length,
            _training_flops(group.members[0]),
            tuple(scores[i]),
            tuple(nll for nll, _ in losses[i]),
            tuple(bits for _, bits in losses[i]),
        )


def nll(model: Model, plan: str | None, text: HeldOut, progress: Progress = quiet) -> tuple[float, float]:
    """Mean negative log-likelihood of held-out text, in nats a token and in bits a byte."""
    codec = checkpoint_codec(model.checkpoint.path)
    length = min(text.packing.length, model.spec.max_position_embeddings - 1)  # the last token of a row is a target only
    batches = open_batches(text.mixture, codec, replace(text.packing, length=length), "evaluation")
    total = tokens = size = 0.0
    steps = math.ceil(text.rows / AT_ONCE)
    for number in range(steps):
        progress(number, steps)
        batch = batches.numbered(np.arange(number * AT_ONCE, min((number + 1) * AT_ONCE, text.rows)))
        documents = None if batch.documents is None else np.pad(batch.documents, ((0, 0), (0, 1)), "edge")
        found = model.nll(np.concatenate([batch.ids, batch.targets[:, -1:]], axis=1), plan, documents)
        counts = np.ones(found.shape, bool) if batch.loss_mask is None else batch.loss_mask
        total, tokens = total + float(found[counts].sum()), tokens + int(counts.sum())
        counts = counts & (batch.targets != codec.end_id)  # ends of documents are no bytes of the text
        size += sum(len(codec.decode(row[mask]).encode()) for row, mask in zip(batch.targets, counts, strict=True))
    progress(steps, steps)
    return total / tokens, total / math.log(2) / max(size, 1)


def partners(entries: Sequence[Entry]) -> list[dict[str, list[int]]]:
    """For each entry the other groups' entries of like unique parameters, inference FLOPs and training FLOPs, by index."""

    def like(a: float | None, b: float | None) -> bool:
        return a is not None and b is not None and abs(a - b) <= LIKE * max(a, b)

    kinds = ("unique", "inference", "training")
    return [
        {
            kind: [j for j, other in enumerate(entries) if other.name != each.name and like(getattr(each, kind), getattr(other, kind))]
            for kind in kinds
        }
        for i, each in enumerate(entries)
    ]


def _training_flops(path: Path) -> float | None:
    """What the run of a checkpoint has spent; None where it has none."""
    run = RunFolder(path)
    if not run.begun:
        return None
    saved = run.newest()
    if saved is None:
        raise UsageError(f"{path} has no checkpoint yet; train it further with --resume")
    return run.position(saved).flops
