"""Compare: two checkpoints or plans side by side on one text."""

import shlex
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Select

from loopkit.errors import UsageError
from loopkit.plan import parse_plan
from loopkit_tui import places
from loopkit_tui.engine import Side
from loopkit_tui.screens.pane import label, tui_command
from loopkit_tui.screens.sides import SidesPane
from loopkit_tui.widgets.board import Board


class CompareScreen(SidesPane):
    """Each side is a checkpoint and a plan."""

    HELP_ABOUT = (
        "Any two checkpoints under any two plans after the same text. They must have the same vocabulary for next tokens to compare."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "exchange", "Exchange", id="compare.exchange"),
        Binding("left_square_bracket", "focus_side(0)", "Left", show=False, id="compare.left"),
        Binding("right_square_bracket", "focus_side(1)", "Right", show=False, id="compare.right"),
    ]

    def __init__(self) -> None:
        super().__init__("compare")
        self._sides: list[Side] = []
        self._opened: tuple[str, ...] = ()  # what the sides were made of

    def body(self) -> Iterable[Widget]:
        """The text, a line a side, the board."""
        yield Horizontal(label("text", "kind"), Input(id="prompt", compact=True), id="boxes")
        with Vertical(id="chosen"):
            for number, (name, box) in enumerate((("left ", "plan0"), ("right", "plan"))):
                with Horizontal(classes="sideline"):
                    yield label(name)
                    select: Select[str] = Select([], id=f"path{number}", compact=True, prompt="checkpoint", allow_blank=True)
                    if number == 0:
                        select.add_class("home")
                    yield select
                    yield label("plan")
                    yield Input(id=box, compact=True, placeholder="its own", classes="small")
        yield Board()

    @property
    def sides(self) -> tuple[Side, Side] | None:
        """What the two lines say."""
        if len(self._sides) < 2 or any(side.path not in self.host.abouts for side in self._sides):
            return None
        return self._sides[0], self._sides[1]

    def refresh_choice(self) -> None:
        """The first two of what was opened last, the plan of the dial on the second, until the person says otherwise."""
        choice = self.host.choice
        if choice.paths != self._opened:
            self._opened = choice.paths
            self._sides = [Side(choice.paths[0]), Side(choice.paths[min(1, len(choice.paths) - 1)], choice.plan)]
            self._fill()
        for side in self._sides:
            self.host.need(side.path)
        super().refresh_choice()

    def action_exchange(self) -> None:
        """Left becomes right."""
        self._sides.reverse()
        self._fill()
        self.refresh_choice()

    def action_focus_side(self, number: int) -> None:
        """Choose a checkpoint."""
        self.query_one(f"#path{number}", Select).focus()

    @on(Select.Changed)
    def _chose(self, event: Select.Changed) -> None:
        number = int(str(event.select.id)[-1])
        if isinstance(event.value, str) and self._sides and event.value != self._sides[number].path:
            self._sides[number] = replace(self._sides[number], path=event.value)
            self.refresh_choice()

    @on(Input.Changed, "#plan0, #plan")
    def _plan_typed(self, event: Input.Changed) -> None:
        event.stop()
        number = 0 if event.input.id == "plan0" else 1
        if not self._sides or event.value.strip() == self._sides[number].plan:
            return
        about, text = self.host.abouts.get(self._sides[number].path), event.value.strip()
        try:
            _ = parse_plan(text.partition("@")[0], about.plan) if text and about else ()
        except UsageError as error:
            self.problem(str(error))
            return
        self.problem("")
        self._sides[number] = replace(self._sides[number], plan=text)
        self.refresh_choice()

    def command(self) -> str:
        """loopkit loop where both sides are one checkpoint, the first of them as it is; else loopkit tui."""
        choice = self.host.choice
        if len(self._sides) == 2 and self._sides[0].path == self._sides[1].path and not self._sides[0].plan:
            words = ["loopkit", "loop", self._sides[1].path, "--repeat", self._sides[1].plan or "0:1x1", "--prompt", choice.prompt.text]
            return shlex.join([*words, *(["--chat"] if choice.prompt.chat else [])])
        plan = self._sides[1].plan if self._sides else ""
        return tui_command("compare", [side.path for side in self._sides], plan, choice.prompt.text, choice.prompt.chat)

    def _fill(self) -> None:
        known = dict.fromkeys([*self.host.choice.paths, *(side.path for side in self._sides)])
        around = [place.path for place in places.find(self.host.here)]
        options = [(Content(path), path) for path in dict.fromkeys([*known, *around])]
        for number, side in enumerate(self._sides):
            select, box = self.query_one(f"#path{number}", Select), self.query_one("#plan" if number else "#plan0", Input)
            with self.prevent(Select.Changed, Input.Changed):
                select.set_options(options)
                select.value = side.path
                box.value = side.plan
