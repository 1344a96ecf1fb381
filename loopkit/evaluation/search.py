"""Looking beyond one block: a beam search over plans of several blocks with counts of their own, within a budget of plans.

Round by round the best plans so far are joined with the best single blocks. The winner is then asked questions that the search has
never seen, beside the base plan: the winner's own score on the search questions is too good, having been picked for it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loopkit.errors import UsageError
from loopkit.evaluation.statistics import holm
from loopkit.evaluation.sweep import Results, Row, Settings, ask, candidates, ranked, rows, what_runs
from loopkit.inference.modes import split_mode, with_mode
from loopkit.inference.scoring import MEMORY
from loopkit.plan import parse_repeats
from loopkit.session import Model

BEAM = 6  # plans that are joined with so many single blocks


@dataclass(frozen=True)
class Progress:
    """Where a search is: its round (0 for the held-out questions), the plans asked in all rounds so far, and this round's answers."""

    round: int
    asked: int
    results: Results


@dataclass(frozen=True)
class Found:
    """The winner on the search questions and on the held-out ones, and all plans of the search, best first."""

    winner: Row
    heldout: Row
    tried: tuple[Row, ...]


def search(model: Model, settings: Settings, budget: int, folder: Path | None = None, memory: int = MEMORY) -> Iterator[Progress | Found]:
    """Progress after every few questions, at last what was Found; ``budget`` bounds the plans asked, the base plan among them.

    Held-out questions are as many as the search's, the ones that follow them. With a folder every round is kept in it, and a second
    call goes on. Raises UsageError for bad settings or a budget too small for a single block.
    """
    if budget < 2:
        raise UsageError(f"a search needs a budget of at least 2 plans, got {budget}")
    singles = _spread(_new(model, (each.plan for each in candidates(len(model.plan), settings)), []), budget - 1)
    plans, number = singles, 1
    tried: list[Row] = []
    known: list[str] = []
    while plans:
        known += plans
        for results in ask(model, ["", *plans], settings, folder and folder / f"round-{number}", memory):
            yield Progress(number, len(known) + 1, results)
        tried = ranked([*tried, *_overall(rows(model, results))])
        plans = _new(model, _joined(tried, singles, model.text()), known)[: budget - 1 - len(known)]
        number += 1
    tried = _corrected(tried, model.text())
    winner = tried[0]
    later = replace(settings, first=settings.first + settings.count)
    wanted = [] if winner.plan == model.text() else [winner.plan]
    for results in ask(model, ["", *wanted], later, folder and folder / "held-out", memory):
        yield Progress(0, len(known) + 1, results)
    yield Found(winner, _overall(rows(model, results))[-1], tuple(tried))


def _new(model: Model, plans: Iterable[str], known: Sequence[str]) -> list[str]:
    """The plans that run what neither a known one, nor one before them, nor the model as it is does."""
    seen = {what_runs(model, plan) for plan in ("", *known)}
    found = []
    for plan in plans:
        if (what := what_runs(model, plan)) not in seen:
            seen.add(what)
            found.append(plan)
    return found


def _overall(found: Sequence[Row]) -> list[Row]:
    return [row for row in found if row.task == found[-1].task]


def _spread(plans: Sequence[str], most: int) -> list[str]:
    """At most so many of the plans, evenly spaced."""
    return [plans[i * len(plans) // most] for i in range(most)] if len(plans) > most else list(plans)


def _corrected(tried: Sequence[Row], base: str) -> list[Row]:
    """With Holm's correction for the plans of all rounds: those of the later ones were picked among the earlier."""
    p_holm = dict(zip((row.plan for row in tried if row.plan != base), holm([row.p for row in tried if row.plan != base]), strict=True))
    return [replace(row, p_holm=p_holm.get(row.plan, row.p_holm)) for row in tried]


def _joined(tried: Sequence[Row], singles: Sequence[str], base: str) -> Iterator[str]:
    """The best plans with each of the best single blocks added or put in the place of those that it overlaps, best pairs first."""
    blocks = [row.plan for row in tried if row.plan in singles][:BEAM]
    heads = [row.plan for row in tried if row.plan != base][:BEAM]
    pairs = sorted(((i + j, head, block) for i, head in enumerate(heads) for j, block in enumerate(blocks)), key=lambda pair: pair[0])
    made = (_join(head, block) for _, head, block in pairs)
    yield from dict.fromkeys(plan for plan in made if plan)


def _join(plan: str, block: str) -> str | None:
    """Both together; None where their modes differ or nothing of the plan is left."""
    (text, mode), (added, other) = split_mode(plan), split_mode(block)
    (new,) = parse_repeats(added)
    kept = [each for each in parse_repeats(text) if each.stop <= new.start or each.start >= new.stop]
    return with_mode(",".join(map(str, sorted([*kept, new]))), mode) if kept and mode == other else None
