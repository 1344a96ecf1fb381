"""Pictures of the app for the docs, as SVG in docs/img/: Loop, Lens and Compare on a real checkpoint, the others on small trained runs.

    loopkit train examples/demo.toml --layout 8 --steps 1200 --out runs/base
    make demo
    python docs/screenshots.py CKPT runs/base RUN...

The sweep is of the first run, which has learned its task; a model of 135M parameters hardly answers any question of it. Takes a minute on
two cores. The SVGs name no font that has to be fetched.
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from loopkit_tui.app import LoopkitApp
from loopkit_tui.start import _maker
from loopkit_tui.widgets.board import Board
from textual.pilot import Pilot

OUT = Path(__file__).parent / "img"
SIZE = (110, 34)
PLAN = "8:12x2"
FONT = "ui-monospace, Menlo, 'DejaVu Sans Mono', monospace"
TASK = "copy-words-32"
SWEEP = {"task": TASK, "block": "1..3", "times": "2..4", "count": "400", "shots": "0"}


async def pictures(app: LoopkitApp, runs: list[str], theme: str) -> None:
    """Play through the screens and keep a picture of each."""
    async with app.run_test(size=SIZE) as pilot:
        app.theme = theme
        await _keep(pilot, {"loop": _loop, "lens": _lens, "compare": _loop})
        app.choose(replace(app.choice, plan=""))
        app.open(runs)
        await _until(pilot, lambda: bool(app.about and app.about.where))
        await _keep(pilot, {"sweep": _sweep, "probes": _probes, "train": _train})


async def _keep(pilot: Pilot[None], plays: dict[str, Callable[[Pilot[None]], Awaitable[None]]]) -> None:
    app = pilot.app
    for name, play in plays.items():
        app.action_go(name)  # type: ignore[attr-defined]
        await _until(pilot, lambda name=name: app.screen.key == name and bool(app.screen.query("#topbar")))  # type: ignore[attr-defined, misc]
        await play(pilot)
        await pilot.pause(0.5)
        _write(name, app.export_screenshot(title=f"loopkit tui: {name}"))


async def _loop(pilot: Pilot[None]) -> None:
    board = pilot.app.screen.query_one(Board)
    await _until(pilot, lambda: board.look is not None and all(each and each.done for each in board.written))


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
    pilot.app.screen.query_one("#probe-data").value = f"primitives:{TASK}"  # type: ignore[attr-defined]
    await pilot.press("r")
    await _until(pilot, lambda: not pilot.app.screen._busy)  # type: ignore[attr-defined]


async def _train(pilot: Pilot[None]) -> None:
    """Losses of all runs together, the one that grew last under the cursor."""
    for _ in pilot.app.choice.paths:  # type: ignore[attr-defined]
        await pilot.press("space", "j")
    await pilot.press("k", "k", "k")


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
    parser.add_argument("runs", nargs="+", help="training runs, the first for the sweep")
    parser.add_argument("--theme", default="textual-dark")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folders = {"home": Path(home), "here": Path(home)}
        app = LoopkitApp(_maker(("auto", None, None)), (options.checkpoint,), plan=PLAN, prompt="The capital of France is", **folders)
        asyncio.run(pictures(app, options.runs, options.theme))
        app.worker.close(30)


if __name__ == "__main__":
    main()
