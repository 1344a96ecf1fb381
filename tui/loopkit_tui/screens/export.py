"""Write what is seen: as a picture, as numbers, as the command that shows the same, as a model with the plan for its own."""

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


class Export(ModalScreen[Path]):
    """s writes an SVG, j JSON, c copies the command; m gives the folder for a model with the plan. Never over what is there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "write('svg')", "SVG"),
        Binding("j", "write('json')", "JSON"),
        Binding("c", "copy", "Command"),
        Binding("m", "model", "Model"),
        Binding("escape,q,e", "dismiss", "Close"),
    ]

    def __init__(self, key: str, picture: str, seen: Any, command: str, folder: Path, model: str) -> None:
        super().__init__()
        self._stem, self._picture, self._seen, self._command, self._folder = f"loopkit-{key}", picture, seen, command, folder
        self._model = model

    def compose(self) -> ComposeResult:
        """What there is to choose."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Export what is seen"
            dialog.border_subtitle = "esc closes"
            picture, numbers = (free(self._folder, self._stem, f".{kind}").name for kind in ("svg", "json"))
            lines = [("s", f"picture  {picture}"), ("j", f"numbers  {numbers}")]
            lines += [("m", f"model    {free(self._folder, self._model).name}/  with this plan as its own")] * bool(self._model)
            lines += [("c", "copy the command:")]
            yield Static(Content("\n").join(Content.assemble((f" {key} ", "bold reverse $primary"), f" {text}") for key, text in lines))
            yield Static(Content.assemble(("    " + self._command, "$text-muted")), id="command")

    def action_write(self, kind: str) -> None:
        """One file, and say where it is."""
        path = free(self._folder, self._stem, f".{kind}")
        text = self._picture if kind == "svg" else json.dumps(self._seen, indent=1, ensure_ascii=False, default=_plain) + "\n"
        try:
            write_text(path, text)
        except OSError as error:
            self.app.notify(f"cannot write {path} ({error.strerror})", severity="error", markup=False)
        else:
            self.app.notify(str(path), title="written", markup=False)
        self.dismiss()

    def action_model(self) -> None:
        """Where the model goes."""
        if self._model:
            self.dismiss(free(self._folder, self._model))

    def action_copy(self) -> None:
        """The command to the clipboard."""
        self.app.copy_to_clipboard(self._command)
        self.app.notify(self._command, title="copied", markup=False)
        self.dismiss()


def free(folder: Path, stem: str, suffix: str = "") -> Path:
    """A name that is not taken."""
    names = (folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in range(1, 10000))
    return next(path for path in names if not path.exists())


def _plain(value: Any) -> Any:
    return value.tolist()
