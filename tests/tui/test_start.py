"""The command as a person starts it: in a terminal, from a script, in a browser; the app on a real model."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from loopkit_tui.app import LoopkitApp
from loopkit_tui.engine import About, Loading
from loopkit_tui.models import ModelEngine
from loopkit_tui.start import _maker
from loopkit_tui.widgets.heatmap import Heatmap
from playing import play, real_app, settled, until
from terminal import LOOPKIT, Terminal
from textual.pilot import Pilot

from loopkit.session import load


def test_without_a_terminal_it_says_what_to_use_instead(nano: Path) -> None:
    done = subprocess.run([*LOOPKIT, str(nano)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "loopkit loop CKPT" in done.stderr


def test_an_unknown_screen_is_refused() -> None:
    done = subprocess.run([*LOOPKIT, "--screen", "nope"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "loop, lens, sweep, probes, train, compare" in done.stderr


def test_a_port_without_a_page_is_refused() -> None:
    done = subprocess.run([*LOOPKIT, "smol", "--port", "9000"], capture_output=True, text=True)
    assert (done.returncode, "--port is where --web serves" in done.stderr) == (2, True)


def test_in_a_terminal_control_c_stops_and_q_leaves_it_as_it_was(nano: Path) -> None:
    terminal = Terminal(str(nano), "--plan", "1:3x2", "--prompt", "hello")
    terminal.until("1:3", "KL")
    terminal.press("ctrl+c")
    terminal.until("stop")
    terminal.press("q")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen  # the screen from before is back


def test_a_signal_in_the_middle_of_loading_leaves_no_traceback(nano: Path) -> None:
    terminal = Terminal(str(nano))
    terminal.until("Loop")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.press("q")
    terminal.end()
    assert b"Traceback" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen


def test_a_checkpoint_that_is_none_is_said_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "gone"))
    terminal.until("gone does not exist")
    terminal.press("q")
    assert terminal.end() == 0


def test_every_screen_on_a_small_model_shows_what_the_library_says(tmp_path: Path, nano: Path, backend: object) -> None:
    name = backend.name  # type: ignore[attr-defined]
    app = real_app(tmp_path, nano, name, plan="1:3x2", prompt="hello world")
    model = load(nano, name, "cpu")

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        for key in ("up", "right", "m", "down"):
            await pilot.press(key)
            await settled(pilot)
            assert board.look
            expected = model.compare(model.prompt_ids("hello world"), app.choice.plan)
            assert board.look.kl == pytest.approx(expected.kl, abs=1e-5)
            assert board.look.candidates[0].left == pytest.approx(max(each.base for each in expected.candidates), abs=1e-5)
        written = board.written[1]
        assert written and written.text == "".join(model.generate("hello world", app.choice.plan, app.choice.tokens))
        await pilot.press("m", "m", "2")
        await until(pilot, lambda: app.screen.key == "lens" and len(app.screen._rows) == len(board.look.visits[1]) + 1)
        last = app.screen._rows[max(app.screen._rows)]
        assert last.probabilities[-1, 0] == pytest.approx(max(each.right for each in board.look.candidates), abs=1e-4)
        await pilot.press("3")
        await until(pilot, lambda: app.screen.query("#sweep-count"))
        for box, value in (("task", "copy-words-10"), ("block", "2"), ("times", "2"), ("count", "4")):
            app.screen.query_one(f"#sweep-{box}").value = value
        await pilot.press("s")
        await until(pilot, lambda: not app.screen.busy("sweep"))
        state = app.screen._state
        assert state and state.done == 1 and len(state.cells) == 5

    play(app, script, (100, 40))


def test_loading_says_how_much_is_read_and_gives_the_same_weights(nano: Path, backend: object) -> None:
    name, said = backend.name, []  # type: ignore[attr-defined]
    engine = ModelEngine(lambda: None, name, "cpu")
    engine.open(str(nano), said.append)
    shares = [each.share for each in said if isinstance(each, Loading) and each.what.startswith("loading")]
    assert len(shares) > 10 and shares == sorted(set(shares)) and shares[0] == 0 and shares[-1] < 1
    assert isinstance(said[-1], About) and said[-1].where.startswith(name)
    ids = [5, 3, 1]
    assert (engine._model(str(nano)).logits(ids) == load(nano, name, "cpu").logits(ids)).all()


def test_a_prompt_longer_than_the_models_positions_is_said(tmp_path: Path, nano: Path) -> None:
    app = real_app(tmp_path, nano, plan="", prompt="long " * 900)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "do not fit the model's 4096 positions" in str(app.screen.query_one("#notice").render()))

    play(app, script)


def test_from_picker_to_an_exported_best_plan_on_the_real_model(tmp_path: Path, smollm: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "smol").symlink_to(smollm)
    app = LoopkitApp(_maker(("torch", "cpu", None)), (), home=tmp_path / "home", here=here, plan="", prompt="The capital of France is")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.screen.query("#places") and app.screen.query_one("#places").option_count)
        await pilot.press("enter")
        board = await settled(pilot)
        assert board.look and board.look.candidates[0].text == " Paris"
        await pilot.press("up")
        await settled(pilot)
        ran = board.look.ran
        await pilot.press("up")
        await settled(pilot)
        assert ran == board.look.ran == 22  # the block and what follows, not all 38 visits
        await pilot.press("3")
        await until(pilot, lambda: app.screen.query("#sweep-count"))
        for box, value in (("task", "copy-words-10"), ("block", "15"), ("times", "2"), ("count", "2")):
            app.screen.query_one(f"#sweep-{box}").value = value
        await pilot.press("s")
        await until(pilot, lambda: not app.screen.busy("sweep") and app.screen.query_one(Heatmap).cells)
        await pilot.press("b", "enter")
        await settled(pilot)
        assert app.choice.plan.endswith("x2")
        await pilot.press("e", "j")
        exported = json.loads((here / "loopkit-loop.json").read_text())
        assert exported["look"]["sides"][1]["plan"] == app.choice.plan

    play(app, script, (80, 24))
