"""Charts of several checkpoints: curves in one figure, matrices on one scale, headline numbers in one table."""

from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
import pytest
from strategies import random_ids

from loopkit.probes import PROBES
from loopkit.probes.draw import _chart, headlines, pictures, section
from loopkit.probes.result import Curve, Grid, Result
from loopkit.report import Page
from loopkit.report.page import render


@pytest.fixture(scope="module")
def results(make: Any) -> dict[str, dict[str, Result]]:
    """Two probes on two models, under plans of different depth."""
    model, ids = make("torch"), random_ids(make("torch").spec, 2, 24)
    plans = {"short": None, "long": "1:3x2"}
    return {
        name: {label: PROBES[name].run(model, ids, plan) for label, plan in plans.items()} for name in ("residual-norms", "local-effects")
    }


def test_curves_share_a_figure(results: dict[str, dict[str, Result]]) -> None:
    charts = {label: result.charts[0] for label, result in results["residual-norms"].items()}
    (figure,) = _chart(charts)
    drawn = figure.axes[0].lines
    assert [line.get_label() for line in drawn] == ["short", "long"]
    for line, chart in zip(drawn, charts.values(), strict=True):
        assert isinstance(chart, Curve)
        np.testing.assert_array_equal(line.get_ydata(), chart.values)
    assert [len(line.get_xdata()) for line in drawn] == [7, 9]


def test_matrices_share_a_scale_that_one_giant_does_not_own() -> None:
    rng = np.random.default_rng(0)
    first, second = (Grid("t", "x", "y", rng.random((20, 20))) for _ in range(2))
    first.values[3, 4] = 1000.0
    figures = _chart({"a": first, "b": replace(second, values=second.values / 2)})
    limits = [figure.axes[0].images[0].get_clim() for figure in figures]
    assert limits[0] == limits[1]
    assert limits[0][1] < 1.1
    assert [figure.axes[0].get_title() for figure in figures] == ["t, a", "t, b"]


def test_a_section_says_all(results: dict[str, dict[str, Result]]) -> None:
    table = headlines(results["local-effects"])
    assert [row[:2] for row in table.rows] == [("short", "1-2x2-1"), ("long", "1:3x2")]
    assert table.columns[2:] == ("mean effect", "depth score of the rows")
    for by_label in results.values():
        drawn = pictures(by_label)
        html = unescape(render(Page("t", [section(by_label, drawn)])))
        assert html.count("<svg") == sum(map(len, drawn))
        for result in by_label.values():
            assert PROBES[result.probe].about in html
            assert all(f"{value:.4g}" in html for value in result.headline.values() if isinstance(value, float))
