"""Probes: run one in the background, see its curves and matrices, several checkpoints in one picture."""

import shlex
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from loopkit.errors import UsageError
from loopkit_tui.engine import Drawing, ProbeAsk, Probed, Progress
from loopkit_tui.screens.pane import Pane, label
from loopkit_tui.widgets.heatmap import Cells, Heatmap
from loopkit_tui.widgets.plot import Curves, Plot, Series, short
from loopkit_tui.widgets.tokens import blocks
from loopkit_tui.worker import Urgency

BOXES = (("data", "primitives:var-math-1", ""), ("examples", "4", "tiny"), ("length", "64", "tiny"))


class ProbesScreen(Pane):
    """The probes at the left, what the chosen one found at the right."""

    HELP_ABOUT = (
        "Enter (or r) runs the probe under the cursor on all open checkpoints, under the plan of the dial if there is one; the app stays "
        "usable meanwhile. [ and ] go through its charts. Mark several checkpoints with Tab when opening to see them in one picture."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r,enter", "run", "Run", id="probes.run"),
        Binding("s", "stop", "Stop", id="probes.stop"),
        Binding("j", "step(1)", "Next probe", show=False, id="probes.next"),
        Binding("k", "step(-1)", "Last probe", show=False, id="probes.last"),
        Binding("right_square_bracket,right,l", "chart(1)", "Next chart", key_display="]", id="probes.next_chart"),
        Binding("left_square_bracket,left,h", "chart(-1)", "Last chart", show=False, id="probes.last_chart"),
        Binding("slash", "focus_box", "Settings", id="probes.settings"),
    ]

    def __init__(self) -> None:
        super().__init__("probes")
        self._names: list[tuple[str, str]] = []
        self._found: dict[str, list[Probed]] = {}
        self._chart = 0
        self._progress: Progress | None = None

    def body(self) -> Iterable[Widget]:
        """What to run on, the list, the charts."""
        boxes = [
            each for name, value, kind in BOXES for each in (label(name), Input(value, id=f"probe-{name}", compact=True, classes=kind))
        ]
        yield Horizontal(*boxes, id="boxes")
        yield Static(id="progress", classes="hint")
        with Horizontal(classes="split"):
            yield OptionList(id="names", classes="home", compact=True)
            with Vertical(id="charts"):
                yield Static(id="headline", classes="hint")
                yield Plot(id="plot")
                yield Heatmap(id="matrix")

    def refresh_choice(self) -> None:
        """List the probes once."""
        if not self._names:
            self.ask("names", lambda emit: emit(self.host.engine.probes()), Urgency.NOW)
        self._draw()

    def receive(self, kind: str, value: object) -> None:
        """Names, progress, results."""
        if isinstance(value, list):
            self._names = value
            self._list()
        elif isinstance(value, Progress):
            self._progress = value
        elif isinstance(value, Probed):
            self._found.setdefault(value.name, []).append(value)
            self._list()
        self._draw()

    def seen(self) -> Any:
        """The results that are drawn."""
        return [{"checkpoint": each.label, "plan": each.plan, "headline": each.headline, "result": each.result} for each in self._shown()]

    def command(self) -> str:
        """loopkit probe."""
        paths, plan = self.host.choice.paths, self.host.choice.plan
        words = ["loopkit", "probe", self._probe_name() or "depth-score", *paths[:1]]
        for path in paths[1:]:
            words += ["--against", path]
        words += ["--plan", plan] if plan else []
        return shlex.join([*words, *(word for name, text in self._boxes().items() for word in (f"--{name}", text))])

    def action_run(self) -> None:
        """Run the probe under the cursor."""
        name = self._probe_name()
        if not name or self.host.about is None:
            self.problem("open a model first: o" if name else "")
            return
        try:
            ask = self._read(name)
        except UsageError as error:
            self.problem(str(error))
            return
        self._found[name], self._chart = [], 0
        self.problem("")
        self.ask("probe", lambda emit: self.host.engine.probe(ask, emit), Urgency.LONG)
        self._draw()

    def action_stop(self) -> None:
        """Give it up."""
        if self.drop("probe"):
            self.notify("stopped", timeout=2)
        self._draw()

    def action_step(self, by: int) -> None:
        """Another probe."""
        options = self.query_one("#names", OptionList)
        if options.option_count:
            options.highlighted = max(0, min(options.option_count - 1, (options.highlighted or 0) + by))

    def action_chart(self, by: int) -> None:
        """Another chart."""
        charts = self._charts()
        if charts:
            self._chart = (self._chart + by) % len(charts)
            self._draw()

    def action_focus_box(self) -> None:
        """Go to the settings."""
        self.query_one("#probe-data", Input).focus()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_leave_input()

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_run()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self._chart = 0
        self._draw()

    def _read(self, name: str) -> ProbeAsk:
        values = self._boxes()
        for each in ("examples", "length"):
            if not values[each].isdecimal() or not int(values[each]):
                raise UsageError(f"{each} must be a number of 1 or more, got {values[each]!r}")
        return ProbeAsk(name, self.host.choice.paths, self.host.choice.plan, values["data"], int(values["examples"]), int(values["length"]))

    def _boxes(self) -> dict[str, str]:
        return {name: self.query_one(f"#probe-{name}", Input).value.strip() for name, _, _ in BOXES}

    def _probe_name(self) -> str:
        at = self.query_one("#names", OptionList).highlighted
        return self._names[at][0] if at is not None and at < len(self._names) else ""

    def _shown(self) -> list[Probed]:
        return self._found.get(self._probe_name(), [])

    def _charts(self) -> list[list[tuple[str, Drawing]]]:
        """What can be drawn: curves of all checkpoints together, a matrix for each."""
        found: list[list[tuple[str, Drawing]]] = []
        for column in zip(*([(each.label, drawing) for drawing in each.drawings] for each in self._shown()), strict=False):
            found += [list(column)] if column[0][1].values.ndim == 1 else [[each] for each in column]
        return found

    def _list(self) -> None:
        options = self.query_one("#names", OptionList)
        at = options.highlighted
        options.clear_options()
        options.add_options(
            [Option(Content.assemble(("● " if self._found.get(name) else "  ", "$success"), name)) for name, _ in self._names]
        )
        options.highlighted = min(at or 0, len(self._names) - 1)

    def _draw(self) -> None:
        charts, plot, matrix = self._charts(), self.query_one(Plot), self.query_one(Heatmap)
        self.query_one("#progress", Static).update(self._state())
        chart = charts[min(self._chart, len(charts) - 1)] if charts else []
        curve = bool(chart) and chart[0][1].values.ndim == 1
        plot.display, matrix.display = curve, bool(chart) and not curve
        if curve:
            plot.curves = _curves(chart)
        elif chart:
            matrix.cells = _matrix(chart[0][1])
        self.query_one("#headline", Static).update(self._headline(chart, len(charts)))

    def _state(self) -> Content:
        if self.busy("probe") and self._progress:
            progress = self._progress
            share = progress.done / max(1, progress.total)
            return Content.assemble(
                (blocks(share, 24), "$primary"), f" {progress.done}/{progress.total} ", (progress.what, "bold"), "   s stops"
            )
        about = next((about for name, about in self._names if name == self._probe_name()), "")
        return Content.assemble((about, ""))

    def _headline(self, chart: list[tuple[str, Drawing]], count: int) -> Content:
        if not chart:
            return Content.assemble(("enter", "bold"), " runs this probe")
        lines = [
            Content.assemble((f"chart {self._chart + 1} of {count}", "$text-muted"), "  ", ("[ ]", "bold"), (" another", "$text-muted"))
        ]
        for each in self._shown():
            numbers = "   ".join(f"{name} {short(value) if isinstance(value, float) else value}" for name, value in each.headline.items())
            lines.append(Content.assemble((each.label, "bold"), (f" {each.plan}   ", "$text-muted"), numbers))
        if chart[0][1].values.ndim == 2:
            label, drawing = chart[0]
            values = drawing.values[np.isfinite(drawing.values)]
            ends = f"{short(float(values.min()))} to {short(float(values.max()))}" if values.size else ""
            lines.append(
                Content.assemble(
                    (f"{drawing.title}, {label}", "bold"), (f"   down: {drawing.y}, across: {drawing.x}   {ends}", "$text-muted")
                )
            )
        return Content("\n").join(lines)


def _curves(chart: list[tuple[str, Drawing]]) -> Curves:
    first = chart[0][1]
    series = [Series(label, np.arange(len(drawing.values)), drawing.values) for label, drawing in chart]
    return Curves(tuple(series), first.title, first.x, first.y)


def _matrix(drawing: Drawing) -> Cells:
    values = drawing.values.astype(float)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(np.percentile(finite, 99))) if finite.size else (0.0, 1.0)
    rows, columns = values.shape
    return Cells(values, tuple(map(str, range(rows))), tuple(map(str, range(columns))), low, high, drawing.centre, width=2)
