"""The lines every screen has in common: the screens by number, the model, what went wrong."""

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from loopkit_tui.engine import About, Loading
from loopkit_tui.widgets.tokens import blocks

BAR = 10  # columns
SCREENS = ("loop", "lens", "sweep", "probes", "train", "compare")


class TopBar(Widget):
    """The screens, the one in front marked; a click goes there. At the right whether the model works."""

    busy: reactive[str] = reactive("")

    def __init__(self, active: str) -> None:
        super().__init__(id="topbar")
        self._active = active

    def render(self) -> Content:
        """One line."""
        tabs = [self._tab(number, name) for number, name in enumerate(SCREENS, 1)]
        line = Content.assemble((" loopkit ", "bold $accent"), *tabs)
        state = Content.assemble((f"● {self.busy} ", "$warning")) if self.busy else Content("")
        gap = self.size.width - line.cell_length - state.cell_length
        return Content.assemble(line, " " * gap, state) if gap >= 0 else line

    def _tab(self, number: int, name: str) -> Content:
        style = "bold reverse" if name == self._active else "$text-muted"
        tab = Content.assemble((f" {number} {name.capitalize()} ", style))
        return tab.stylize(f"@click=app.go('{name}')") if name != self._active else tab


class ModelLine(Static):
    """The model in a line: name, size, layers, where it runs; while it is loaded, how far that is."""

    def show(self, about: About | None, loading: Loading | None = None) -> None:
        """Draw a model, or that there is none."""
        if about is None:
            self.update(Content.assemble((" no model; ", "$text-muted"), ("o", "bold"), (" opens one", "$text-muted")))
            return
        text = f"  {millions(about.parameters)} parameters  {len(about.plan)} visits ({about.layout})  "
        state = Content.assemble((about.where, "$text-muted")) if about.where else _progress(loading)
        self.update(Content.assemble((f" {about.name}", "bold"), (text, "$text-muted"), state))


def _progress(loading: Loading | None) -> Content:
    """How far the loading is."""
    if loading is None or not loading.share:
        return Content.assemble((f"{loading.what if loading else 'waiting'} …", "$warning"))
    return Content.assemble((f"{loading.what} ", "$warning"), (blocks(loading.share, BAR), "$warning on $panel"), f" {loading.share:4.0%}")


class Notice(Static):
    """What went wrong, in a line or two; hidden while all is well."""

    def show(self, text: str) -> None:
        """Say it, or take it away."""
        if text or self.display:
            self.update(Content.assemble((text, "bold $error")))
            self.display = bool(text)


def millions(number: float) -> str:
    """A number as people say it: 134.5M."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.4g}{name}"
    return f"{number:.4g}"
