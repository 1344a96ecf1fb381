"""How a claim is decided: a comparison is the difference of two numbers of each seed, which asked the same questions of both models.

Where the 95% interval of the mean difference over seeds (Student's t) lies above 0 it is reproduced, where it lies below 0 it is not, else
there is too much noise to tell. A claim is reproduced where all its comparisons are, not reproduced where one is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from summaries import Numbers, Table, less, main_source

from loopkit.evaluation.statistics import mean_interval

REPRODUCED, NOT_REPRODUCED, NOISY, MISSING = "reproduced", "not reproduced", "too noisy to tell", "not measured"
DIGITS = 9
Summary = Callable[[Table, str], Numbers]


@dataclass(frozen=True)
class Side:
    """A number of a model; MATHS in its name stands for the main source of maths text. Without a model it is 0."""

    summary: Summary
    model: str


@dataclass(frozen=True)
class Claim:
    """What the paper ``says`` and ``where``, how it is ``measured`` here, and its comparisons (what is claimed to be more, and less).

    ``figure`` is the part of the page that shows it.
    """

    id: str
    figure: str
    says: str
    where: str
    measured: str
    comparisons: tuple[tuple[Side, Side], ...]


@dataclass(frozen=True)
class Outcome:
    """One comparison: the difference by seed, its mean and interval where there are two seeds or more, and the verdict."""

    name: str
    differences: Numbers
    mean: float | None
    interval: tuple[float, float] | None
    verdict: str


MATHS = "+MATHS"


def against(summary: Summary, models: Sequence[str], other: str, lower: bool = False) -> tuple[tuple[Side, Side], ...]:
    """Each model above the other one, or below it."""
    pairs = [(Side(summary, model), Side(summary, other)) for model in models]
    return tuple((low, high) if not lower else (high, low) for low, high in pairs)


def judge(differences: Numbers) -> tuple[float | None, tuple[float, float] | None, str]:
    """Mean, 95% interval and verdict of differences by seed, claimed to be above 0."""
    found = [round(value, DIGITS) for value in differences.values()]  # what equal numbers differ by in rounding is no difference
    if not found:
        return None, None, MISSING
    mean = sum(found) / len(found)
    if len(found) < 2:
        return mean, None, NOISY
    low, high = mean_interval(found)
    return mean, (low, high), REPRODUCED if low > 0 else NOT_REPRODUCED if high < 0 else NOISY


def outcomes(claim: Claim, table: Table) -> list[Outcome]:
    """Each comparison of a claim."""
    found = []
    for high, low in claim.comparisons:
        differences = less(_numbers(high, table), _numbers(low, table))
        found.append(Outcome(_name(high, low, table), differences, *judge(differences)))
    return found


def verdict(found: Sequence[Outcome]) -> str:
    """A claim's verdict from those of its comparisons."""
    verdicts = {each.verdict for each in found}
    for decisive in (NOT_REPRODUCED, MISSING, NOISY):
        if decisive in verdicts:
            return decisive
    return REPRODUCED


def _numbers(side: Side, table: Table) -> Numbers:
    return side.summary(table, _run(side, table)) if side.model else dict.fromkeys(table.size.seeds, 0.0)


def _name(high: Side, low: Side, table: Table) -> str:
    what, model = _spoken(high), table.size.label(_run(high, table))
    if not low.model:
        return f"{what}: {model} above 0"
    if high.model == low.model:
        return f"{model}: {what} above {_spoken(low)}"
    return f"{what}: {model} above {table.size.label(_run(low, table))}"


def _run(side: Side, table: Table) -> str:
    return side.model.replace(MATHS, f"+{main_source(table)}")


def _spoken(side: Side) -> str:
    return side.summary.__name__.replace("_", " ").replace("nll", "NLL").replace("flops", "FLOPs")
