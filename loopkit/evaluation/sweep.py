"""Every block of layers, run several times, on the same questions: which loops help, and how sure that is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopkit import cost
from loopkit.data.tasks import few_shot, find
from loopkit.errors import UsageError
from loopkit.evaluation.choice import Answers, answer
from loopkit.evaluation.statistics import holm, mcnemar, paired_interval, wilson
from loopkit.evaluation.store import Store
from loopkit.inference.modes import Mode, with_mode
from loopkit.inference.scoring import MEMORY
from loopkit.inference.trie import Step, steps
from loopkit.plan import Repeat
from loopkit.session import Model

AT_ONCE = 8  # questions between two times of saving
ALL = "all"  # the name of all tasks together


@dataclass(frozen=True)
class Settings:
    """What a sweep asks: blocks of these sizes at every start, run so many times in these modes; once is the base plan."""

    tasks: tuple[str, ...]
    blocks: tuple[int, ...] = (4,)
    times: tuple[int, ...] = (2, 3)
    modes: tuple[Mode, ...] = ("plain",)
    count: int = 40
    shots: int = 5
    seed: int = 0
    first: int = 0  # number of the first question


@dataclass(frozen=True)
class Candidate:
    """One block of visits of the model's own plan, repeated."""

    repeat: Repeat
    mode: Mode

    @property
    def plan(self) -> str:
        """Its plan text."""
        return with_mode(str(self.repeat), self.mode)


@dataclass(frozen=True)
class Results:
    """Answers so far: ``right[task]`` bool and ``probability[task]`` float64 ``[plans, count]``, the base plan first; ``done[task]`` bool
    ``[count]`` says which questions have been asked."""

    plans: tuple[str, ...]
    right: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]
    done: dict[str, np.ndarray]

    @property
    def share_done(self) -> float:
        """How much has been asked, 0 to 1."""
        return float(np.mean([done.mean() for done in self.done.values()]))

    def add(self, task: str, answers: Answers) -> None:
        """Take in some answers."""
        asked = list(answers.questions)
        self.right[task][:, asked], self.probability[task][:, asked] = answers.right, answers.probability
        self.done[task][asked] = True


@dataclass(frozen=True)
class Row:
    """One plan on one task, or on all together, beside the base plan on the same questions.

    ``same_as`` is the first plan of the sweep that runs the very same visits: on a looped model several texts may, and count as one.
    ``gained`` and ``lost`` count the questions that only this plan or only the base answers right, ``p`` is McNemar's exact test of
    the two, ``p_holm`` the same after Holm's correction for all plans of the sweep; ``probability`` is the right option's mean
    probability among the options; ``flops`` are inference FLOPs over those of the base plan.
    """

    plan: str
    same_as: str
    task: str
    correct: int
    questions: int
    share: float
    interval: tuple[float, float]
    gained: int
    lost: int
    difference: float
    difference_interval: tuple[float, float]
    p: float
    p_holm: float
    probability: float
    flops: float


def candidates(visits: int, settings: Settings) -> list[Candidate]:
    """Every block at every start. Raises UsageError where a block does not fit the model or nothing is to be repeated."""
    for block in settings.blocks:
        if not 1 <= block <= visits:
            raise UsageError(f"a block of {block} does not fit a plan of {visits} visits; choose --block 1 to {visits}")
    times = [times for times in settings.times if times > 1]
    if not times or min(settings.times) < 1:
        raise UsageError(f"a sweep repeats a block two times or more, got {','.join(map(str, settings.times))}; e.g. --times 1..3")
    return [
        Candidate(Repeat(start, start + block, k), mode)
        for mode in settings.modes
        for block in settings.blocks
        for start in range(visits - block + 1)
        for k in times
    ]


def sweep(model: Model, settings: Settings, folder: Path | None = None, memory: int = MEMORY) -> Iterator[Results]:
    """The same growing Results after every few questions; with a folder they are kept there and a second call goes on.

    Raises UsageError for bad settings, and where the folder holds another sweep.
    """
    plans = ("", *(each.plan for each in candidates(len(model.plan), settings)))
    yield from ask(model, plans, settings, folder, memory)


