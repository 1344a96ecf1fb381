"""The Loop screen as a person plays it."""

import json
import re
import threading
from pathlib import Path

import pytest
from fake import FakeEngine
from loopkit_tui.engine import Look, Side
from loopkit_tui.screens.pane import Pane
from loopkit_tui.widgets.stack import VisitStack
from loopkit_tui.widgets.tokens import NextTokens
from loopkit_tui.widgets.topbar import Notice, TopBar
from playing import make_app, play, settled, text_of, until
from textual.pilot import Pilot
from textual.widgets import Input


@pytest.mark.parametrize(
    ("keys", "plan"),
    [
        (["right", "l"], "10:14x3"),
        (["left", "h"], "6:10x3"),
        (["up", "k", "plus"], "8:12x6"),
        (["down", "j", "minus"], ""),
        (["down"], "8:12x2"),
        (["left_square_bracket"], "7:12x3"),
        (["right_square_bracket", "right_square_bracket"], "10:12x3"),
        (["H", "shift+left", "left_curly_bracket"], "8:9x3"),
        (["L", "shift+right", "right_curly_bracket"], "8:15x3"),
        (["m"], "8:12x3@damped"),
        (["m", "m"], "8:12x3@residual"),
        (["m", "m", "m"], "8:12x3"),
        (["r"], ""),
        (["0", "up"], "8:12x2"),
        (["left"] * 40, "0:4x3"),
        (["right"] * 40, "26:30x3"),
    ],
)
def test_keys_turn_the_dial_and_the_screen_follows(tmp_path: Path, keys: list[str], plan: str) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press(*keys)
        board = await settled(pilot)
        assert app.choice.plan == plan
        assert board.look and board.look.sides == (Side("smol"), Side("smol", plan))
        assert app.screen.query_one(VisitStack).runs == board.look.visits[1]
        assert app.screen.query_one("#plan", Input).value == plan

    play(app, script)


def test_what_is_seen_are_both_sides_with_their_changes_marked(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look
        seen = text_of(app)
        assert "smol" in seen and "134.5M" in seen and "torch cpu float32" in seen
        assert "8:12 ×3" in seen and "30 → 38" in seen and "(×1.27)" in seen
        assert f"{board.look.kl:.4f} nats" in seen
        first = board.look.candidates[0]
        assert f"{first.left:.2%}" in seen and f"{first.right:.2%}" in seen and f"{first.right - first.left:+.2%}" in seen
        assert "It is the largest city" in seen

    play(app, script)


def test_nothing_of_an_older_setting_is_shown_while_the_new_one_is_computed(tmp_path: Path) -> None:
    hold = threading.Event()
    engine = FakeEngine()
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look
        old = f"{board.look.kl:.4f} nats"
        engine.look = lambda sides, prompt, top, emit: hold.wait(60) and FakeEngine().look(sides, prompt, top, emit)  # type: ignore[method-assign]
        await pilot.press("up")
        await pilot.pause()
        seen = text_of(app)
        assert board.look is None
        assert old not in seen and "city of light" not in seen
        assert "It is the largest city" in seen  # the base side still holds
        assert app.screen.query_one(TopBar).busy
        hold.set()
        await settled(pilot)
        assert not app.screen.query_one(TopBar).busy

    play(app, script)


def test_a_hundred_changes_at_once_end_in_the_last_one(tmp_path: Path) -> None:
    engine = FakeEngine(hold=threading.Event())
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        before = len(engine.looks)
        screen = app.screen
        for number in range(100):
            screen.action_times(1 if number % 3 else -1)
            screen.action_move(1 if number % 2 else -2)
        plan = app.choice.plan
        board = await settled(pilot)
        assert board.look and board.look.sides[1].plan == plan == app.screen.dial.plan
        assert engine.looks[-1][1].plan == plan
        assert len(engine.looks) - before < 100
        assert app.screen.query_one(NextTokens).look is board.look

    play(app, script)


def test_keys_answer_while_the_model_works(tmp_path: Path) -> None:
    hold = threading.Event()
    engine = FakeEngine()
    engine.look = lambda *_: hold.wait(60)  # type: ignore[assignment, method-assign]
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.about and app.about.where and isinstance(app.screen, Pane) and app.screen.busy("look"))
        await pilot.press("up", "right")
        assert app.choice.plan == "9:13x4"
        assert "9:13 ×4" in text_of(app)
        hold.set()

    play(app, script)


