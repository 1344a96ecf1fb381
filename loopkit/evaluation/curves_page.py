"""Curves as one page, a figure a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopkit.evaluation.curves import Curve
from loopkit.report import plots
from loopkit.report.page import Page, Table, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(curves: Sequence[Curve], axis: str) -> "dict[str, Figure]":
    """A figure for each task: accuracy in percent against ``axis``, with intervals and the line of guessing."""
    found = {}
    for task in dict.fromkeys(curve.task for curve in curves):
        mine = [curve for curve in curves if curve.task == task]
        series = [_series(curve) for curve in mine]
        chance = 100 * mine[0].spots[0].accuracies[0].chance
        series.append(plots.Series("guessing", series[0].x, np.full(len(series[0].x), chance)))
        found[task] = plots.lines(series, title=task, x=axis, y="accuracy, %")
    return found


def page(title: str, curves: Sequence[Curve], drawn: "dict[str, Figure]", command: str) -> Page:
    """All figures and their numbers."""
    pictures = tuple(picture(figure) for figure in drawn.values())
    return Page(title, [("", [pictures, table(curves)])], command)


def table(curves: Sequence[Curve]) -> Table:
    """A row for each model, plan, task and number of examples."""
    return Table(
        ["model", "plan", "task", "examples", "seeds", "accuracy", "95%"],
        [
            [curve.name, curve.plan, curve.task, spot.examples, len(spot.accuracies), f"{100 * spot.mean:.1f}%",
             f"{100 * spot.interval[0]:.0f}..{100 * spot.interval[1]:.0f}"]
            for curve in curves for spot in curve.spots
        ],
    )  # fmt: skip


def _series(curve: Curve) -> plots.Series:
    low, high = np.array([spot.interval for spot in curve.spots]).T * 100
    x = np.array([spot.examples for spot in curve.spots])
    return plots.Series(f"{curve.name} {curve.plan}", x, np.array([100 * spot.mean for spot in curve.spots]), low, high)