def ask(model: Model, plans: Sequence[str], settings: Settings, folder: Path | None = None, memory: int = MEMORY) -> Iterator[Results]:
    """Any plans on the settings' questions, as ``sweep`` does; the empty text is the model's own plan."""
    results = _empty(plans, settings)
    store = Store(folder, model, settings, plans) if folder else None
    for task, answers in store.read() if store else ():
        results.add(task, answers)
    yield results
    for task in settings.tasks:
        questions = few_shot(find(task), settings.seed, settings.count, settings.shots, settings.first)
        missing = np.flatnonzero(~results.done[task])
        for chunk in (missing[i : i + AT_ONCE] for i in range(0, len(missing), AT_ONCE)):
            for answers in answer(model, [questions[i] for i in chunk], [plan or None for plan in plans], memory):
                numbered = Answers(tuple(int(chunk[i]) for i in answers.questions), answers.right, answers.probability)
                results.add(task, numbered)
                if store:
                    store.append(task, numbered)
                yield results


def rows(model: Model, results: Results) -> list[Row]:
    """What is known so far, task by task and then all together, in the order of the plans; tasks not begun are left out."""
    asked = {task: done for task, done in results.done.items() if done.any()}
    first = _firsts(model, results.plans)
    found: list[Row] = []
    for task in [*asked, *([ALL] if len(asked) > 1 else [])]:
        parts = list(asked) if task == ALL else [task]
        right = np.concatenate([results.right[part][:, asked[part]] for part in parts], axis=1)
        probability = np.concatenate([results.probability[part][:, asked[part]] for part in parts], axis=1)
        found += _task_rows(model, results.plans, first, task, right, probability)
    return found


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Best first: most right answers, then the higher probability of the right option; each plan once."""
    return sorted({row.plan: row for row in distinct(rows)}.values(), key=lambda row: (-row.correct, -row.probability))


def distinct(rows: Sequence[Row]) -> list[Row]:
    """Those that run what no earlier plan of their sweep does."""
    return [row for row in rows if row.same_as == row.plan]


def what_runs(model: Model, plan: str) -> tuple[Step, ...]:
    """What a plan's text comes to: equal for two texts that run the same. The empty text is the model's own plan."""
    return tuple(steps(model.run(plan or None)))


def best(rows: Sequence[Row]) -> Row:
    """The best plan on all tasks together."""
    return ranked([row for row in rows if row.task == rows[-1].task])[0]


def _firsts(model: Model, plans: Sequence[str]) -> list[int]:
    """For each plan the number of the first that runs the same."""
    seen: dict[tuple[Step, ...], int] = {}
    return [seen.setdefault(what_runs(model, plan), i) for i, plan in enumerate(plans)]


def _task_rows(
    model: Model, plans: Sequence[str], first: Sequence[int], task: str, right: np.ndarray, probability: np.ndarray
) -> Iterator[Row]:
    total = right.shape[1]
    gained, lost = (right & ~right[0]).sum(1), (right[0] & ~right).sum(1)
    p = [mcnemar(int(g), int(worse)) for g, worse in zip(gained, lost, strict=True)]
    base_flops = cost.token_flops(model.spec, model.plan)
    once = sorted({each for each in first if each})
    p_holm = {0: 1.0, **dict(zip(once, holm([p[i] for i in once]), strict=True))}
    for i in range(len(plans)):
        correct = int(right[i].sum())
        yield Row(
            plan=plans[i] or model.text(),
            same_as=plans[first[i]] or model.text(),
            task=task,
            correct=correct,
            questions=total,
            share=correct / total,
            interval=wilson(correct, total),
            gained=int(gained[i]),
            lost=int(lost[i]),
            difference=float(gained[i] - lost[i]) / total,
            difference_interval=paired_interval(int(gained[i]), int(lost[i]), total),
            p=p[i],
            p_holm=p_holm[first[i]],
            probability=float(probability[i].mean()),
            flops=cost.token_flops(model.spec, model.resolve(plans[i] or None)) / base_flops,
        )


def _empty(plans: Sequence[str], settings: Settings) -> Results:
    if settings.count < 1 or not settings.tasks:
        raise UsageError("a sweep needs a task and at least one question, e.g. --task copy-words --count 40")
    shape = (len(plans), settings.count)
    tasks = {find(task).name: task for task in settings.tasks}.values()
    return Results(
        tuple(plans),
        {task: np.zeros(shape, bool) for task in tasks},
        {task: np.zeros(shape) for task in tasks},
        {task: np.zeros(settings.count, bool) for task in tasks},
    )
