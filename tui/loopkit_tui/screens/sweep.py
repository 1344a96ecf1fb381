"""Sweep: which block, run how often, helps on a task; a heatmap that fills in while the questions are asked."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from loopkit.errors import UsageError
from loopkit_tui.dial import MODES
from loopkit_tui.engine import SweepAsk, SweepCell, SweepState
from loopkit_tui.screens.pane import Pane, label
from loopkit_tui.widgets.heatmap import Cells, Heatmap
from loopkit_tui.widgets.tokens import blocks
from loopkit_tui.worker import Urgency

BOXES = (
    ("task", "copy-words", "small"),
    ("block", "4", "tiny"),
    ("times", "2..3", "tiny"),
    ("mode", "plain", "tiny"),
    ("count", "40", "tiny"),
    ("shots", "5", "tiny"),
)
NAMES = 8  # columns for the names of the heatmap's rows
BEST = 40  # cells in the ranking, as far as there is room


class SweepScreen(Pane):
    """Block start by times, coloured by what it wins or loses against the model as it is."""

    HELP_ABOUT = (
        "Every block of a size at every start is run several times on the same questions. Green answers more of them than the model as it "
        "is, red fewer. s starts, stops and goes on; answers are kept, so a sweep that was stopped goes on later too. Enter puts a cell's "
        "plan on the Loop screen."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "run", "Start/stop", id="sweep.run"),
        Binding("enter", "apply", "Apply plan", id="sweep.apply"),
        Binding("b", "best", "Best cell", id="sweep.best"),
        Binding("slash", "focus_box", "Settings", id="sweep.settings"),
    ]

    def __init__(self) -> None:
        super().__init__("sweep")
        self._state: SweepState | None = None
        self._asked: tuple[str, SweepAsk] | None = None
        self._keys: tuple[list[tuple[int, int]], list[int]] = ([], [])

    def body(self) -> Iterable[Widget]:
        """What is asked, how far it is, the heatmap, the cell under the cursor."""
        boxes = [
            each for name, value, kind in BOXES for each in (label(name), Input(value, id=f"sweep-{name}", compact=True, classes=kind))
        ]
        yield Horizontal(*boxes, id="boxes")
        yield Static(id="progress", classes="hint")
        with Horizontal(classes="split"):
            with Vertical(id="found"):
                yield Heatmap(id="sweep", classes="home")
                yield Static(id="ranking")
            yield Static(id="cell", classes="side")

    def refresh_choice(self) -> None:
        """Another model has another sweep."""
        if self._asked and self.host.choice.paths[:1] != (self._asked[0],):
            self.drop("sweep")
            self._state = self._asked = None
        self._draw()

    def receive(self, kind: str, value: object) -> None:
        """More answers."""
        if isinstance(value, SweepState):
            self._state = value
        self._draw()

    def seen(self) -> Any:
        """All cells."""
        return {"asked": asdict(self._asked[1]) if self._asked else None, "sweep": asdict(self._state) if self._state else None}

    def command(self) -> str:
        """loopkit loop --sweep."""
        ask = self._asked[1] if self._asked else self._read()
        words = ["loopkit", "loop", *self.host.choice.paths[:1], "--sweep", "--task", ask.task, "--block", _listed(ask.blocks)]
        words += ["--times", _listed(ask.times), "--mode", ask.mode, "--count", str(ask.count), "--shots", str(ask.shots)]
        return shlex.join([*words, "--seed", str(ask.seed)])

    def action_run(self) -> None:
        """Start, stop, or go on."""
        if self.drop("sweep"):
            self._draw()
            return
        if self.host.about is None:
            self.problem("open a model first: o")
            return
        try:
            asked = (self.host.choice.paths[0], self._read())
        except UsageError as error:
            self.problem(str(error))
            return
        if asked != self._asked:
            self._asked, self._state = asked, None
        self.problem("")
        self.ask("sweep", lambda emit: self.host.engine.sweep(*asked, emit), Urgency.LONG)
        self._draw()

    def action_apply(self) -> None:
        """Put the cell's plan on the Loop screen."""
        if cell := self._cell(*self.query_one(Heatmap).cursor):
            self.host.choose(replace(self.host.choice, plan=cell.plan))
            self.app.switch_mode("loop")

    def action_best(self) -> None:
        """To the cell with most right answers, of several the one surer of them."""
        if self._state:
            best = max(self._state.cells, key=lambda cell: (cell.correct, cell.probability))
            rows, columns = self._keys
            self.query_one(Heatmap).cursor = (rows.index((best.stop - best.start, best.times)), columns.index(best.start))

    def action_focus_box(self) -> None:
        """Go to the settings."""
        self.query_one("#sweep-task", Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_leave_input()

    def on_heatmap_moved(self, message: Heatmap.Moved) -> None:
        """Show the cell's numbers."""
        self._detail(message.row, message.column)

    def on_heatmap_chosen(self) -> None:
        """Enter, or a second click."""
        self.action_apply()

    def _read(self) -> SweepAsk:
        values = {name: self.query_one(f"#sweep-{name}", Input).value.strip() for name, _, _ in BOXES}
        if values["mode"] not in MODES:
            raise UsageError(f"no mode {values['mode']!r}; modes are {', '.join(MODES)}")
        mode = next(mode for mode in MODES if mode == values["mode"])
        count, shots = (_numbers(name, values[name])[0] for name in ("count", "shots"))
        return SweepAsk(values["task"], _numbers("block", values["block"]), _numbers("times", values["times"]), mode, count, shots)

    def _cell(self, row: int, column: int) -> SweepCell | None:
        rows, columns = self._keys
        if self._state is None or row >= len(rows) or column >= len(columns):
            return None
        wanted = (*rows[row], columns[column])
        return next((cell for cell in self._state.cells if (cell.stop - cell.start, cell.times, cell.start) == wanted), None)

    def _draw(self) -> None:
        state, running = self._state, self.busy("sweep")
        heatmap = self.query_one(Heatmap)
        heatmap.cells = self._cells(state) if state else None
        word = "running, s stops" if running else "s goes on" if state and state.done < 1 else "done" if state else "s starts"
        bar = Content.assemble((blocks(state.done, 24) if state else "", "$primary"), f" {state.done:4.0%} " if state else "")
        about = ""
        if state:
            base = state.base
            about = f"   unlooped {base.correct}/{base.questions} right, {base.share:.1%}"
        self.query_one("#progress", Static).update(Content.assemble(bar, (word, "bold"), about))
        self.query_one("#ranking", Static).update(_ranking(state) if state else "")
        self._detail(*heatmap.cursor)

    def _cells(self, state: SweepState) -> Cells:
        rows = sorted({(cell.stop - cell.start, cell.times) for cell in state.cells})
        columns = sorted({cell.start for cell in state.cells})
        self._keys = rows, columns
        values = np.full((len(rows), len(columns)), np.nan)
        for cell in state.cells:
            values[rows.index((cell.stop - cell.start, cell.times)), columns.index(cell.start)] = 100 * (cell.share - state.base.share)
        wide = 5 if len(columns) * 5 + NAMES < self.query_one(Heatmap).size.width else 2
        texts = tuple(tuple(map(_points, row)) for row in values.tolist()) if wide == 5 else None
        most = max(5.0, float(np.nanmax(np.abs(values))))
        names = tuple(f"{size} ×{times}" for size, times in rows)
        heads = tuple(str(start).rjust(wide - 1 if texts else 0) for start in columns)
        return Cells(values, names, heads, -most, most, 0.0, texts, wide, "start")

    def _detail(self, row: int, column: int) -> None:
        cell, shown = self._cell(row, column), self.query_one("#cell", Static)
        if cell is None or self._state is None:
            shown.update("")
            return
        low, high = cell.interval
        difference = cell.share - self._state.base.share
        sure = "sure" if cell.p < 0.05 else "may be chance"
        lines = [
            Content.assemble((cell.plan, "bold $warning")),
            Content(f"right {cell.correct}/{cell.questions} {cell.share:7.1%}"),
            Content.assemble(("95% ", "$text-muted"), f"{low:.1%} to {high:.1%}"),
            Content.assemble(("change ", "$text-muted"), (f"{100 * difference:+.1f} points", _sign(difference))),
            Content.assemble(("won ", "$text-muted"), f"{cell.gained}", ("  lost ", "$text-muted"), f"{cell.lost}"),
            Content.assemble(("p ", "$text-muted"), f"{cell.p:.3f}", (f" {sure}", "bold" if cell.p < 0.05 else "$text-muted")),
            Content.assemble(("certainty ", "$text-muted"), f"{cell.probability:.1%}"),
            Content.assemble(("FLOPs ", "$text-muted"), f"×{cell.flops:.2f}"),
            Content(""),
            Content.assemble(("p: McNemar's test after Holm's correction for all plans", "$text-muted")),
        ]
        shown.update(Content("\n").join(lines))


def _ranking(state: SweepState) -> Content:
    """The cells with most right answers."""
    best = sorted(state.cells, key=lambda cell: (-cell.correct, -cell.probability))[:BEST]
    lines = [Content.assemble(("best so far   right  points  won lost     p FLOPs", "$text-muted"))]
    for cell in best:
        points = 100 * (cell.share - state.base.share)
        lines.append(
            Content.assemble(
                (f"{cell.start}:{cell.stop}x{cell.times}".ljust(12), "bold"), f"{cell.share:7.1%} ", (f"{points:+7.1f}", _sign(points)),
                f"{cell.gained:5d}{cell.lost:5d} {cell.p:5.3f} ×{cell.flops:.2f}",
            )
        )  # fmt: skip
    return Content("\n").join(lines)


def _points(value: float) -> str:
    """A change in points, blank where there is no such plan."""
    return "" if np.isnan(value) else f"{round(value):+4d} "


def _sign(value: float) -> str:
    return "$success" if value > 0 else "$error" if value < 0 else "$text-muted"


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """``4``, ``2,4`` or ``2..5`` as numbers."""
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        found = tuple(range(int(match[1]), int(match[2]) + 1))
    else:
        found = tuple(int(part) for part in text.split(",")) if re.fullmatch(r"\d+(,\d+)*", text) else ()
    if not found:
        raise UsageError(f"{name} must be numbers, got {text!r}; e.g. 4 or 2,4 or 2..5")
    return found


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
