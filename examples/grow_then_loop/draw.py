"""How the story's values become lines, cells of tables and matrices, with their 95% interval over seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from jobs import PROBED
from summaries import Curves, Numbers, Table

from loopkit.evaluation.statistics import mean_interval
from loopkit.probes.common import interval
from loopkit.report import Row, Series, lines, picture


def line_picture(
    table: Table, what: str, models: Sequence[str], title: str, x: str, y_label: str,
    scaled: Callable[[np.ndarray], np.ndarray] = lambda curve: curve, tasks: Sequence[str] = (), y: float | None = None,
) -> Row:  # fmt: skip
    """One picture with a line for each model that has values; none where no model has."""
    series = []
    for model in models:
        places, curves = table.curve(what, model, tasks, y)
        if curves:
            drawn = {seed: found for seed, curve in curves.items() if np.isfinite(found := scaled(curve)).all()}
            series += [_series(table.size.label(model), places, drawn)] if drawn else []
    return (picture(lines(series, title=title, x=x, y=y_label)),) if series else ()


def _series(name: str, places: Sequence[float], curves: Curves) -> Series:
    values = np.array(list(curves.values()))
    return Series(name, np.array(places, int), values.mean(0), *interval(values))


def grid(table: Table, model: str) -> np.ndarray | None:
    cells = [each for each in table.values if each.what == "local-effect" and each.model == model]
    if not cells:
        return None
    total, count = np.zeros((2, table.size.depth, table.size.depth))
    for each in cells:
        total[int(each.y), int(each.x)] += each.value
        count[int(each.y), int(each.x)] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def probed(table: Table) -> list[str]:
    return [model for model in PROBED if model in table.size.models]


def over_last(curve: np.ndarray) -> np.ndarray:
    return curve / (curve[-1] or np.nan)


def in_percent(curve: np.ndarray) -> np.ndarray:
    return 100 * curve


def mean_and_half(found: Numbers, scale: float = 1) -> tuple[float, float]:
    values = [scale * value for value in found.values()]
    mean = sum(values) / len(values)
    return mean, mean_interval(values)[1] - mean if len(values) > 1 else 0.0


def cell(found: Numbers, scale: float = 1, digits: int = 3) -> str:
    """Mean and interval."""
    if not found:
        return ""
    mean, half = mean_and_half(found, scale)
    return f"{mean:.{digits}f}" + (f" [{mean - half:.{digits}f}, {mean + half:.{digits}f}]" if len(found) > 1 else "")


def percent(found: Numbers) -> str:
    return cell(found, 100, 1)


def number(found: Numbers, scale: float = 1) -> float | None:
    return scale * next(iter(found.values())) if found else None
