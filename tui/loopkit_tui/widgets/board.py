"""Two sides after the same text: numbers, next tokens, continuations."""

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from loopkit_tui.engine import Look, Written
from loopkit_tui.widgets.tokens import NextTokens, readable
from loopkit_tui.widgets.topbar import millions

SIGNIFICANT = 0.01  # nats


class Board(Vertical):
    """Shows a Look and what both sides write."""

    def __init__(self) -> None:
        super().__init__(id="board")
        self.written: list[Written | None] = [None, None]

    def compose(self) -> ComposeResult:
        """Numbers above, tables and texts below or beside."""
        yield Static(id="numbers")
        with Vertical(id="sides"):
            yield NextTokens(id="tokens")
            with Horizontal(id="texts"):
                for number in (0, 1):
                    with VerticalScroll(id=f"text{number}", classes="text", can_focus=False):
                        yield Static(Content("…").stylize("$text-muted"), id=f"words{number}")

    @property
    def look(self) -> Look | None:
        """What is shown, None while it belongs to an older choice."""
        tokens = self.query_one(NextTokens)
        return None if tokens.stale else tokens.look

    def show(self, look: Look) -> None:
        """Draw a Look."""
        tokens = self.query_one(NextTokens)
        tokens.look, tokens.stale = look, False
        tokens.refresh()
        self._number(numbers(look))

    def wait(self, names: tuple[str, str], keep_left: bool) -> None:
        """Take away what belongs to the choice before; the left side may still hold."""
        tokens = self.query_one(NextTokens)
        tokens.names, tokens.stale = names, True
        if not keep_left:
            tokens.look = None
        self._number(Content.assemble(("…\n…", "$text-muted")))
        for number in (1,) if keep_left else (0, 1):
            self.write(number, None)
        for number, name in enumerate(names):
            self.query_one(f"#text{number}").border_title = name

    def _number(self, text: Content) -> None:
        self.query_one("#numbers", Static).update(text, layout=False)  # its size is fixed; a new layout draws the whole screen again

    def write(self, number: int, written: Written | None) -> None:
        """Draw a continuation so far."""
        if written is None is self.written[number]:
            return
        self.written[number] = written
        text = Content("…").stylize("$text-muted")
        if written:
            rate = f" {written.rate:.1f} tokens/s" if written.rate and not written.done else ""
            text = Content.assemble(readable(written.text.lstrip("\n")), ("" if written.done else "▌", "$accent"), (rate, "$text-muted"))
        self.query_one(f"#words{number}", Static).update(text)
        self.query_one(f"#text{number}", VerticalScroll).scroll_end(animate=False)


def numbers(look: Look) -> Content:
    """Two lines: what the plan costs, and what it changes."""
    (left, right), (base, flops) = look.visits, look.flops
    change = look.entropy[1] - look.entropy[0]
    return Content.assemble(
        ("visits ", "$text-muted"), f"{len(left)} → {len(right)}",
        ("   FLOPs/token ", "$text-muted"), f"{millions(base)} → {millions(flops)}", (f" (×{flops / base:.2f})", "bold"),
        ("   prompt ", "$text-muted"), f"{look.tokens} tokens\n",
        ("KL ", "$text-muted"), (f"{look.kl:.4f} nats", "bold $warning" if look.kl > SIGNIFICANT else ""),
        ("   entropy ", "$text-muted"), f"{look.entropy[0]:.3f} → {look.entropy[1]:.3f} nats ",
        (f"({change:+.3f})", "bold" if abs(change) > SIGNIFICANT else "$text-muted"),
        ("   ", ""), (f"{1000 * look.seconds:.0f} ms", "bold"), (f", {look.ran} visits run", "$text-muted"),
    )  # fmt: skip
