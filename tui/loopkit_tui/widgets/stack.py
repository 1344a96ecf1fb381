"""The layer stack as visits: the model's own plan with the block marked, and below it what runs, one mark a visit."""

from itertools import groupby

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from loopkit.plan import Plan, apply_repeats, parse_repeats
from loopkit_tui.dial import Dial

Mark = tuple[str, str]  # text and style


class VisitStack(Widget, can_focus=True):
    """Click a visit to move the block there, drag to choose another block, turn the wheel for more or fewer repeats."""

    class Turned(Message):
        """The person chose another block or count."""

        def __init__(self, dial: Dial) -> None:
            super().__init__()
            self.dial = dial

    dial: reactive[Dial | None] = reactive(None)
    runs: reactive[Plan] = reactive(())

    def __init__(self) -> None:
        super().__init__(id="stack")
        self._dragged_from: int | None = None
        self.tooltip = "click: move the block; drag: choose one; wheel: repeats"

    @property
    def cell(self) -> int:
        """Columns of a visit of the model's own plan."""
        return max(1, min(6, (self.size.width - 8) // self.dial.visits)) if self.dial else 1

    def render(self) -> Content:
        """Four lines: numbers, the plan, the block's bracket, what runs."""
        if self.dial is None:
            return Content("")
        return Content("\n").join([self._numbers(self.dial), self._layers(self.dial), self._bracket(self.dial), self._visits()])

    def _numbers(self, dial: Dial) -> Content:
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100) if step * self.cell >= 4 or step == 100)
        labels = [str(visit).ljust(self.cell * step) for visit in range(0, dial.visits, step)]
        return Content.assemble(("layers  ", "$text-muted"), ("".join(labels), "$text-muted"))

    def _layers(self, dial: Dial) -> Content:
        looped = dial.times > 1
        marks = [("base    ", "$text-muted")]
        for visit in range(dial.visits):
            inside = dial.start <= visit < dial.stop
            glyph = "▊" * self.cell if self.cell == 1 else "█" * (self.cell - 1) + " "
            marks.append((glyph, "$warning bold" if inside and looped else "$warning" if inside else "$foreground 35%"))
        return Content.assemble(*marks)

    def _bracket(self, dial: Dial) -> Content:
        wide = (dial.stop - dial.start) * self.cell - (self.cell > 1)
        line = "╰" + "─" * (wide - 2) + "╯" if wide > 1 else "╵"
        label = f" {dial.start}:{dial.stop} ×{dial.times}" + (f" {dial.mode}" if dial.mode != "plain" else "")
        before = 8 + dial.start * self.cell
        if before + len(line) + len(label) > self.size.width:
            return Content.assemble((f"{label.strip()} ".rjust(before), "$warning bold"), (line, "$warning"))
        return Content.assemble(" " * before, (line, "$warning"), (label, "$warning bold"))

    def _visits(self) -> Content:
        passes = self._passes()
        room = max(1, self.size.width - 9)
        shown = passes if len(passes) <= room else passes[: room - 1]
        marks: list[Mark] = [("runs    ", "$text-muted")]
        marks += [(("▊" * len(list(group))), _style(key)) for key, group in groupby(shown)]
        return Content.assemble(*marks, ("…" if len(shown) < len(passes) else "", "$text-muted"))

    def _passes(self) -> list[int]:
        """The number of each visit's pass through the block, 0 outside of it; in a plan of another kind the layer's earlier visits."""
        dial = self.dial
        if dial and dial.times > 1 and len(self.runs) == dial.visits + (dial.stop - dial.start) * (dial.times - 1):
            size = dial.stop - dial.start
            middle = [1 + at // size for at in range(size * dial.times)]
            return [0] * dial.start + middle + [0] * (dial.visits - dial.stop)
        seen: dict[int, int] = {}
        found = []
        for layer in self.runs:
            found.append(seen.get(layer, 0))
            seen[layer] = found[-1] + 1
        return found

    def _visit(self, event: events.MouseEvent) -> int | None:
        if self.dial is None:
            return None
        visit = (event.x - self.gutter.left - 8) // self.cell
        return visit if 0 <= visit < self.dial.visits and event.y - self.gutter.top <= 2 else None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin to drag, or move the block."""
        self._dragged_from = self._visit(event)
        if self._dragged_from is not None and self.dial:
            self.capture_mouse()
            self.post_message(self.Turned(self.dial.moved(self._dragged_from - self.dial.start)))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Choose a block."""
        visit = self._visit(event)
        if self._dragged_from is not None and visit is not None and visit != self._dragged_from and self.dial:
            first, last = sorted((self._dragged_from, visit))
            self.post_message(self.Turned(Dial(self.dial.visits, first, last + 1, self.dial.times, self.dial.mode)))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """The block is chosen."""
        self._dragged_from = None
        self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """One repeat more."""
        self._turn(1, event)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """One repeat fewer."""
        self._turn(-1, event)

    def _turn(self, by: int, event: events.MouseEvent) -> None:
        if self.dial:
            event.stop()
            self.post_message(self.Turned(self.dial.repeated(self.dial.times + by)))


def visits_of(dial: Dial, base: Plan) -> Plan:
    """What a dial runs on a model's own plan."""
    return apply_repeats(base, parse_repeats(dial.plan.partition("@")[0])) if dial.plan else base


def _style(number: int) -> str:
    return "$foreground 35%" if number == 0 else "$warning" if number % 2 else "$warning dim"
