"""Choose what to open: the last ones, runs and checkpoints around here, the hub's cache, or any path."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from loopkit_tui import places
from loopkit_tui.places import Place


class Picker(ModalScreen[tuple[str, ...]]):
    """Type to filter, arrows to choose, Enter to open; or Tab to mark several and Enter to open those. Gives the paths."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(())", "Close"),
        Binding("down,ctrl+n,ctrl+j", "step(1)", "Next", priority=True),
        Binding("up,ctrl+p,ctrl+k", "step(-1)", "Last", priority=True),
        Binding("tab", "mark", "Mark", priority=True),
    ]

    def __init__(self, here: Path, recent: Sequence[str]) -> None:
        super().__init__()
        self._here, self._recent = here, tuple(recent)
        self._places: list[Place] = []
        self._shown: list[Place] = []
        self._marked: list[str] = []

    def compose(self) -> ComposeResult:
        """The filter above the list."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Open"
            dialog.border_subtitle = "↑↓ choose   tab marks several   enter opens   esc closes"
            yield Input(placeholder="type to filter, or a path", compact=True, id="filter")
            yield OptionList(id="places", compact=True)
            yield Static(id="none", classes="hint")

    def on_mount(self) -> None:
        """Look around."""
        self.query_one(OptionList).can_focus = False
        self._places = places.find(self._here, self._recent)
        self._fill("")
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _filter(self, event: Input.Changed) -> None:
        self._fill(event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        options = self.query_one(OptionList)
        typed = Path(event.value).expanduser()
        if event.value and places.look(typed):
            self.dismiss((str(typed), *self._marked))
        elif options.highlighted is not None and self._shown:
            self.dismiss(tuple(self._marked) or (self._shown[options.highlighted].path,))
        else:
            self.query_one("#none", Static).update(f"{event.value} is no checkpoint; make one with: loopkit convert SRC DST")

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(tuple(dict.fromkeys([*self._marked, self._shown[event.option_index].path])))

    def action_step(self, by: int) -> None:
        """Another place."""
        options = self.query_one(OptionList)
        if self._shown:
            options.highlighted = ((options.highlighted or 0) + by) % len(self._shown)

    def action_mark(self) -> None:
        """Open this one too."""
        options = self.query_one(OptionList)
        if options.highlighted is None or not self._shown:
            return
        path, at = self._shown[options.highlighted].path, options.highlighted
        self._marked = [each for each in self._marked if each != path] if path in self._marked else [*self._marked, path]
        self._fill(self.query_one(Input).value)
        options.highlighted = min(at + 1, len(self._shown) - 1)

    def _fill(self, wanted: str) -> None:
        words = wanted.lower().split()
        self._shown = [place for place in self._places if all(word in f"{place.path} {place.about} {place.kind}".lower() for word in words)]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(self._line(place)) for place in self._shown])
        options.highlighted = 0 if self._shown else None
        nothing = "nothing here to open; make a checkpoint with: loopkit convert smollm2-135m-instruct smol"
        self.query_one("#none", Static).update("" if self._shown else nothing if not self._places else "none of that name")

    def _line(self, place: Place) -> Content:
        mark = ("● ", "$success bold") if place.path in self._marked else ("  ", "")
        kind = {"run": "$success", "checkpoint": "$primary", "hub": "$secondary"}[place.kind]
        wide = max(len(_short(each.path, self._here)) for each in self._shown)
        path = _short(place.path, self._here).ljust(wide)
        return Content.assemble(mark, (place.kind.ljust(11), kind), (path, "bold"), (f"  {place.about}", "$text-muted"))


def _short(path: str, here: Path, width: int = 44) -> str:
    """A path as seen from here or from the person's home, its end where it is long."""
    for folder, name in ((f"{here.resolve()}/", ""), (f"{Path.home()}/", "~/")):
        path = name + path[len(folder) :] if path.startswith(folder) else path
    return path if len(path) <= width else "…" + path[1 - width :]
