"""How the story's values become lines, cells of tables and matrices, with their 95% interval over seeds."""

from collections.abc import Callable, Sequence

import numpy as np
from jobs import PROBED
from summaries import Curves, Numbers, Table

from loopkit.evaluation.statistics import mean_interval
from loopkit.probes.common import interval
from loopkit.report import Row, Series, lines, picture

PERCENT = (0.0, 100.0)


def line_picture(
    table: Table, what: str, models: Sequence[str], title: str, x: str, y_label: str,
    scaled: Callable[[np.ndarray], np.ndarray] = lambda curve: curve, tasks: Sequence[str] = (), y: float | None = None,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Row:  # fmt: skip
    """One picture with a line for each model that has values; none where no model has. Bands end at the ``limits`` of what can be."""
    series = []
    for model in models:
        places, curves = table.curve(what, model, tasks, y)
        if curves:
            drawn = {seed: found for seed, curve in curves.items() if np.isfinite(found := scaled(curve)).all()}
            series += [_series(table.size.label(model), places, drawn, limits)] if drawn else []
    return (picture(lines(series, title=title, x=x, y=y_label)),) if series else ()


def accuracy_picture(table: Table, what: str, models: Sequence[str], title: str, x: str, tasks: Sequence[str] = ()) -> Row:
    """The same for accuracies, in percent."""
    return line_picture(table, what, models, title, x, "accuracy, %", in_percent, tasks, limits=PERCENT)


def _series(name: str, places: Sequence[float], curves: Curves, limits: tuple[float, float]) -> Series:
    values = np.array(list(curves.values()))
    low, high = (np.clip(bound, *limits) for bound in interval(values))
    return Series(name, np.array(places, int), values.mean(0), low, high)


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


def percents(found: Numbers) -> Numbers:
    return {seed: 100 * value for seed, value in found.items()}


def bounds(found: Numbers, limits: tuple[float, float] = (-np.inf, np.inf)) -> tuple[float, float, float]:
    """Mean, and the ends of its interval within the ``limits`` of what can be; both the mean where there is one seed."""
    values = list(found.values())
    mean = sum(values) / len(values)
    low, high = mean_interval(values) if len(values) > 1 else (mean, mean)
    return mean, max(low, limits[0]), min(high, limits[1])


def cell(found: Numbers, digits: int = 3, limits: tuple[float, float] = (-np.inf, np.inf)) -> str:
    """Mean and interval."""
    if not found:
        return ""
    mean, low, high = bounds(found, limits)
    return f"{mean:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if len(found) > 1 else "")


def percent(found: Numbers) -> str:
    return cell(percents(found), 1, PERCENT)


def number(found: Numbers, scale: float = 1) -> float | None:
    return scale * next(iter(found.values())) if found else None
