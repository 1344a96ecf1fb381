"""What all screens have: the lines in common, requests whose old answers are dropped, and how to reproduce what is seen."""

import shlex
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer, Input, Static

from loopkit_tui.engine import About, Loading, Side
from loopkit_tui.host import Host
from loopkit_tui.widgets.topbar import ModelLine, Notice, TopBar
from loopkit_tui.worker import Answer, Done, Failed, Stopped, Urgency, Work

ROOMY = 120  # columns


class Answered(Message):
    """The engine says something; posted from its thread."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Pane(Screen[None]):
    """A screen of the app. ``TITLE`` is its name among widgets.topbar.SCREENS."""

    HELP_ABOUT: ClassVar[str] = ""
    AUTO_FOCUS = ".home"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave_input", "Back", show=False, id="pane.back")]

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self._newest: dict[str, int] = {}
        self._busy: set[str] = set()

    @property
    def host(self) -> Host:
        """The app."""
        return cast(Host, self.app)

    def compose(self) -> ComposeResult:
        """The lines in common around the body."""
        yield TopBar(self.key)
        yield ModelLine(id="model")
        yield Notice(id="notice")
        yield from self.body()
        yield Footer(compact=True)

    @abstractmethod
    def body(self) -> Iterable[Widget]:
        """The widgets between."""

    @abstractmethod
    def refresh_choice(self) -> None:
        """The person chose something else, here or elsewhere, or the model is there."""

    @abstractmethod
    def receive(self, kind: str, value: object) -> None:
        """An answer to the newest request of a kind."""

    @abstractmethod
    def seen(self) -> Any:
        """What is seen, as JSON can hold it."""

    @abstractmethod
    def command(self) -> str:
        """The command that shows the same."""

    def on_mount(self) -> None:
        """Nothing is wrong yet."""
        self.query_one(Notice).show("")

    def on_resize(self) -> None:
        """The palette's key where there is room for it."""
        self.query_one(Footer).show_command_palette = self.size.width >= ROOMY

    def on_screen_resume(self) -> None:
        """Something may have changed meanwhile."""
        self.show_model()
        self.call_after_refresh(self.refresh_choice)

    def show_model(self, loading: Loading | None = None) -> None:
        """Draw the line about the model."""
        self.query_one(ModelLine).show(self.host.about, loading)

    def problem(self, text: str) -> None:
        """Show what is wrong, or that nothing is any more."""
        if self.is_mounted:
            self.query_one(Notice).show(text)

    def ask(self, kind: str, work: Work, urgency: Urgency = Urgency.NOW) -> None:
        """Put a request to the engine; it cancels the older of its kind, whose answers are dropped."""
        self._newest[kind] = self.host.worker.ask(f"{self.key}.{kind}", work, lambda answer: self.post_message(Answered(answer)), urgency)
        self._busy.add(kind)
        self._show_busy()

    def drop(self, kind: str) -> bool:
        """Give up a request; whether there was one."""
        self.host.worker.cancel(f"{self.key}.{kind}")
        self._newest.pop(kind, None)
        was = kind in self._busy
        self._busy.discard(kind)
        self._show_busy()
        return was

    def drop_all(self) -> bool:
        """Give up all requests of this screen, which may then be made again."""
        kinds = list(self._busy)
        for kind in kinds:
            self.drop(kind)
        if kinds:
            self.forget()
        return bool(kinds)

    def forget(self) -> None:
        """What was asked last was given up, so the same may be asked again; nothing to do where the person asks by a key."""

    def busy(self, kind: str) -> bool:
        """Whether a request of a kind is not yet answered."""
        return kind in self._busy

    def on_answered(self, message: Answered) -> None:
        """Take in an answer, unless a newer request has been made since."""
        kind = message.answer.kind.partition(".")[2]
        if self._newest.get(kind) != message.answer.number:
            return
        value = message.answer.value
        if isinstance(value, Done | Stopped | Failed):
            self._busy.discard(kind)
            self._show_busy()
        if isinstance(value, Failed):
            self.problem(value.text)
        self.receive(kind, value)

    def action_leave_input(self) -> None:
        """From a box of text back to the keys."""
        home = self.query(".home").first() if self.query(".home") else None
        if isinstance(self.focused, Input) or self.focused is None:
            self.set_focus(home)

    def _show_busy(self) -> None:
        if self.is_mounted:
            self.query_one(TopBar).busy = " ".join(sorted(self._busy))


def label(text: str, name: str | None = None) -> Static:
    """The name of a box of text; it has an id where it changes."""
    return Static(text, classes="label", id=name)


def tui_command(key: str, paths: Iterable[str], plan: str, prompt: str, chat: bool) -> str:
    """The command that opens the app on this."""
    words = ["loopkit", "tui", *paths, "--screen", key, "--plan", plan, "--prompt", prompt]
    return shlex.join([*words, *(["--chat"] if chat else [])])


def side_names(sides: tuple[Side, Side], abouts: tuple[About | None, About | None]) -> tuple[str, str]:
    """What to call two sides: by their plans, and by their checkpoints where those differ."""
    plans = [side.plan or (about.layout if about else "base") for side, about in zip(sides, abouts, strict=True)]
    if sides[0].path == sides[1].path:
        return f"base {plans[0]}" if not sides[0].plan else plans[0], plans[1]
    names = [about.name if about else side.path for side, about in zip(sides, abouts, strict=True)]
    return f"{names[0]} {plans[0]}", f"{names[1]} {plans[1]}"
