"""Matplotlib figures in one style, without pyplot's global state: lines, heat maps, scatter plots.

Each function returns a Figure that nothing else holds. Colours are those of Okabe and Ito (2008) and two of matplotlib's maps that
people of any colour vision tell apart; markers and dashes say the same once more.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loopkit.errors import LoopkitError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
WIDTH = 6.4  # inches: half a page at its full width
NAME_OFFSET = (6.0, 4.0)  # points from a point to its name
NUMBER_WIDTH = 0.075  # inches that a digit takes in a cell
STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "text.parse_math": False,  # names may hold dollar signs
    "svg.fonttype": "none",  # text stays text: to search, to copy, to read aloud
    "svg.hashsalt": "loopkit",  # the same figure is the same file
}


@dataclass(frozen=True)
class Series:
    """One line: ``y [n]`` over ``x [n]``, with ``low`` and ``high [n]`` where its spread or interval is known."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Point:
    """One point of a scatter plot; errors are half-widths, or (below, above)."""

    name: str
    x: float
    y: float
    x_error: float | tuple[float, float] = 0.0
    y_error: float | tuple[float, float] = 0.0
    group: str = ""


def require_matplotlib() -> None:
    """Raises LoopkitError with what to install where matplotlib is missing, so that commands can ask before they compute."""
    try:
        import matplotlib  # noqa: F401  (is it there?)
    except ImportError as error:
        raise LoopkitError("plots need matplotlib; install it with: pip install 'loopkit-lm[plot]'") from error


def lines(
    series: Sequence[Series],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    spread: Literal["band", "bars"] = "band",
    log: Literal["", "x", "y", "xy"] = "",
    width: float = WIDTH,
    height: float = 3.6,
) -> "Figure":
    """Lines over a common axis, their spread as shaded bands or error bars; a legend where there are several."""
    with _style():
        figure, axes = _new(title, x, y, width, height)
        for number, each in enumerate(series):
            dashes, marker = DASHES[number % len(DASHES)], _marker(number, len(each.x))
            axes.plot(each.x, each.y, label=each.name, marker=marker, linestyle=dashes, color=_colour(number))
            _spread(axes, each, spread, _colour(number))
        _scales(axes, log)
        if not log.startswith("x") and all(np.issubdtype(np.asarray(each.x).dtype, np.integer) for each in series):
            _whole(axes.xaxis)
        if len(series) > 1:
            axes.legend()
        return figure


def heatmap(
    matrix: np.ndarray,
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    x_labels: Sequence[str] | None = None,
    y_labels: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
    centre: float | None = None,
    digits: int = 2,
    width: float = WIDTH,
) -> "Figure":
    """``matrix [rows, columns]`` as colours, row 0 at the top, with its numbers where they fit; NaN stays white.

    ``centre`` is the value that gets the neutral colour of a map with two arms; ``limits`` are the values at the ends of the map.
    """
    rows, columns = matrix.shape
    with _style():
        cell = (width - 1.4) / columns
        figure, axes = _new(title, x, y, width, float(np.clip(cell * rows, 1.6, 1.2 * width)) + 0.9)
        axes.grid(False)
        low, high = _limits(matrix, limits, centre)
        image = axes.imshow(matrix, cmap="cividis" if centre is None else "PuOr", vmin=low, vmax=high, aspect="auto")
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
        _ticks(axes, x_labels, y_labels)
        if cell >= NUMBER_WIDTH * (digits + 3):
            _numbers(axes, image, matrix, digits)
        return figure


def scatter(
    points: Sequence[Point],
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    width: float = WIDTH,
    height: float = 4.2,
) -> "Figure":
    """Named points with error bars, a colour and marker for each group; names stand beside their points."""
    with _style():
        figure, axes = _new(title, x, y, width, height)
        groups = list(dict.fromkeys(point.group for point in points))
        names = []
        for point in points:
            number = groups.index(point.group)
            axes.errorbar(
                [point.x], [point.y], xerr=_error(point.x_error), yerr=_error(point.y_error), fmt=MARKERS[number % len(MARKERS)],
                color=_colour(number), markersize=6, capsize=2,
            )  # fmt: skip
            names.append(axes.annotate(point.name, (point.x, point.y), xytext=NAME_OFFSET, textcoords="offset points", fontsize=8.5))
        _scales(axes, log)
        axes.margins(0.15)
        if len(groups) > 1:
            axes.legend(handles=[_key(group, number) for number, group in enumerate(groups)])
        _part(figure, names)
        return figure


def _style() -> AbstractContextManager[None]:
    require_matplotlib()
    import matplotlib

    settings: Any = STYLE
    return matplotlib.rc_context(settings)  # type: ignore[no-any-return,unused-ignore]


def _new(title: str, x: str, y: str, width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _marker(number: int, points: int) -> str:
    return MARKERS[number % len(MARKERS)] if points <= 64 else ""


def _spread(axes: "Axes", each: Series, spread: str, colour: str) -> None:
    if each.low is None or each.high is None:
        return
    if spread == "band":
        axes.fill_between(each.x, each.low, each.high, color=colour, alpha=0.18, linewidth=0)
    else:
        error = np.maximum([each.y - each.low, each.high - each.y], 0)
        axes.errorbar(each.x, each.y, yerr=error, fmt="none", ecolor=colour, elinewidth=1.2, capsize=2.5)


def _scales(axes: "Axes", log: str) -> None:
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")


def _limits(matrix: np.ndarray, limits: tuple[float, float] | None, centre: float | None) -> tuple[float, float]:
    finite = matrix[np.isfinite(matrix)]
    low, high = limits or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0))
    if centre is None:
        return low, high
    arm = max(abs(high - centre), abs(centre - low)) or 1.0
    return centre - arm, centre + arm


def _ticks(axes: "Axes", x_labels: Sequence[str] | None, y_labels: Sequence[str] | None) -> None:
    if x_labels is not None:
        long = max(map(len, x_labels), default=0) > 4
        axes.set_xticks(range(len(x_labels)), x_labels, rotation=45 if long else 0, ha="right" if long else "center")
    else:
        _whole(axes.xaxis)
    if y_labels is not None:
        axes.set_yticks(range(len(y_labels)), y_labels)
    else:
        _whole(axes.yaxis)


def _whole(axis: "Axis") -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _numbers(axes: "Axes", image: Any, matrix: np.ndarray, digits: int) -> None:
    for row, column in np.argwhere(np.isfinite(matrix)):
        red, green, blue, _ = image.cmap(image.norm(matrix[row, column]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axes.text(
            column, row, f"{matrix[row, column]:.{digits}f}", ha="center", va="center", fontsize=7.5, color="white" if dark else "black"
        )


def _part(figure: "Figure", names: "Sequence[Annotation]") -> None:
    """Lift each name above those of lower points that it would cover."""
    figure.draw_without_rendering()
    placed: list[Any] = []
    for name in sorted(names, key=lambda name: name.get_window_extent().y0):
        box = start = name.get_window_extent()
        for other in sorted(placed, key=lambda other: other.y0):
            if box.overlaps(other):
                box = box.translated(0, other.y1 - box.y0 + 1)
        x, y = NAME_OFFSET
        name.set_position((x, y + (box.y0 - start.y0) * 72 / figure.dpi))
        placed.append(box)


def _error(error: float | tuple[float, float]) -> Any:
    if isinstance(error, tuple):
        return [[error[0]], [error[1]]]
    return [error] if error else None


def _key(group: str, number: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=_colour(number), marker=MARKERS[number % len(MARKERS)], linestyle="", label=group)
