"""A matrix as coloured cells with a cursor; draws only what is in view."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from loopkit_tui.widgets.colours import change, heat


@dataclass(frozen=True, eq=False)
class Cells:
    """``values [rows, columns]``, NaN where nothing is known, coloured between ``low`` and ``high``; with a ``centre`` better is one
    colour and worse another. ``texts`` go into the cells, ``rows`` and ``columns`` name them."""

    values: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0
    centre: float | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    width: int = 2
    corner: str = ""


class Heatmap(Widget, can_focus=True):
    """Arrows or hjkl move the cursor, so does a click; a second click chooses the cell."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(0,-1)", "Cursor", show=False, id="heatmap.left"),
        Binding("right,l", "move(0,1)", "Cursor right", show=False, id="heatmap.right"),
        Binding("up,k", "move(-1,0)", "Cursor up", show=False, id="heatmap.up"),
        Binding("down,j", "move(1,0)", "Cursor down", show=False, id="heatmap.down"),
        Binding("pageup,ctrl+u", "move(-10,0)", "Ten rows up", show=False, id="heatmap.page_up"),
        Binding("pagedown,ctrl+d", "move(10,0)", "Ten rows down", show=False, id="heatmap.page_down"),
        Binding("home,0", "move(0,-100000)", "First column", show=False, id="heatmap.first"),
        Binding("end,dollar_sign", "move(0,100000)", "Last column", show=False, id="heatmap.last"),
        Binding("g", "move(-100000,0)", "Top row", show=False, id="heatmap.top"),
        Binding("G", "move(100000,0)", "Bottom row", show=False, id="heatmap.bottom"),
    ]

    class Moved(Message):
        """The cursor is on another cell."""

        def __init__(self, row: int, column: int) -> None:
            super().__init__()
            self.row, self.column = row, column

    class Chosen(Moved):
        """The cell under the cursor is wanted."""

    cells: reactive[Cells | None] = reactive(None, always_update=True, layout=True)
    cursor: reactive[tuple[int, int]] = reactive((0, 0))

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002  (textual's own name)
        super().__init__(id=id, classes=classes)
        self._top = self._left = 0

    def validate_cursor(self, cursor: tuple[int, int]) -> tuple[int, int]:
        """Inside of the matrix."""
        if self.cells is None or not self.cells.values.size:
            return (0, 0)
        rows, columns = self.cells.values.shape
        return max(0, min(cursor[0], rows - 1)), max(0, min(cursor[1], columns - 1))

    def watch_cells(self) -> None:
        """Keep the cursor inside."""
        self.cursor = self.validate_cursor(self.cursor)

    def watch_cursor(self) -> None:
        """Say where the cursor is."""
        if self.cells is not None:
            self.post_message(self.Moved(*self.cursor))

    def action_move(self, rows: int, columns: int) -> None:
        """Move the cursor."""
        self.cursor = (self.cursor[0] + rows, self.cursor[1] + columns)

    def action_choose(self) -> None:
        """The cell under the cursor is wanted."""
        if self.cells is not None:
            self.post_message(self.Chosen(*self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor there; a second click chooses."""
        if self.cells is None:
            return
        x, y = event.x - self.gutter.left - self._margin, event.y - self.gutter.top - 1
        place = self._top + y, self._left + x // self.cells.width
        if y >= 0 and x >= 0 and place == self.validate_cursor(place):
            if event.chain > 1 or place == self.cursor:
                self.action_choose()
            self.cursor = place

    def on_mouse_scroll_up(self) -> None:
        """Up."""
        self.action_move(-1, 0)

    def on_mouse_scroll_down(self) -> None:
        """Down."""
        self.action_move(1, 0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Names and all rows."""
        return 1 + (self.cells.values.shape[0] if self.cells else 0)

    @property
    def _margin(self) -> int:
        return max((len(name) for name in (*self.cells.rows, self.cells.corner)), default=0) + 1 if self.cells else 0

    def render(self) -> Content:
        """Names on top and at the left, then the cells in view."""
        cells = self.cells
        if cells is None or not cells.values.size:
            return Content("")
        height, width = max(1, self.size.height - 1), max(1, (self.size.width - self._margin) // cells.width)
        self._top = _window(self.cursor[0], self._top, height, cells.values.shape[0])
        self._left = _window(self.cursor[1], self._left, width, cells.values.shape[1])
        columns = range(self._left, min(self._left + width, cells.values.shape[1]))
        rows = range(self._top, min(self._top + height, cells.values.shape[0]))
        return Content("\n").join([self._head(cells, columns), *(self._row(cells, row, columns) for row in rows)])

    def _head(self, cells: Cells, columns: range) -> Content:
        each = max((len(name) for name in cells.columns), default=1) + 1
        step = max(1, -(-each // cells.width)) if each > cells.width and cells.texts is None else 1
        marks = [(cells.corner.rjust(self._margin - 1) + " ", "$text-muted")]
        for column in columns[::step]:
            room = min(step, columns.stop - column) * cells.width
            here = self.has_focus and column <= self.cursor[1] < column + step
            name = cells.columns[column] if cells.texts or len(cells.columns[column]) <= room else ""
            marks.append((name[:room].ljust(room), "bold" if here else "$text-muted"))
        return Content.assemble(*marks)

    def _row(self, cells: Cells, row: int, columns: range) -> Content:
        here = row == self.cursor[0]
        marks = [(cells.rows[row].rjust(self._margin - 1) + " ", "bold" if here and self.has_focus else "$text-muted")]
        return Content.assemble(*marks, *(self._cell(cells, row, column) for column in columns))

    def _cell(self, cells: Cells, row: int, column: int) -> tuple[str, str]:
        value = float(cells.values[row, column])
        text = cells.texts[row][column][: cells.width].ljust(cells.width) if cells.texts else " " * cells.width
        if np.isnan(value):
            style, text = "$text-disabled", text if text.strip() else "·".center(cells.width)
        elif cells.centre is None:
            style = heat(self.app, (value - cells.low) / ((cells.high - cells.low) or 1.0))
        else:
            style = change(self.app, (value - cells.centre) / (max(cells.high - cells.centre, cells.centre - cells.low) or 1.0))
        if (row, column) == self.cursor:
            text = (
                f"▸{text[1:]}"
                if cells.texts and cells.width > 3
                else "◆".ljust(cells.width)
                if not text.strip() or cells.width < 3
                else text
            )
            style += " bold underline" if self.has_focus else " underline"
        return text, style


def _window(cursor: int, first: int, room: int, total: int) -> int:
    """The first one to show, so that the cursor is in view."""
    first = min(first, cursor)
    first = max(first, cursor - room + 1)
    return max(0, min(first, total - room))