def test_text_is_typed_and_looked_at_at_once(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        assert board.look and board.look.tokens == 5
        await pilot.press("slash", "end", *" now", "1", "q")
        await until(pilot, lambda: board.look and board.look.tokens == 6)
        assert app.choice.prompt.text.endswith("is now1q")
        await pilot.press("enter", "up")
        assert app.choice.plan == "8:12x4"
        await pilot.press("slash", "ctrl+u")
        await until(pilot, lambda: "the text is empty" in text_of(app))
        await pilot.press(*"A dog", "escape")
        await settled(pilot)
        assert "the text is empty" not in text_of(app)

    play(app, script)


def test_a_plan_is_typed_and_what_is_wrong_with_it_said(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("p", "end", *",20:22x2")
        await settled(pilot)
        assert app.choice.plan == "8:12x3,20:22x2"
        await pilot.press("ctrl+u", *"8:4x2")
        await until(pilot, lambda: "empty range" in text_of(app))
        assert app.choice.plan != "8:4x2"
        await pilot.press("ctrl+u", *"8:12x2@damped", "enter")
        board = await settled(pilot)
        assert board.look and board.look.sides[1].plan == "8:12x2@damped"
        assert "8:12 ×2 damped" in text_of(app)

    play(app, script)


def test_the_mouse_moves_drags_and_turns(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        stack = app.screen.query_one(VisitStack)
        place = stack.content_region.x - stack.region.x + 8

        def at(visit: int) -> tuple[int, int]:
            return place + (visit + 1) * stack.cell - 1, 1  # its last column

        await pilot.click(VisitStack, offset=at(20))
        assert app.choice.plan == "20:24x3"
        await pilot.mouse_down(VisitStack, offset=at(5))
        await pilot.hover(VisitStack, offset=at(9))
        await pilot.mouse_up(VisitStack, offset=at(9))
        assert app.choice.plan == "5:10x3"
        assert (await settled(pilot)).look

    play(app, script)


def test_chat_and_length_are_asked_for(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("c", "greater_than_sign")
        await settled(pilot)
        assert app.choice.prompt.chat and app.choice.tokens == 48
        assert re.search(r"^\s*chat ", text_of(app), re.M)
        await pilot.press("c", *["less_than_sign"] * 9)
        await settled(pilot)
        assert not app.choice.prompt.chat and app.choice.tokens == 16

    play(app, script)


def test_a_text_that_is_too_long_is_said_in_a_line_and_mended(tmp_path: Path) -> None:
    app = make_app(tmp_path, prompt="word " * 200)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "200 tokens do not fit the model's 100 positions" in text_of(app))
        assert "Traceback" not in text_of(app)
        app.screen.query_one("#prompt", Input).value = "short"
        await settled(pilot)
        assert "do not fit" not in text_of(app)
        assert not app.screen.query_one(Notice).display

    play(app, script)


def test_a_model_that_does_not_load_leaves_the_app_alive(tmp_path: Path) -> None:
    app = make_app(tmp_path, "broken")

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "broken lacks tensor model.norm.weight" in text_of(app))
        assert "no model" in text_of(app)
        await pilot.press("up", "right", "m", "2", "3", "s", "4", "5", "6", "1")
        app.open(["smol"])
        await settled(pilot)
        assert "lacks tensor" not in text_of(app)
        app.open(["also/broken"])
        await until(pilot, lambda: "also/broken lacks tensor" in text_of(app))
        assert app.choice.paths == ("smol",) and "no model" not in text_of(app)
        await pilot.press("up")
        board = await settled(pilot)
        assert board.look and board.look.sides[1].path == "smol"

    play(app, script)


def test_control_c_stops_what_runs_and_no_more(tmp_path: Path) -> None:
    engine = FakeEngine(hold=threading.Event())
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        engine.look, look = engine.endless, engine.look  # type: ignore[assignment, method-assign]
        await pilot.press("up", "ctrl+c")
        await until(pilot, lambda: not app.screen.query_one(TopBar).busy)
        engine.look = look  # type: ignore[method-assign]
        await pilot.press("2", "1")  # what was given up is asked for again
        board = await settled(pilot)
        assert board.look and board.look.sides[1].plan == "8:12x4"
        await pilot.press("up")
        board = await settled(pilot)
        assert board.look and board.look.sides[1].plan == "8:12x5"
        await pilot.press("ctrl+c")
        assert app.is_running

    play(app, script)


def test_control_c_while_a_model_loads_gives_it_up(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.open, opens = engine.endless, engine.open  # type: ignore[assignment, method-assign]
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app._opening)
        await pilot.press("ctrl+c")
        await until(pilot, lambda: "smol was not opened; o opens it" in text_of(app))
        engine.open = opens  # type: ignore[method-assign]
        app.open(["smol"])
        await settled(pilot)

    play(app, script)


def test_quitting_while_the_model_works_ends_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.look = engine.endless  # type: ignore[method-assign]
    app = make_app(tmp_path, engine=engine)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, Pane) and app.screen.busy("look"))
        await pilot.press("q")

    play(app, script)
    assert app.return_code == 0


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (60, 16), (40, 10)])
def test_any_size_at_any_time(tmp_path: Path, size: tuple[int, int]) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        for screen in "123456":
            await pilot.press(screen)
            for each in (size, (120, 36), size):
                await pilot.resize_terminal(*each)
                await pilot.pause()
        assert app.size == size

    play(app, script)


