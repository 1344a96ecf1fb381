"""Pictures of the app for the docs: every screen on a real checkpoint, as SVG in docs/img/.

    python docs/screenshots.py CKPT [RUN...]

Takes a few minutes on two cores, most of it the sweep. The SVGs name no font that has to be fetched.
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from loopkit_tui.app import LoopkitApp
from loopkit_tui.engine import Side
from loopkit_tui.start import _maker
from loopkit_tui.widgets.board import Board
from textual.pilot import Pilot

OUT = Path(__file__).parent / "img"
SIZE = (110, 34)
PLAN = "8:12x2"
FONT = "ui-monospace, Menlo, 'DejaVu Sans Mono', monospace"
SWEEP = {"task": "copy-words-10", "block": "12", "times": "2", "count": "4"}


async def pictures(app: LoopkitApp, theme: str) -> None:
    """Play through the screens and keep a picture of each."""
    async with app.run_test(size=SIZE) as pilot:
        app.theme = theme
        for name, play in (
            ("loop", _loop),
            ("lens", _lens),
            ("sweep", _sweep),
            ("probes", _probes),
            ("train", _train),
            ("compare", _compare),
        ):
            app.action_go(name)
            await _until(pilot, lambda name=name: app.screen.key == name and bool(app.screen.query("#topbar")))  # type: ignore[attr-defined, misc]
            await play(pilot)
            await pilot.pause(0.5)
            _write(name, app.export_screenshot(title=f"loopkit tui: {name}"))


async def _loop(pilot: Pilot[None]) -> None:
    board = pilot.app.screen.query_one(Board)
    await _until(pilot, lambda: board.look is not None and all(each and each.done for each in board.written))


async def _compare(pilot: Pilot[None]) -> None:
    """The checkpoint with itself under the plan: runs have vocabularies of their own."""
    screen, path = pilot.app.screen, pilot.app.choice.paths[0]  # type: ignore[attr-defined]
    screen._sides = [Side(path), Side(path, PLAN)]  # type: ignore[attr-defined]
    screen._fill()  # type: ignore[attr-defined]
    screen.refresh_choice()  # type: ignore[attr-defined]
    await _loop(pilot)


async def _lens(pilot: Pilot[None]) -> None:
    await _until(pilot, lambda: bool(pilot.app.screen._rows) and not pilot.app.screen._busy)  # type: ignore[attr-defined]
    await pilot.press("end", "j")


async def _sweep(pilot: Pilot[None]) -> None:
    for name, value in SWEEP.items():
        pilot.app.screen.query_one(f"#sweep-{name}").value = value  # type: ignore[attr-defined]
    await pilot.press("s")
    await _until(pilot, lambda: not pilot.app.screen._busy)  # type: ignore[attr-defined]
    await pilot.press("b")


async def _probes(pilot: Pilot[None]) -> None:
    await _until(pilot, lambda: bool(pilot.app.screen._names))  # type: ignore[attr-defined]
    await pilot.press("r")
    await _until(pilot, lambda: not pilot.app.screen._busy)  # type: ignore[attr-defined]


async def _train(pilot: Pilot[None]) -> None:
    await pilot.pause(2)


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    while not condition():
        await pilot.pause(0.1)


def _write(name: str, svg: str) -> None:
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", FONT).replace("Fira Code", FONT)
    OUT.mkdir(exist_ok=True)
    (OUT / f"tui-{name}.svg").write_text(svg, encoding="utf-8")
    print(OUT / f"tui-{name}.svg")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("runs", nargs="*", help="training runs for the Train screen")
    parser.add_argument("--theme", default="textual-dark")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        paths = (options.checkpoint, *options.runs)
        app = LoopkitApp(
            _maker(("auto", None, None)), paths, plan=PLAN, prompt="The capital of France is", home=Path(home), here=Path(home)
        )
        asyncio.run(pictures(app, options.theme))
        app.worker.close(30)


if __name__ == "__main__":
    main()
