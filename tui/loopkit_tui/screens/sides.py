"""What Loop and Compare share: two sides after one text, looked at at once, continued when the dial rests."""

from abc import abstractmethod
from dataclasses import asdict, replace
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import Input, Static

from loopkit_tui.engine import Look, Prompt, Side, Written
from loopkit_tui.host import Choice
from loopkit_tui.screens.pane import Pane, side_names
from loopkit_tui.widgets.board import Board
from loopkit_tui.worker import Urgency

REST = 0.35  # seconds after which both sides are continued
TOP = 24  # next tokens of either side that are asked for
STEP = 16  # tokens more or fewer


class SidesPane(Pane):
    """Asks for a Look whenever the sides or the text change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "focus_box('prompt')", "Text", id="sides.prompt"),
        Binding("p", "focus_box('plan')", "Plan", id="sides.plan"),
        Binding("c", "chat", "Chat", show=False, id="sides.chat"),
        Binding("greater_than_sign", f"tokens({STEP})", "Longer", show=False, id="sides.longer"),
        Binding("less_than_sign", f"tokens(-{STEP})", "Shorter", show=False, id="sides.shorter"),
    ]

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self._asked: tuple[tuple[Side, Side], Prompt, int] | None = None
        self._rest: Timer | None = None

    @property
    @abstractmethod
    def sides(self) -> tuple[Side, Side] | None:
        """The two sides; None where there is no model."""

    def refresh_choice(self) -> None:
        """Ask anew if anything is other than when last asked."""
        choice, sides = self.host.choice, self.sides
        box = self.query_one("#prompt", Input)
        if box.value != choice.prompt.text:
            with self.prevent(Input.Changed):
                box.value = choice.prompt.text
        self.query_one("#kind", Static).update("chat" if choice.prompt.chat else "text")
        if sides is None or self._asked == (sides, choice.prompt, choice.tokens):
            return
        keep_left = bool(self._asked and (self._asked[0][0], self._asked[1]) == (sides[0], choice.prompt))
        self._asked = (sides, choice.prompt, choice.tokens)
        self.problem("")
        if self._rest:
            self._rest.stop()
        self.drop("write")
        self.query_one(Board).wait(self._names(sides), keep_left)
        self.ask("look", lambda emit: self.host.engine.look(sides, choice.prompt, TOP, emit))

    def receive(self, kind: str, value: object) -> None:
        """Draw it; once the dial rests, continue the text."""
        board = self.query_one(Board)
        if isinstance(value, Look):
            board.show(value)
            self._rest = self.set_timer(REST, self._continue)
        elif isinstance(value, Written):
            board.write(value.side, value)

    def seen(self) -> Any:
        """The look and both continuations."""
        board = self.query_one(Board)
        texts = [written.text if written else None for written in board.written]
        prompt = asdict(self.host.choice.prompt)
        return {"prompt": prompt, "look": asdict(board.look) if board.look else None, "continuations": texts}

    def forget(self) -> None:
        """See Pane."""
        self._asked = None

    @on(Input.Changed, "#prompt")
    def _prompt_changed(self, event: Input.Changed) -> None:
        event.stop()
        if not event.value:
            self.problem("the text is empty; give at least one token")
            return
        choice = self.host.choice
        self.host.choose(replace(choice, prompt=replace(choice.prompt, text=event.value)))

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_leave_input()

    def action_focus_box(self, name: str) -> None:
        """Go to a box of text."""
        self.query_one(f"#{name}", Input).focus()

    def action_chat(self) -> None:
        """The text as a user's message in the model's chat format, or as it is."""
        choice = self.host.choice
        self.host.choose(replace(choice, prompt=replace(choice.prompt, chat=not choice.prompt.chat)))

    def action_tokens(self, by: int) -> None:
        """Longer or shorter continuations."""
        choice = self.host.choice
        self.host.choose(replace(choice, tokens=max(STEP, choice.tokens + by)))
        self.notify(f"continuations of {self.host.choice.tokens} tokens", timeout=2)

    def _continue(self) -> None:
        if self._asked:
            sides, prompt, tokens = self._asked
            self.ask("write", lambda emit: self.host.engine.write(sides, prompt, tokens, emit), Urgency.SOON)

    def _names(self, sides: tuple[Side, Side]) -> tuple[str, str]:
        abouts = self.host.abouts
        return side_names(sides, (abouts.get(sides[0].path), abouts.get(sides[1].path)))


def changed(choice: Choice, plan: str) -> Choice:
    """The same with another plan."""
    return replace(choice, plan=plan)
