"""Lens, Sweep, Probes, Train and Compare as a person plays them."""

import json
import re
from pathlib import Path

import pytest
from fake import VISITS, FakeEngine
from loopkit_tui.engine import Side
from loopkit_tui.screens.pane import Pane
from loopkit_tui.widgets.heatmap import Heatmap
from loopkit_tui.widgets.plot import Plot
from playing import make_app, play, settled, text_of, until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList


def quiet(app: object, kind: str) -> bool:
    pane = app.screen  # type: ignore[attr-defined]
    return isinstance(pane, Pane) and app.about is not None and not pane.busy(kind)  # type: ignore[attr-defined]


def test_lens_shows_every_visit_and_the_cursor_opens_the_top_ten(tmp_path: Path) -> None:
    app = make_app(tmp_path, screen="lens")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "38 L29" in text_of(app) and quiet(app, "lens"))
        heatmap = app.screen.query_one(Heatmap)
        assert heatmap.cells is not None
        assert heatmap.cells.values.shape == (VISITS + 8 + 1, 5)
        await pilot.press("j", "down", "l", "right")
        assert heatmap.cursor == (2, 2)
        seen = text_of(app)
        assert "after 36 visits (L27)" in seen
        assert "at 2" in seen
        await pilot.press("G", "dollar_sign")
        assert heatmap.cursor == (38, 4)
        assert "input" in text_of(app)
        await pilot.press("g", "home", "k", "h", "ctrl+d", "pageup", "b")
        assert heatmap.cursor == (0, 0)
        await pilot.click(Heatmap, offset=(20, 5))
        assert heatmap.cursor[0] > 0
        await pilot.press("p", "ctrl+u", "enter")
        await until(pilot, lambda: "30 L29" in text_of(app))
        await pilot.press("slash", "end", *" a b", "enter")
        await until(pilot, lambda: heatmap.cells is not None and heatmap.cells.values.shape == (VISITS + 1, 7))

    play(app, script)


def test_sweep_fills_in_stops_goes_on_and_applies_a_cell(tmp_path: Path) -> None:
    engine = FakeEngine()
    app = make_app(tmp_path, engine=engine, screen="sweep")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.about)
        assert "s starts" in text_of(app)
        engine.sweep, real = engine.endless, engine.sweep  # type: ignore[method-assign]
        await pilot.press("s")
        await until(pilot, lambda: "running, s stops" in text_of(app))
        await pilot.press("1", "up")
        await settled(pilot)  # the loop answers while the sweep goes on
        await pilot.press("3")
        await until(pilot, lambda: "running, s stops" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "s starts" in text_of(app))
        engine.sweep = real  # type: ignore[method-assign]
        await pilot.press("s")
        await until(pilot, lambda: "100% done" in text_of(app) and quiet(app, "sweep"))
        heatmap = app.screen.query_one(Heatmap)
        assert heatmap.cells is not None
        assert heatmap.cells.values.shape == (2, VISITS - 4 + 1)
        assert heatmap.cells.rows == ("4 ×2", "4 ×3")
        await pilot.press("b")
        best = heatmap.cells.values.max()
        assert heatmap.cells.values[heatmap.cursor] == best > 0
        assert f"{best:+.1f} points" in text_of(app)
        row, column = heatmap.cursor
        await pilot.press("enter")
        board = await settled(pilot)
        assert board.look and board.look.sides[1].plan == f"{column}:{column + 4}x{2 + row}" == app.choice.plan

    play(app, script)


@pytest.mark.parametrize(
    ("box", "text", "said"), [("block", "x", "block must be numbers"), ("mode", "odd", "no mode 'odd'"), ("times", "2..", "2..5")]
)
def test_settings_of_a_sweep_that_are_wrong_are_said(tmp_path: Path, box: str, text: str, said: str) -> None:
    app = make_app(tmp_path, screen="sweep")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.about)
        app.screen.query_one(f"#sweep-{box}", Input).value = text
        await pilot.press("s")
        await until(pilot, lambda: said in text_of(app))

    play(app, script)


def test_probes_run_and_set_checkpoints_in_one_picture(tmp_path: Path) -> None:
    app = make_app(tmp_path, "smol", "lidas", screen="probes")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "fixed-point" in text_of(app) and app.about)
        await pilot.press("j", "k", "enter")
        await until(pilot, lambda: len(app.screen._found.get("depth-score", [])) == 2 and quiet(app, "probe"))
        plot = app.screen.query_one(Plot)
        assert plot.display and plot.curves and [each.label for each in plot.curves.series] == ["smol", "lidas"]
        assert "chart 1 of 3" in text_of(app) and "score 1.41" in text_of(app)
        await pilot.press("right_square_bracket")
        heatmap = app.screen.query_one(Heatmap)
        assert heatmap.display and not plot.display and heatmap.cells is not None
        assert heatmap.cells.values.shape == (VISITS, VISITS)
        await pilot.press("l", "l")
        assert plot.display
        await pilot.press("h", "e", "j")
        assert json.loads((app.here / "loopkit-probes.json").read_text())[1]["checkpoint"] == "lidas"
        await pilot.press("e", "c")
        assert app.clipboard.startswith("loopkit probe depth-score smol --against lidas --plan 8:12x3 --data primitives:var-math-1")
        await pilot.press("j")
        await until(pilot, lambda: "runs this probe" in text_of(app))
        app.engine.probe = app.engine.endless  # type: ignore[attr-defined]
        await pilot.press("r", "s")
        await until(pilot, lambda: quiet(app, "probe"))
        app.screen.query_one("#probe-length", Input).value = "many"
        await pilot.press("r")
        await until(pilot, lambda: "length must be a number of 1 or more, got 'many'" in text_of(app))

    play(app, script)