def test_export_of_a_model_never_goes_over_what_is_there_and_says_what_cannot_be(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    def told(title: str) -> list[str]:
        return [note.message for note in app._notifications if note.title == title]

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("e", "m", "e", "m")
        await until(pilot, lambda: len(told("written")) == 2)
        assert sorted(path.name for path in app.here.iterdir()) == ["smol-8-12x3", "smol-8-12x3-2"]
        await pilot.press("m")
        await settled(pilot)
        await pilot.press("e", "m")
        await until(pilot, lambda: told("not written") == ["the mode in '8:12x3@damped' is for running a model"])
        await pilot.press("r")
        await settled(pilot)
        await pilot.press("e", "m")  # the model as it is has no plan to give: nothing happens
        assert "with this plan" not in text_of(app)
        await pilot.press("escape")
        assert len(list(app.here.iterdir())) == 2

    play(app, script)


def test_export_writes_the_picture_the_numbers_and_the_command(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        board = await settled(pilot)
        await pilot.press("e", "s")
        await pilot.press("e", "j")
        await pilot.press("e", "s")
        await pilot.press("e", "c")
        files = sorted(path.name for path in app.here.iterdir())
        assert files == ["loopkit-loop-2.svg", "loopkit-loop.json", "loopkit-loop.svg"]
        found = json.loads((app.here / "loopkit-loop.json").read_text())
        assert board.look and found["look"]["kl"] == board.look.kl
        assert found["prompt"]["text"] == "The capital of France is"
        assert "8:12x3" in (app.here / "loopkit-loop.svg").read_text()
        assert app.clipboard == "loopkit loop smol --repeat 8:12x3 --prompt 'The capital of France is' --max-tokens 32"
        await pilot.press("y")

    play(app, script)


def test_a_plan_that_does_not_fit_the_model_is_said_and_another_can_be_made(tmp_path: Path) -> None:
    app = make_app(tmp_path, plan="8:40x2")  # as kept from a deeper model

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "range 8:40 is outside" in text_of(app))
        await pilot.press("0", "up")
        board = await settled(pilot)
        assert board.look
        assert "8:40" not in app.choice.plan

    play(app, script)


def test_a_model_without_numbers_says_so() -> None:
    tokens = NextTokens()
    nan = float("nan")
    tokens.look = Look((Side("diverged"), Side("diverged")), 1, (), nan, (nan, nan), ((0,), (0,)), (1.0, 1.0), 1, 0.1)
    assert "not numbers" in tokens.render().plain
