"""Next tokens of two sides with bars, the changes marked."""

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from loopkit_tui.engine import Look, NextToken

LABEL, NUMBER, CHANGE = 14, 7, 8  # columns
EIGHTHS = " ▏▎▍▌▋▊▉█"
ROSE = 0.005  # a change of probability that is marked


class NextTokens(Widget):
    """A Look as a table; ``names`` head the two sides. While it is ``stale`` only the left side still holds."""

    look: reactive[Look | None] = reactive(None)
    names: reactive[tuple[str, str]] = reactive(("base", "looped"))
    stale: reactive[bool] = reactive(False)

    def render(self) -> Content:
        """A line a token, the likeliest first."""
        if self.look is None:
            return Content("")
        bar = max(4, (self.size.width - LABEL - 2 * NUMBER - CHANGE - 6) // 2)
        likely = {each: each.left if self.stale else max(each.left, each.right) for each in self.look.candidates}
        rows = sorted(likely, key=lambda each: -likely[each])[: max(1, self.size.height - 1)]
        if not rows:
            return Content("the model's logits are not numbers")
        top = likely[rows[0]] or 1.0
        return Content("\n").join([self._head(bar), *(self._row(each, bar, top) for each in rows)])

    def _head(self, bar: int) -> Content:
        side = bar + NUMBER + 1
        left, right = (name if len(name) <= side else "…" + name[1 - side :] for name in self.names)
        return Content.assemble(
            ("next token".ljust(LABEL), "$text-muted"),
            (left.ljust(side) + "  ", "$primary bold"),
            (right.ljust(side) + "  ", "$warning bold"),
            ("change".rjust(CHANGE), "$text-muted"),
        )

    def _row(self, each: NextToken, bar: int, top: float) -> Content:
        change = each.right - each.left
        marked = abs(change) >= ROSE and not self.stale
        label = (shown(each.text, LABEL - 1).ljust(LABEL), "bold" if marked else "")
        left = ((blocks(each.left / top, bar), "$primary"), f"{each.left:{NUMBER}.2%}   ")
        if self.stale:
            return Content.assemble(label, *left, ("…", "$text-muted"))
        style = ("$success bold" if change > 0 else "$error bold") if marked else "$text-muted"
        difference = f"{change:+{CHANGE}.2%}" if abs(change) >= 5e-5 else "·".rjust(CHANGE)
        return Content.assemble(
            label, *left, (blocks(each.right / top, bar), "$warning"), f"{each.right:{NUMBER}.2%}   ", (difference, style)
        )


def shown(text: str, width: int) -> str:
    """A token as one can see it, cut to a width: spaces and line ends get marks."""
    plain = "".join(MARKS.get(each, each if each.isprintable() else "�") for each in text) or "∅"
    return plain if len(plain) <= width else plain[: width - 1] + "…"


def readable(text: str) -> str:
    """What a model wrote, without what would move a terminal's cursor or break its lines elsewhere than at their ends."""
    return "".join(each if each.isprintable() or each == "\n" else "  " if each == "\t" else "�" for each in text)


def blocks(share: float, width: int) -> str:
    """A bar of eighths of a column."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return ("█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")).ljust(width)


MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}
