"""Each screen at two sizes as text, compared line by line with what was looked at and found good. UPDATE_SNAPSHOTS=1 writes them anew.

The text is read off the app's own picture, so it is what a person sees; colours are tested by their meaning in test_widgets.
"""

import os
from pathlib import Path

import pytest
from loopkit_tui.screens.pane import Pane
from loopkit_tui.widgets.topbar import SCREENS
from playing import SIZES, make_app, play, settled, text_of, until
from test_files import checkpoint
from test_screens import record
from textual.pilot import Pilot

FOLDER = Path(__file__).parent / "snapshots"
KEYS = {"lens": ["j", "l"], "sweep": ["s"], "probes": ["enter"]}
BEFORE = {"lens": "input", "probes": "fixed-point", "train": "step 120"}  # what is there to press keys on
READY = {"lens": "after 37", "sweep": "100% done", "probes": "chart 1 of"}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", [*SCREENS, "help", "export", "picker"])
def test_screen_looks_as_it_did(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    app = make_app(tmp_path, "smollm2-135m-instruct", screen=name if name in SCREENS else "loop")
    run = app.here / "runs" / "lidas"
    run.mkdir(parents=True)
    (run / "config.toml").write_text("[schedule]\nsteps = 200\n")
    checkpoint(app.here / "smol")
    record(run, range(60), 2)
    record(run, range(60, 120), 4)
    seen = ""

    async def script(pilot: Pilot[None]) -> None:
        nonlocal seen
        await until(pilot, lambda: app.about and app.about.where)
        pane = app.screen
        if name in ("loop", "compare"):
            await settled(pilot)
        await _keys(pilot, name, size)
        if name in ("help", "export", "picker"):
            await settled(pilot)
            await pilot.press({"help": "question_mark", "export": "e", "picker": "o"}[name])
            await until(pilot, lambda: not isinstance(app.screen, Pane))
        await until(pilot, lambda: not pane._busy)
        seen = text_of(app) + "\n"

    play(app, script, size)
    file = FOLDER / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text(seen, encoding="utf-8")
    assert seen.splitlines() == file.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCREENS)
def test_nothing_reaches_over_the_edge(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    app = make_app(tmp_path, "smollm2-135m-instruct", screen=name)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.about and app.about.where)
        await _keys(pilot, name, size)
        await until(pilot, lambda: not app.screen._busy)
        for widget in app.screen.walk_children():
            if widget.is_on_screen and widget.region.area:
                assert app.screen.region.contains_region(widget.region) or widget.parent.is_scrollable, widget  # type: ignore[union-attr]

    play(app, script, size)


async def _keys(pilot: Pilot[None], name: str, size: tuple[int, int]) -> None:
    """Press what the screen shows most with."""
    if name in BEFORE and (name, size) != ("lens", SIZES[0]):
        await until(pilot, lambda: BEFORE[name] in text_of(pilot.app) or name == "train")
    await pilot.press(*KEYS.get(name, []))
    await until(pilot, lambda: READY.get(name, "") in text_of(pilot.app))
