"""Write what is seen: as a picture, as numbers, as the command that shows the same."""

import json
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from loopkit.checkpoint.atomic import write_text


class Export(ModalScreen[None]):
    """s writes an SVG, j JSON, c copies the command. Never over a file that is there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "write('svg')", "SVG"),
        Binding("j", "write('json')", "JSON"),
        Binding("c", "copy", "Command"),
        Binding("escape,q,e", "dismiss", "Close"),
    ]

    def __init__(self, key: str, picture: str, seen: Any, command: str, folder: Path) -> None:
        super().__init__()
        self._stem, self._picture, self._seen, self._command, self._folder = f"loopkit-{key}", picture, seen, command, folder

    def compose(self) -> ComposeResult:
        """What there is to choose."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Export what is seen"
            dialog.border_subtitle = "esc closes"
            lines = [("s", f"picture  {self._free('svg').name}"), ("j", f"numbers  {self._free('json').name}"), ("c", "copy the command:")]
            yield Static(Content("\n").join(Content.assemble((f" {key} ", "bold reverse $primary"), f" {text}") for key, text in lines))
            yield Static(Content.assemble(("    " + self._command, "$text-muted")), id="command")

    def action_write(self, kind: str) -> None:
        """One file, and say where it is."""
        path = self._free(kind)
        text = self._picture if kind == "svg" else json.dumps(self._seen, indent=1, ensure_ascii=False, default=_plain) + "\n"
        try:
            write_text(path, text)
        except OSError as error:
            self.app.notify(f"cannot write {path} ({error.strerror})", severity="error", markup=False)
        else:
            self.app.notify(str(path), title="written", markup=False)
        self.dismiss()

    def action_copy(self) -> None:
        """The command to the clipboard."""
        self.app.copy_to_clipboard(self._command)
        self.app.notify(self._command, title="copied", markup=False)
        self.dismiss()

    def _free(self, kind: str) -> Path:
        """A name that is not taken."""
        names = (self._folder / f"{self._stem}{'' if number == 1 else f'-{number}'}.{kind}" for number in range(1, 10000))
        return next(path for path in names if not path.exists())


def _plain(value: Any) -> Any:
    return value.tolist()