def record(run: Path, steps: range, layers: int) -> None:
    """Lines of metrics as a training writes them."""
    with (run / "metrics.jsonl").open("a") as file:
        for step in steps:
            event = {
                "event": "step", "step": step, "loss": 4 - step / 100, "rate": 1e-3, "gradient_norm": 1.0, "tokens": 512 * (step + 1),
                "flops": 1e9 * (step + 1), "seconds": 0.05, "layers": layers, "visits": 2 * layers,
            }  # fmt: skip
            file.write(json.dumps(event) + "\n")


def test_train_watches_runs_as_they_grow(tmp_path: Path) -> None:
    app = make_app(tmp_path, screen="train")
    for name in ("base", "lidas"):
        run = app.here / "runs" / name
        run.mkdir(parents=True)
        (run / "config.toml").write_text("[schedule]\nsteps = 200\n")
        record(run, range(20), 2)
    (run / "samples").mkdir()
    (run / "samples" / "step_000020.txt").write_text("once upon a time")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "step 20 of 200" in text_of(app))
        names = [each.path.name for each in app.screen._watched.values()]
        await pilot.press(*["j"] * names.index("lidas"))
        await until(pilot, lambda: "once upon a time" in text_of(app) and "step 000020" in text_of(app))
        assert "10,240 tokens/s" in text_of(app)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"event": "grown", "step": 20, "layers": 4, "source": [0, 1, 0, 1], "seconds": 0.1}\n')
        record(run, range(20, 60), 4)
        await until(pilot, lambda: "step 60 of 200" in text_of(app))
        assert "4 layers, 8 visits" in text_of(app)
        await pilot.press("space", "k" if names.index("lidas") else "j", "space")
        curves = app.screen.query_one("#loss", Plot).curves
        assert curves and {each.label for each in curves.series} == {"base", "lidas"}
        (app.here / "runs" / "new").mkdir()
        (app.here / "runs" / "new" / "config.toml").touch()
        await until(pilot, lambda: re.search(r"^\s*new ", text_of(app), re.M))
        await pilot.press("s", "n", "escape")

    play(app, script)


def test_a_training_that_cannot_start_is_said(tmp_path: Path) -> None:
    app = make_app(tmp_path, screen="train")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "n starts one" in text_of(app))
        await pilot.press("n", "ctrl+u", *"nowhere.toml", "enter")
        await until(pilot, lambda: "there is no recipe nowhere.toml" in text_of(app))

    play(app, script)


def test_compare_sets_two_checkpoints_side_by_side(tmp_path: Path) -> None:
    app = make_app(tmp_path, "smol", "runs/lidas", screen="compare", plan="")

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look and board.look.sides == (Side("smol"), Side("runs/lidas"))
        assert "smol 30" in text_of(app) and "lidas 30" in text_of(app)
        await pilot.press("p", *"8:12x2", "enter")
        await settled(pilot)
        assert board.look.sides[1] == Side("runs/lidas", "8:12x2")
        await pilot.press("x")
        await settled(pilot)
        assert board.look.sides == (Side("runs/lidas", "8:12x2"), Side("smol"))
        await pilot.press("e", "c")
        assert app.clipboard == "loopkit tui runs/lidas smol --screen compare --plan '' --prompt 'The capital of France is'"

    play(app, script)


def test_compare_goes_with_what_is_opened_and_its_plan(tmp_path: Path) -> None:
    app = make_app(tmp_path, "smol", "runs/[bold", screen="compare", plan="8:12x2")

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look and board.look.sides == (Side("smol"), Side("runs/[bold", "8:12x2"))
        app.open(["runs/lidas", "smol"])
        await settled(pilot)
        assert board.look.sides == (Side("runs/lidas"), Side("smol")), "the plan was made for another model"

    play(app, script)


def test_compare_of_one_checkpoint_is_the_dials_plan(tmp_path: Path) -> None:
    app = make_app(tmp_path, screen="compare")

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look and board.look.sides == (Side("smol"), Side("smol", "8:12x3"))
        await pilot.press("p", "end", *"0:1")
        await until(pilot, lambda: "bad part" in text_of(app))

    play(app, script)


def test_a_list_longer_than_its_window_scrolls(tmp_path: Path) -> None:
    app = make_app(tmp_path, screen="train")
    for number in range(40):
        run = app.here / "runs" / f"run{number:02}"
        run.mkdir(parents=True)
        (run / "config.toml").touch()

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 40)
        await pilot.press(*["j"] * 39)
        last = list(app.screen._watched)[-1].name
        await until(pilot, lambda: last in text_of(app))

    play(app, script)
