"""Loop: turn the dial and see what another plan changes."""

import shlex
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input

from loopkit.errors import UsageError
from loopkit.plan import Plan, parse_plan
from loopkit_tui import dial as dials
from loopkit_tui.dial import Dial
from loopkit_tui.engine import About, Look, Side
from loopkit_tui.screens.pane import label
from loopkit_tui.screens.sides import SidesPane, changed
from loopkit_tui.widgets.board import Board
from loopkit_tui.widgets.stack import VisitStack, visits_of


class LoopScreen(SidesPane):
    """The model's own plan beside the one on the dial."""

    HELP_ABOUT = (
        "The stack shows the model's own plan, the block on the dial marked, and below it what runs. Next tokens, KL and entropy follow at "
        "once; when the dial rests, both sides go on writing."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "Move", key_display="←→", id="loop.left"),
        Binding("right,l", "move(1)", "Move later", show=False, id="loop.right"),
        Binding("up,k,plus", "times(1)", "Times", key_display="↑↓", id="loop.more"),
        Binding("down,j,minus", "times(-1)", "Repeat less", show=False, id="loop.fewer"),
        Binding("left_square_bracket", "start(-1)", "Start", key_display="[]", id="loop.start_earlier"),
        Binding("right_square_bracket", "start(1)", "Start later", show=False, id="loop.start_later"),
        Binding("shift+left,H,left_curly_bracket", "stop(-1)", "End", key_display="{}", id="loop.stop_earlier"),
        Binding("shift+right,L,right_curly_bracket", "stop(1)", "End later", show=False, id="loop.stop_later"),
        Binding("m", "mode", "Mode", id="loop.mode"),
        Binding("r,0", "reset", "Once", show=False, id="loop.reset"),
    ]

    def __init__(self) -> None:
        super().__init__("loop")
        self._dial: Dial | None = None

    def body(self) -> Iterable[Widget]:
        """Text and plan, the stack, the board."""
        yield Horizontal(
            label("text", "kind"),
            Input(id="prompt", compact=True),
            label("plan"),
            Input(id="plan", compact=True, placeholder="8:12x2"),
            id="boxes",
        )
        stack = VisitStack()
        stack.add_class("home")
        yield stack
        yield Board()

    @property
    def sides(self) -> tuple[Side, Side] | None:
        """The model as it is, and under the plan."""
        choice = self.host.choice
        if self.host.about is None or not choice.paths:
            return None
        return Side(choice.paths[0]), Side(choice.paths[0], choice.plan)

    @property
    def dial(self) -> Dial:
        """The dial of the plan; where the plan is of another kind, the last one or a new one."""
        about = self.host.about
        visits = len(about.plan) if about else 1
        read = dials.read(self.host.choice.plan, visits) if self.host.choice.plan else None
        if read is None:
            read = self._dial if self._dial and self._dial.visits == visits else dials.default(visits)
            read = read.repeated(1) if not self.host.choice.plan else read
        return read

    def refresh_choice(self) -> None:
        """Draw the dial and ask for what it shows."""
        about = self.host.about
        if about is None:
            return
        self._dial = self.dial
        stack = self.query_one(VisitStack)
        try:
            runs = _visits(self.host.choice.plan, self._dial, about)
        except UsageError as error:  # a plan kept from a model of another size, or typed on another screen
            self.problem(str(error))
            runs = about.plan
        stack.dial, stack.runs = self._dial, runs
        box = self.query_one("#plan", Input)
        if not box.has_focus and box.value != self.host.choice.plan:
            with self.prevent(Input.Changed):
                box.value = self.host.choice.plan
        super().refresh_choice()

    def turn(self, dial: Dial) -> None:
        """Set the dial."""
        if self.host.about is None:
            return
        self._dial = dial
        self.host.choose(changed(self.host.choice, dial.plan))
        self.query_one(VisitStack).dial = dial

    def action_move(self, by: int) -> None:
        """The same block, elsewhere."""
        self.turn(self.dial.moved(by))

    def action_times(self, by: int) -> None:
        """More or fewer repeats."""
        self.turn(self.dial.repeated(self.dial.times + by))

    def action_start(self, by: int) -> None:
        """Another start."""
        self.turn(self.dial.starting(self.dial.start + by))

    def action_stop(self, by: int) -> None:
        """Another end."""
        self.turn(self.dial.stopping(self.dial.stop + by))

    def action_mode(self) -> None:
        """Plain, damped, residual."""
        self.turn(self.dial.next_mode())

    def action_reset(self) -> None:
        """The model as it is."""
        self.turn(self.dial.repeated(1))

    def on_visit_stack_turned(self, message: VisitStack.Turned) -> None:
        """The mouse turned it."""
        self.turn(message.dial)

    @on(Input.Changed, "#plan")
    def _plan_typed(self, event: Input.Changed) -> None:
        event.stop()
        about = self.host.about
        text = event.value.strip()
        if about is None or text == self.host.choice.plan:
            return
        try:
            _ = parse_plan(text.partition("@")[0], about.plan) if text else ()
        except UsageError as error:
            self.problem(str(error))
            return
        self.problem("")
        self.host.choose(changed(self.host.choice, text))

    def receive(self, kind: str, value: object) -> None:
        """What runs is what the look says."""
        if isinstance(value, Look):
            self.query_one(VisitStack).runs = value.visits[1]
        super().receive(kind, value)

    def command(self) -> str:
        """loopkit loop."""
        choice = self.host.choice
        plan = choice.plan or "0:1x1"
        words = ["loopkit", "loop", *choice.paths[:1], "--repeat", plan, "--prompt", choice.prompt.text, "--max-tokens", str(choice.tokens)]
        return shlex.join([*words, *(["--chat"] if choice.prompt.chat else [])])


def _visits(plan: str, dial: Dial, about: About) -> Plan:
    text = plan.partition("@")[0]
    if plan and plan != dial.plan:
        return parse_plan(text, about.plan)
    return visits_of(dial, about.plan)
