"""An engine with numbers made up by a rule, for tests of what is drawn: fast, the same every time, and slow or failing where asked."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from loopkit_tui.engine import (
    TOP,
    About,
    Drawing,
    LensRow,
    LensTokens,
    Loading,
    Look,
    NextToken,
    ProbeAsk,
    Probed,
    Progress,
    Prompt,
    Side,
    SweepAsk,
    SweepCell,
    SweepState,
    Written,
)
from loopkit_tui.worker import Emit

from loopkit.errors import LoopkitError
from loopkit.plan import Plan, parse_plan, parse_repeats

VISITS = 30
WORDS = (" Paris", " the", " a", " located", " known", " not", " one", " called", " Paris,", "\n", " London", " Lyon")


class FakeEngine:
    """Implements loopkit_tui.engine.Engine; ``hold`` makes looks wait for it, ``looks`` counts those that ran to the end."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.breathe: Callable[[], None] = lambda: None
        self.hold = hold
        self.looks: list[tuple[Side, Side]] = []
        self.visits = VISITS

    def open(self, path: str, emit: Emit) -> None:
        if "broken" in path:
            raise LoopkitError(f"{path} lacks tensor model.norm.weight")
        emit(Loading(path, "reading"))
        plan = tuple(range(self.visits))
        about = About(path, Path(path).name, plan, str(self.visits), 134_515_008)
        emit(about)
        emit(Loading(path, "loading 538 MB", 0.42))
        emit(About(path, Path(path).name, plan, str(self.visits), 134_515_008, "torch cpu float32"))

    def look(self, sides: tuple[Side, Side], prompt: Prompt, top: int, emit: Emit) -> None:
        tokens = len(prompt.text.split())
        if tokens > 100:
            raise LoopkitError(f"{tokens} tokens do not fit the model's 100 positions; shorten the text")
        plans = self._plan(sides[0]), self._plan(sides[1])
        for _ in plans[1]:
            self.breathe()
            if self.hold:
                self.hold.wait(0.002)
        left, right = (self._weights(plan, prompt) for plan in plans)
        entropies = tuple(float(-(p * np.log(p)).sum()) for p in (left, right))
        self.looks.append(sides)
        emit(
            Look(
                sides,
                tokens,
                tuple(NextToken(word, float(p), float(q)) for word, p, q in zip(WORDS, left, right, strict=True)),
                float((left * np.log(left / right)).sum()),
                (entropies[0], entropies[1]),
                plans,
                (303.4e6 * len(plans[0]) / self.visits, 303.4e6 * len(plans[1]) / self.visits),
                len(plans[1]) - 8,
                0.142,
            )
        )

    def endless(self, *_: object) -> None:
        """Work that only ends when it is not wanted any more."""
        while True:
            self.breathe()

    def write(self, sides: tuple[Side, Side], prompt: Prompt, tokens: int, emit: Emit) -> None:
        texts = (" Paris. It is the largest city in France and", " Paris, the city of light, and")
        for number, text in enumerate(texts):
            emit(Written(number, text[: len(text) // 2], False, 12.5))
            emit(Written(number, text, True))

    def lens(self, side: Side, prompt: Prompt, tuned: str, emit: Emit) -> None:
        words = prompt.text.split(" ")
        plan = self._plan(side)
        emit(LensTokens(tuple(words), 0, plan))
        for done in range(len(plan), -1, -1):
            share = done / len(plan)
            top = np.array([np.linspace(0.05 + 0.9 * share * (1 + place % 3) / 3, 0.001, TOP) for place in range(len(words))])
            names = tuple(tuple(WORDS[(place + rank + done // 6) % len(WORDS)] for rank in range(TOP)) for place in range(len(words)))
            emit(LensRow(done, names, top.astype(np.float32), np.linspace(8 - 6 * share, 7 - 6 * share, len(words))))

    def export(self, side: Side, folder: Path) -> None:
        if "@" in side.plan:
            raise LoopkitError(f"the mode in {side.plan!r} is for running a model")
        folder.mkdir()

    def sweep(self, path: str, ask: SweepAsk, emit: Emit) -> None:
        for asked in range(8, ask.count + 1, 8):
            base = self._cell("", (0, self.visits, 1), asked, 0.5)
            cells = []
            for size in ask.blocks:
                for start in range(self.visits - size + 1):
                    for times in ask.times:
                        share = 0.5 + 0.2 * np.sin(start / 5) - 0.05 * (times - 2)
                        cells.append(self._cell(f"{start}:{start + size}x{times}", (start, start + size, times), asked, float(share)))
            emit(SweepState(asked / ask.count, base, tuple(cells)))

    def probes(self) -> list[tuple[str, str]]:
        return [("depth-score", "How deep the visits lie that matter."), ("fixed-point", "How the stream moves over the repeats.")]

    def probe(self, ask: ProbeAsk, emit: Emit) -> None:
        for number, path in enumerate(ask.paths):
            emit(Progress(Path(path).name, 1, 2))
            x = np.arange(self.visits)
            wave = np.cos(x / 6 + number) + 1.2
            drawings = (
                Drawing("Depth score", "visit", "score", wave, wave - 0.1, wave + 0.1),
                Drawing("Local effects", "later visit", "visit", np.outer(wave, wave[::-1]), centre=None),
            )
            emit(
                Probed(
                    ask.name,
                    "How deep the visits lie that matter.",
                    Path(path).name,
                    "30",
                    {"score": 0.41 + number},
                    drawings,
                    {"score": 0.41},
                )
            )

    def _plan(self, side: Side) -> Plan:
        return parse_plan(side.plan.partition("@")[0], tuple(range(self.visits))) if side.plan else tuple(range(self.visits))

    def _weights(self, plan: Plan, prompt: Prompt) -> np.ndarray:
        logits = -0.5 * np.arange(len(WORDS)) + 0.4 * np.sin(np.arange(len(WORDS)) * (len(plan) - self.visits) / 3 + len(prompt.text))
        return np.exp(logits) / np.exp(logits).sum()

    def _cell(self, plan: str, block: tuple[int, int, int], asked: int, share: float) -> SweepCell:
        correct = round(share * asked)
        gained, lost = max(0, correct - asked // 2), max(0, asked // 2 - correct)
        flops = 1 + (block[1] - block[0]) * (block[2] - 1) / self.visits
        return SweepCell(
            plan or str(self.visits), *block, correct, asked, correct / asked, (share - 0.1, share + 0.1), gained, lost, 0.04, share, flops
        )


def repeats(plan: str) -> int:
    """How often the one block of a plan runs."""
    return parse_repeats(plan)[0].times
