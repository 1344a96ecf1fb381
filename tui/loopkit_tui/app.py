"""The app: screens by number, what is chosen, the model that loads behind, keys and themes."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from loopkit_tui import keymap, settings
from loopkit_tui.engine import About, Engine, Loading, Prompt, Side
from loopkit_tui.host import Choice
from loopkit_tui.screens.pane import Answered, Pane
from loopkit_tui.widgets.topbar import SCREENS
from loopkit_tui.worker import Done, Failed, Stopped, Worker


def _screen(name: str) -> Callable[[], Screen[Any]]:
    def make() -> Screen[Any]:
        from loopkit_tui import screens

        return screens.make(name)

    return make


class LoopkitApp(App[None]):
    """``make_engine`` gets the worker's ``breathe``; it is called on the worker's thread, so that the first screen waits for nothing."""

    TITLE = "loopkit"
    CSS_PATH = "app.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {name: _screen(name) for name in SCREENS}
    DEFAULT_MODE = "loop"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012  (so in textual)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go('{name}')", name.capitalize(), show=False, id=f"app.{name}") for number, name in enumerate(SCREENS, 1)),
        Binding("o", "pick", "Open", show=False, id="app.open"),
        Binding("e", "export", "Export", id="app.export"),
        Binding("y", "copy_command", "Copy command", show=False, id="app.copy"),
        Binding("t", "next_theme", "Theme", show=False, id="app.theme"),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding("q", "quit", "Quit", id="app.quit"),
        Binding("ctrl+c", "interrupt", "Stop", show=False, id="app.stop", system=True),
    ]

    def __init__(
        self,
        make_engine: Callable[[Callable[[], None]], Engine],
        paths: Sequence[str] = (),
        plan: str | None = None,
        prompt: str | None = None,
        chat: bool = False,
        screen: str = "loop",
        home: Path | None = None,
        here: Path | None = None,
    ) -> None:
        super().__init__()
        self.home = home or settings.home()
        self.here = here or Path()
        self.kept = settings.read(self.home)
        self._own_keys = keymap.read(self.home)
        text = self.kept.prompt if prompt is None else prompt
        last = self.kept.plan if len(paths) < 2 else ""  # the last plan was made for one model
        self.choice = Choice(tuple(paths), last if plan is None else plan, Prompt(text, chat or self.kept.chat), self.kept.tokens)
        self.abouts: dict[str, About] = {}
        self.worker = Worker()
        self.unkept = ""  # why the settings could not be kept, once the app has ended
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._first = screen
        self._opening: dict[str, int] = {}
        self._before: tuple[str, ...] = ()  # what to go back to where a checkpoint does not open

    @property
    def engine(self) -> Engine:
        """Made on the first request, on whichever thread that runs."""
        if self._engine is None:
            self._engine = self._make_engine(self.worker.breathe)
        return self._engine

    @property
    def about(self) -> About | None:
        """The model the screens are about."""
        return self.abouts.get(self.choice.paths[0]) if self.choice.paths else None

    def on_mount(self) -> None:
        """Theme and keys, then the models or the picker."""
        self.theme = self.kept.theme if self.kept.theme in self.available_themes else "textual-dark"
        self.set_keymap(self._own_keys)
        if self._first != "loop":
            self.switch_mode(self._first)
        if self.choice.paths:
            self.call_after_refresh(self.open, self.choice.paths)
        else:
            self.call_after_refresh(self.action_pick)

    def open(self, paths: Sequence[str]) -> None:
        """Make the screens be about these checkpoints and load the first."""
        self._before = self.choice.paths if self.about else self._before
        plan = "" if len(paths) > 1 and self.choice.paths != tuple(paths) else self.choice.plan  # it was made for one model
        self.choice = replace(self.choice, paths=tuple(paths), plan=plan)
        for path in paths:
            self.kept = self.kept.opened(str(Path(path).resolve()))
        self._load(paths[0])

    def choose(self, choice: Choice) -> None:
        """Change what is chosen; the screen in front hears of it."""
        self.choice = choice
        if isinstance(self.screen, Pane):
            self.screen.refresh_choice()

    def need(self, path: str) -> None:
        """Load a checkpoint that a screen wants beside the first."""
        if path not in self.abouts and path not in self._opening:
            self._load(path)

    def _load(self, path: str) -> None:
        self._opening[path] = self.worker.ask(
            f"open.{path}", lambda emit: self.engine.open(path, emit), lambda answer: self.post_message(Answered(answer))
        )

    def on_answered(self, message: Answered) -> None:
        """A checkpoint is being loaded, or written."""
        work, _, path = message.answer.kind.partition(".")
        if work == "export":
            self._exported(path, message.answer.value)
        elif self._opening.get(path) == message.answer.number:
            self._opened(path, message.answer.value)

    def _opened(self, path: str, value: object) -> None:
        pane = self._pane()
        if isinstance(value, About):
            self.abouts[path] = value
            if pane:
                pane.show_model()
                pane.refresh_choice()
        elif isinstance(value, Loading) and pane:
            pane.show_model(value)
        elif isinstance(value, Failed | Stopped) and pane:
            self.abouts.pop(path, None)
            del self._opening[path]
            if path == self.choice.paths[0] and self._before and self._before[0] in self.abouts:
                self.choice = replace(self.choice, paths=self._before)
                pane.refresh_choice()
            pane.show_model()
            pane.problem(value.text if isinstance(value, Failed) else f"{path} was not opened; o opens it")

    def _exported(self, path: str, value: object) -> None:
        if isinstance(value, Done):
            self.notify(path, title="written", timeout=10, markup=False)
        else:
            self.notify(value.text if isinstance(value, Failed) else "stopped", title="not written", severity="error", markup=False)

    def _pane(self) -> Pane | None:
        """The screen in front, or under a dialog."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, Pane)), None)

    def action_go(self, name: str) -> None:
        """Show a screen."""
        self.switch_mode(name)

    def action_interrupt(self) -> None:
        """Give up what the model is doing."""
        pane = self._pane()
        stopped = pane.drop_all() if pane else False
        cancelled = self.worker.cancel()
        for path in [path for path in self._opening if not (path in self.abouts and self.abouts[path].where)]:
            self._opened(path, Stopped())
        if cancelled or stopped:
            self.notify("stopped", timeout=2)
        else:
            self.notify("nothing to stop; q quits", timeout=3)

    def action_next_theme(self) -> None:
        """Another theme."""
        names = sorted(self.available_themes)
        self.theme = names[(names.index(self.theme) + 1) % len(names)]
        self.notify(self.theme, timeout=2)

    def action_copy_command(self) -> None:
        """Copy the command that reproduces what is seen."""
        if pane := self._pane():
            self.copy_to_clipboard(pane.command())
            self.notify(pane.command(), title="copied", markup=False)

    def action_pick(self) -> None:
        """Choose checkpoints."""
        from loopkit_tui.screens.picker import Picker

        self.push_screen(Picker(self.here, self.kept.recent), lambda paths: self.open(paths) if paths else None)

    def action_export(self) -> None:
        """Write what is seen to a file."""
        from loopkit_tui.screens.export import Export

        if pane := self._pane():
            picture = self.export_screenshot(title=f"loopkit {pane.key}")
            plan = re.sub(r"\W+", "-", self.choice.plan)[:40]
            model = f"{self.about.name}-{plan}" if self.about and plan else ""
            self.push_screen(Export(pane.key, picture, pane.seen(), pane.command(), self.here, model), self._export_model)

    def _export_model(self, folder: Path | None) -> None:
        """Write the model with the plan as its own."""
        if folder:
            side = Side(self.choice.paths[0], self.choice.plan)
            self.notify(str(folder), title="writing", timeout=3, markup=False)
            self.worker.ask(
                f"export.{folder}", lambda emit: self.engine.export(side, folder), lambda answer: self.post_message(Answered(answer))
            )

    def action_help(self) -> None:
        """All keys of the screen in front."""
        from loopkit_tui.screens.help import Help

        if pane := self._pane():
            self.push_screen(Help(pane.HELP_ABOUT, list(pane.active_bindings.values())))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The screens and what can be done, for the command palette."""
        yield from super().get_system_commands(screen)
        for name in SCREENS:
            yield SystemCommand(name.capitalize(), f"Show the {name} screen", lambda name=name: self.action_go(name))
        yield SystemCommand("Open", "Choose checkpoints", self.action_pick)
        yield SystemCommand("Export", "Write what is seen as SVG or JSON", self.action_export)
        yield SystemCommand("Copy command", "Copy the command that reproduces what is seen", self.action_copy_command)
        yield SystemCommand("Stop", "Give up what the model is doing", self.action_interrupt)

    def on_unmount(self) -> None:
        """Keep the settings."""
        choice = self.choice
        kept = replace(
            self.kept, theme=self.theme, prompt=choice.prompt.text, chat=choice.prompt.chat, plan=choice.plan, tokens=choice.tokens
        )
        try:
            settings.write(self.home, kept)
        except OSError as error:
            self.unkept = f"the settings cannot be kept in {self.home}: {error.strerror or error}"
