"""The trade-off plots of paper figures 1 and 10, and their table, as one page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopkit.evaluation.statistics import mean_interval
from loopkit.evaluation.tradeoffs import Entry, partners
from loopkit.report import plots
from loopkit.report.page import Block, Page, Table, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = (
    ("unique", "unique parameters"),
    ("inference", "inference FLOPs a token"),
    ("training", "training FLOPs"),
)
SIGNS = {"unique": "=params", "inference": "=infer", "training": "=train"}


def page(entries: Sequence[Entry], names: Sequence[str], drawn: "dict[str, Figure]", command: str) -> Page:
    """Table and figures; ``names`` are short ones for the entries, in order, ``drawn`` what ``figures`` gave."""
    sections: list[tuple[str, Sequence[Block]]] = [("", [_words(entries), table(entries, names)])]
    for what, heading in (("accuracy", "Accuracy against cost"), ("nll", "Held-out NLL against cost")):
        shown = tuple(picture(figure) for name, figure in drawn.items() if name.startswith(what))
        sections += [(heading, [shown])] if shown else []
    return Page("Trade-offs", sections, command)


def figures(entries: Sequence[Entry], names: Sequence[str]) -> "dict[str, Figure]":
    """Scatter plots of accuracy and, where it was measured, of NLL against each cost that is known, by file name."""
    found = {}
    for key, cost in COSTS:
        shown = [(name, each) for name, each in zip(names, entries, strict=True) if getattr(each, key) is not None]
        for what, label, value in (("accuracy", "accuracy, %", _accuracy), ("nll", "NLL, nats a token", _nll)):
            known = [(name, getattr(each, key), value(each)) for name, each in shown if what == "accuracy" or each.nll]
            points = [plots.Point(name, x, y, y_error=error, group=name.split()[0]) for name, x, (y, error) in known]
            if points:
                found[f"{what}-{key}"] = plots.scatter(points, title=f"{what} against {cost}", x=cost, y=label)
    return found


def table(entries: Sequence[Entry], names: Sequence[str], tasks: bool = True) -> Table:
    """One row an entry; those of like cost by their numbers. ``tasks`` gives each task a column of its own."""
    shown = [each.task for each in entries[0].accuracies[0]] if tasks and len(entries[0].accuracies[0]) > 1 else []
    rows = []
    for number, (name, each, found) in enumerate(zip(names, entries, partners(entries), strict=True), 1):
        shares = np.mean([[accuracy.share for accuracy in every] for every in each.accuracies], axis=0)
        rows.append([
            number, name, each.layout, len(each.accuracies), f"{100 * each.accuracy:.1f}%",
            f"{100 * each.interval[0]:.0f}..{100 * each.interval[1]:.0f}", *(f"{100 * share:.1f}%" for share in shares[: len(shown)]),
            float(np.mean(each.nll)) if each.nll else None, float(np.mean(each.bits)) if each.bits else None,
            _short(each.unique), _short(each.inference), "" if each.training is None else _short(each.training),
            *(", ".join(str(i + 1) for i in others) for others in found.values()),
        ])  # fmt: skip
    costs = ["params", f"FLOPs/tok ({entries[0].length})", "train"]
    return Table(["#", "model", "layout", "seeds", "acc.", "95%", *shown, "NLL", "bits/byte", *costs, *SIGNS.values()], rows)


def _short(value: float) -> str:
    """1.35e8 as 135M."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def short_names(entries: Sequence[Entry]) -> list[str]:
    """The last part of each path that tells the groups apart, and the plan where a group has several."""
    own = {each.name: each.name.rstrip("/").split("/") for each in entries}
    length = next(n for n in range(1, 100) if len({tuple(parts[-n:]) for parts in own.values()}) == len(own))
    bases = [next(e.plan for e in entries if e.name == each.name) for each in entries]
    return [
        "/".join(own[each.name][-length:]) + (f" {each.plan}" if each.plan != base else "")
        for each, base in zip(entries, bases, strict=True)
    ]


def _words(entries: Sequence[Entry]) -> str:
    first = entries[0].accuracies[0][0]
    return (
        f"{first.questions} questions a task, guessing scores {100 * first.chance:.0f}% on {first.task}. Intervals are over seeds where "
        "there are several, else over questions. NLL is in nats a token. FLOPs a token are the mean over a sequence of "
        f"{entries[0].length} tokens, each attending to those before it. The last columns name the other models (by #) whose unique "
        "parameters (iso-param), inference FLOPs (iso-inference) or training FLOPs (iso-training) are within 5%."
    )


def _accuracy(each: Entry) -> tuple[float, tuple[float, float]]:
    """Percent, and how far the interval reaches below and above."""
    low, high = each.interval
    return 100 * each.accuracy, (max(0.0, 100 * (each.accuracy - low)), max(0.0, 100 * (high - each.accuracy)))


def _nll(each: Entry) -> tuple[float, tuple[float, float]]:
    low, high = mean_interval(each.nll) if len(each.nll) > 1 else (0.0, 0.0)
    return float(np.mean(each.nll)), ((high - low) / 2, (high - low) / 2)
