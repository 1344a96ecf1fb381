"""From results to figures and to a page that sets checkpoints side by side, as the paper's figures 2 to 5 do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from loopkit.probes.registry import PROBES
from loopkit.probes.result import Chart, Curve, Grid, Result
from loopkit.report import Block, Row, Series, Table, heatmap, lines, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 4.6  # inches of a matrix that stands beside others


def pictures(results: Mapping[str, Result]) -> list[Row]:
    """The figures of one probe's results on several checkpoints, by label; a list for each chart.

    Curves of all checkpoints share a figure, matrices get one each on one scale of colours.
    """
    columns = zip(*(result.charts for result in results.values()), strict=False)
    return [tuple(picture(figure) for figure in _chart(dict(zip(results, charts, strict=True)))) for charts in columns]


def section(results: Mapping[str, Result], drawn: Sequence[Row]) -> tuple[str, list[Block]]:
    """One probe's part of a page: what it shows, its headline numbers, its figures as ``pictures`` gives them."""
    probe = PROBES[next(iter(results.values())).probe]
    curves = tuple(one for row in drawn if len(row) == 1 for one in row)
    grids = [row for row in drawn if len(row) > 1]
    return probe.name, [probe.about, headlines(results), *([curves] if curves else []), *grids]


def headlines(results: Mapping[str, Result]) -> Table:
    """One row a checkpoint: its plan and what its result says in short."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.headline))
    rows = [(label, result.plan, *(result.headline.get(name) for name in names)) for label, result in results.items()]
    return Table(("checkpoint", "plan", *names), rows)


def _chart(charts: Mapping[str, Chart]) -> list["Figure"]:
    curves = {label: chart for label, chart in charts.items() if isinstance(chart, Curve)}
    if curves:
        first = next(iter(curves.values()))
        return [lines([_series(label, each) for label, each in curves.items()], title=first.title, x=first.x, y=first.y)]
    grids = {label: chart for label, chart in charts.items() if isinstance(chart, Grid)}
    limits = _limits([grid.values for grid in grids.values()])
    return [
        heatmap(grid.values, title=f"{grid.title}, {label}", x=grid.x, y=grid.y, limits=limits, centre=grid.centre, width=SIDE)
        for label, grid in grids.items()
    ]


def _series(label: str, curve: Curve) -> Series:
    return Series(label, np.arange(len(curve.values)), curve.values, curve.low, curve.high)


def _limits(matrices: Sequence[np.ndarray]) -> tuple[float, float]:
    """The ends of the scale: the least and the 99th percentile of all, so that one giant cell leaves the others their colours."""
    finite = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    return (float(finite.min()), float(np.percentile(finite, 99))) if finite.size else (0.0, 1.0)
