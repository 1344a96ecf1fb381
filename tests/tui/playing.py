"""Playing the app in tests: on a made-up engine, in folders of its own, waiting for what is to be seen."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from html import unescape
from pathlib import Path
from typing import Any

from fake import FakeEngine
from loopkit_tui.app import LoopkitApp
from loopkit_tui.screens.pane import Pane
from loopkit_tui.start import _maker
from loopkit_tui.widgets.board import Board
from textual.pilot import Pilot

SIZES = ((80, 24), (200, 60))
PATIENCE = 60.0  # seconds on a busy machine before a test gives up


def make_app(folder: Path, *paths: str, engine: FakeEngine | None = None, pick: bool = False, **options: Any) -> LoopkitApp:
    """The app on a made-up engine, remembering things in ``folder`` alone; with ``pick`` it begins without a model."""
    here = folder / "here"
    here.mkdir(exist_ok=True)
    made = engine or FakeEngine()

    def make(breathe: Callable[[], None]) -> FakeEngine:
        made.breathe = breathe
        return made

    return LoopkitApp(make, () if pick else paths or ("smol",), home=folder / "home", here=here, **{"plan": "8:12x3", **options})


def real_app(folder: Path, checkpoint: Path, backend: str = "torch", **options: str) -> LoopkitApp:
    """The app on a real engine."""
    here = folder / "here"
    here.mkdir()
    return LoopkitApp(_maker((backend, "cpu", None)), (str(checkpoint),), home=folder / "home", here=here, **options)


def play(app: LoopkitApp, script: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> None:
    """Run the app and a script of what the person does."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    try:
        asyncio.run(run())
    finally:
        assert app.worker.close(PATIENCE)


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for something to be so."""
    for _ in range(int(PATIENCE / 0.02)):
        await pilot.pause()
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"never came true; on screen:\n{text_of(pilot.app)}")


async def settled(pilot: Pilot[None]) -> Board:
    """Wait until Loop or Compare shows what is chosen, both continuations written."""
    pane = pilot.app.screen
    assert isinstance(pane, Pane)
    board = pane.query_one(Board)
    await until(pilot, lambda: board.look is not None and all(each and each.done for each in board.written))
    return board


def text_of(app: Any) -> str:
    """What is on the screen, read off the picture that the app exports of itself."""
    rows: dict[int, list[str]] = {}
    for x, line, text in re.findall(
        r'<text [^>]*?x="([\d.]+)" y="[\d.]+" textLength="[\d.]+" clip-path="url\(#.*?-line-(\d+)\)">(.*?)</text>', svg_of(app)
    ):
        row, column = rows.setdefault(int(line), []), round(float(x) / 12.2)
        row += [" "] * (column + len(unescape(text)) - len(row))
        row[column : column + len(unescape(text))] = unescape(text).replace("\xa0", " ")
    return "\n".join("".join(rows.get(line, [])).rstrip() for line in range(app.size.height))


def svg_of(app: Any) -> str:
    """The picture."""
    return str(app.export_screenshot(title="loopkit"))
