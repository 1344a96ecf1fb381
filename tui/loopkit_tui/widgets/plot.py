"""Curves in braille with axes and a legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from loopkit_tui.widgets.colours import series as colour

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
AXIS = 8  # columns of numbers
MANY = 4  # points of a curve in a column of dots, from which on only their ends are drawn


@dataclass(frozen=True, eq=False)
class Series:
    """A curve; NaN leaves a gap."""

    label: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, eq=False)
class Curves:
    """What a plot shows. ``steps`` draws a staircase."""

    series: tuple[Series, ...]
    title: str = ""
    x: str = ""
    y: str = ""
    steps: bool = False
    floor: float | None = None


class Plot(Widget):
    """Draws Curves into the room it has."""

    curves: reactive[Curves | None] = reactive(None, always_update=True)

    def render(self) -> Content:
        """Title, canvas with numbers at the left, numbers below."""
        curves = self.curves
        drawn = [each for each in curves.series if np.isfinite(each.y).any()] if curves else []
        width, height = self.size.width - AXIS - 1, self.size.height - 3
        if curves is None or not drawn or width < 8 or height < 2:
            return Content.assemble((curves.title if curves else "", "bold"))
        (left, right), (low, high) = _limits([each.x for each in drawn]), _limits([each.y for each in drawn], curves.floor)
        masks, owners = _canvas(drawn, (left, right, low, high), width, height, curves.steps)
        lines = [_title(curves, self.size.width)]
        ticks = _ticks(low, high, height)
        for row in range(height):
            number = ticks.get(row, "").rjust(AXIS - 1)
            lines.append(Content.assemble((number + " ", "$text-muted"), ("│", "$text-disabled"), *_row(masks[row], owners[row])))
        lines.append(Content.assemble((" " * AXIS + "└" + "─" * width, "$text-disabled")))
        ends = short(left) + curves.x.center(width - len(short(left)) - len(short(right))) + short(right)
        lines.append(Content.assemble((" " * (AXIS + 1) + ends, "$text-muted")))
        return Content("\n").join(lines)


def short(value: float) -> str:
    """A number in at most seven columns."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.1e}"
    return f"{value:.4g}"


def _ticks(low: float, high: float, height: int) -> dict[int, str]:
    """Round numbers by row, highest first, about five where there is room; the two ends where there is none."""
    values = _round_numbers(low, high, 5 if height > 10 else 4) if height > 4 else [high, low]
    return {round((high - value) / (high - low) * (height - 1)): number for value, number in zip(values, aligned(values), strict=True)}


def _round_numbers(low: float, high: float, count: int) -> list[float]:
    """The multiples from high to low of the least round step that gives no more than ``count`` steps."""
    least = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(least))
    step = next(each for each in (scale, 2 * scale, 2.5 * scale, 5 * scale, 10 * scale) if each >= least * (1 - 1e-9))
    return [n * step for n in range(math.floor(high / step + 1e-9), math.ceil(low / step - 1e-9) - 1, -1)]


def aligned(values: Sequence[float]) -> list[str]:
    """Numbers with as many decimals as the one that needs most, where there is room for that."""
    plain = [short(value) for value in values]
    decimals = max(len(each.partition(".")[2]) for each in plain)
    whole = [f"{value:.{decimals}f}" for value in values]
    return plain if any("e" in each for each in plain) or max(map(len, whole)) >= AXIS else whole


def _title(curves: Curves, width: int) -> Content:
    legend = [(f"  ━ {each.label}", colour(number)) for number, each in enumerate(curves.series)] if len(curves.series) > 1 else []
    title, unit = Content.assemble((curves.title, "bold")), Content.assemble((f" ({curves.y})" if curves.y else "", "$text-muted"))
    whole = Content.assemble(title, unit, *legend)
    return (whole if whole.cell_length <= width else Content.assemble(title, *legend)).truncate(width, ellipsis=True)


def _limits(arrays: Sequence[np.ndarray], floor: float | None = None) -> tuple[float, float]:
    values = np.concatenate([np.asarray(array, float) for array in arrays])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    low = low if floor is None else min(low, floor)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _canvas(
    drawn: Sequence[Series], limits: tuple[float, float, float, float], width: int, height: int, steps: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Braille masks and the number of the curve that owns each cell, the first of several, ``[height, width]`` each."""
    masks, owners = np.zeros((height, width), int), np.full((height, width), -1)
    left, right, low, high = limits
    for number, each in reversed(list(enumerate(drawn))):
        x = (np.asarray(each.x, float) - left) / (right - left) * (2 * width - 1)
        y = (high - np.asarray(each.y, float)) / (high - low) * (4 * height - 1)
        for column, row in _points(*_thinned(x, y), steps):
            masks[row // 4, column // 2] |= DOTS[row % 4, column % 2]
            owners[row // 4, column // 2] = number
    return masks, owners


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest of the points in each column of dots, where a curve has many and no gaps."""
    column = np.round(x)
    starts = np.flatnonzero(np.r_[True, column[1:] != column[:-1]])
    if len(x) < MANY * len(starts) or not (np.isfinite(x) & np.isfinite(y)).all():
        return x, y
    ends = np.stack([np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)], 1)
    return np.repeat(column[starts], 2), ends.reshape(-1)


def _points(x: np.ndarray, y: np.ndarray, steps: bool) -> set[tuple[int, int]]:
    """The dots of a curve, with straight lines between neighbours."""
    found: set[tuple[int, int]] = set()
    good = np.isfinite(x) & np.isfinite(y)
    for i in range(len(x)):
        if not good[i]:
            continue
        found.add((round(x[i]), round(y[i])))
        if i and good[i - 1]:
            corner = [(x[i - 1], y[i - 1]), (x[i], y[i - 1]), (x[i], y[i])] if steps else [(x[i - 1], y[i - 1]), (x[i], y[i])]
            for (x0, y0), (x1, y1) in pairwise(corner):
                count = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
                found |= {(round(x0 + (x1 - x0) * k / count), round(y0 + (y1 - y0) * k / count)) for k in range(count)}
    return found


def _row(masks: np.ndarray, owners: np.ndarray) -> list[tuple[str, str]]:
    return [
        (chr(0x2800 + int(mask)) if mask else " ", colour(int(owner)) if owner >= 0 else "")
        for mask, owner in zip(masks, owners, strict=True)
    ]
