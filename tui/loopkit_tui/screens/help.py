"""All keys of a screen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

MORE = "Keys are yours to change: keymap.toml in the settings folder, by the names at the right. docs/tui.md says how."


class Help(ModalScreen[None]):
    """What the screen shows, and its keys with their names for a keymap."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "dismiss", "Close"),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, about: str, bindings: Sequence[ActiveBinding]) -> None:
        super().__init__()
        self._about = about
        self._keys = [each.binding for each in bindings if each.binding.id]

    def compose(self) -> ComposeResult:
        """Text, then a line a key."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Help"
            dialog.border_subtitle = "esc closes"
            yield Static(self._about)
            with VerticalScroll():
                yield Static(Content("\n").join(self._lines()), id="keys")
            yield Static(Content.assemble((MORE, "$text-muted")))

    def action_scroll(self, lines: int) -> None:
        """Up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def _lines(self) -> list[Content]:
        """One line an action, with all its keys."""
        by_name: dict[str, list[Binding]] = {}
        for binding in self._keys:
            by_name.setdefault(str(binding.id), []).append(binding)
        lines = [Content("")]
        for name, bindings in by_name.items():
            keys = " ".join(dict.fromkeys(self.app.get_key_display(replace(each, key_display=None)) for each in bindings))
            lines.append(Content.assemble((keys[:18].ljust(19), "bold $primary"), bindings[0].description.ljust(20), (name, "$text-muted")))
        return lines
