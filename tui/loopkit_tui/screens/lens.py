"""Lens: what the stream says after each visit, at each token of the text."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from loopkit_tui.engine import LensRow, LensTokens, Prompt, Side
from loopkit_tui.screens.pane import Pane, label, tui_command
from loopkit_tui.widgets.heatmap import Cells, Heatmap
from loopkit_tui.widgets.tokens import blocks, shown
from loopkit_tui.worker import Urgency

NARROW, WIDE = 8, 11  # columns of a cell
REST = 0.25  # seconds after the last key


class LensScreen(Pane):
    """A heatmap of visits by tokens."""

    HELP_ABOUT = (
        "Each row is the stream after so many visits, the last at the top, through the model's final norm and head; each column a token of "
        "the text. A cell shows the likeliest next token and is the brighter the likelier it is. The cursor opens the top 10."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "focus_box('prompt')", "Text", id="lens.prompt"),
        Binding("p", "focus_box('plan')", "Plan", id="lens.plan"),
        Binding("u", "focus_box('tuned')", "Tuned lens", id="lens.tuned"),
        Binding("b", "colour", "Colour", id="lens.colour"),
    ]

    def __init__(self) -> None:
        super().__init__("lens")
        self._asked: tuple[Side, Prompt, str] | None = None
        self._tokens: LensTokens | None = None
        self._rows: dict[int, LensRow] = {}
        self._by_entropy = False

    def body(self) -> Iterable[Widget]:
        """Text, plan and lens, the heatmap, the cell under the cursor."""
        yield Horizontal(
            label("text"),
            Input(id="prompt", compact=True),
            label("plan"),
            Input(id="plan", compact=True, placeholder="8:12x2", classes="small"),
            label("lens"),
            Input(id="tuned", compact=True, placeholder="logit lens", classes="small"),
            id="boxes",
        )
        yield Horizontal(Heatmap(id="lens", classes="home"), Static(id="cell", classes="side"), classes="split")

    def refresh_choice(self) -> None:
        """Ask anew if anything changed."""
        choice = self.host.choice
        self._fill("prompt", choice.prompt.text)
        self._fill("plan", choice.plan)
        if self.host.about is None:
            return
        asked = (Side(choice.paths[0], choice.plan), choice.prompt, self.query_one("#tuned", Input).value.strip())
        if asked == self._asked:
            return
        self._asked, self._tokens, self._rows = asked, None, {}
        self.problem("")
        self._draw()
        self.ask("lens", lambda emit: self.host.engine.lens(*asked, emit), Urgency.SOON)

    def on_resize(self) -> None:
        """Cells as wide as there is room for."""
        super().on_resize()
        self._draw()

    def forget(self) -> None:
        """See Pane."""
        self._asked = None

    def receive(self, kind: str, value: object) -> None:
        """A row more."""
        if isinstance(value, LensTokens):
            self._tokens = value
            self.query_one(Heatmap).cursor = (0, 0)
        elif isinstance(value, LensRow):
            self._rows[value.done] = value
        self._draw()

    def seen(self) -> Any:
        """All cells: tokens and probabilities by visit."""
        rows = [
            {
                "visits": row.done,
                "tokens": row.tokens,
                "probabilities": row.probabilities.round(6).tolist(),
                "entropy": row.entropy.tolist(),
            }
            for row in self._rows.values()
        ]
        return {"prompt": self.host.choice.prompt.text, "tokens": self._tokens.tokens if self._tokens else [], "rows": rows}

    def command(self) -> str:
        """loopkit tui, since no other command shows this."""
        choice = self.host.choice
        return tui_command("lens", choice.paths[:1], choice.plan, choice.prompt.text, choice.prompt.chat)

    def action_focus_box(self, name: str) -> None:
        """Go to a box of text."""
        self.query_one(f"#{name}", Input).focus()

    def action_colour(self) -> None:
        """Colour by the top token's probability or by entropy."""
        self._by_entropy = not self._by_entropy
        self.notify("bright is certain: low entropy" if self._by_entropy else "bright is likely: the top token's probability", timeout=2)
        self._draw()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        choice = self.host.choice
        if event.input.id == "prompt" and event.value and event.value != choice.prompt.text:
            self.host.choose(replace(choice, prompt=replace(choice.prompt, text=event.value)))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.action_leave_input()
        if event.input.id == "plan":
            self.host.choose(replace(self.host.choice, plan=event.value.strip()))
        else:
            self.refresh_choice()

    def on_heatmap_moved(self, message: Heatmap.Moved) -> None:
        """Open the top 10 of the cell."""
        self._detail(message.row, message.column)

    def _fill(self, name: str, text: str) -> None:
        box = self.query_one(f"#{name}", Input)
        if not box.has_focus and box.value != text:
            with self.prevent(Input.Changed):
                box.value = text

    def _draw(self) -> None:
        heatmap, tokens = self.query_one(Heatmap), self._tokens
        heatmap.cells = self._cells(tokens) if tokens else None
        self._detail(*heatmap.cursor)

    def _cells(self, tokens: LensTokens) -> Cells:
        depths, width = range(len(tokens.visits), -1, -1), WIDE if self.size.width >= 120 else NARROW
        values = np.full((len(depths), len(tokens.tokens)), np.nan)
        texts = [("",) * len(tokens.tokens)] * len(depths)
        for at, done in enumerate(depths):
            if row := self._rows.get(done):
                values[at] = 1 - row.entropy / 11 if self._by_entropy else row.probabilities[:, 0]
                texts[at] = tuple(" " + shown(top[0], width - 2) for top in row.tokens)
        names = tuple(f"{done} L{tokens.visits[done - 1]}" if done else "input" for done in depths)
        heads = tuple(" " + shown(token, width - 2) for token in tokens.tokens)
        return Cells(values, names, heads, texts=tuple(texts), width=width, corner="visits")

    def _detail(self, row: int, column: int) -> None:
        cell, tokens = self.query_one("#cell", Static), self._tokens
        found = self._rows.get(len(tokens.visits) - row) if tokens else None
        if tokens is None or found is None:
            cell.update("")
            return
        width = max(4, cell.size.width - 22)
        lines = [
            Content.assemble(
                (f"after {found.done} visits", "bold"), (f" (L{tokens.visits[found.done - 1]})" if found.done else "", "$text-muted")
            ),
            Content.assemble(("at ", "$text-muted"), f"{tokens.start + column} ", (shown(tokens.tokens[column], 14), "bold")),
            Content.assemble(("entropy ", "$text-muted"), f"{found.entropy[column]:.3f} nats"),
            Content(""),
        ]
        top = float(found.probabilities[column].max()) or 1.0
        for text, share in zip(found.tokens[column], found.probabilities[column], strict=True):
            lines.append(Content.assemble(shown(text, 10).ljust(11), (blocks(float(share) / top, width), "$primary"), f"{share:8.2%}"))
        cell.update(Content("\n").join(lines))
