"""Screens by number, the picker, help, the palette, themes, keys of one's own, what is remembered."""

import json
from pathlib import Path

import pytest
from loopkit_tui import settings
from loopkit_tui.screens.help import Help
from loopkit_tui.screens.pane import Pane
from loopkit_tui.screens.picker import Picker
from loopkit_tui.widgets.topbar import SCREENS
from playing import make_app, play, settled, text_of, until
from textual.pilot import Pilot
from textual.widgets import OptionList


def key(app: object) -> str:
    return app.screen.key if isinstance(app.screen, Pane) else ""  # type: ignore[attr-defined]


def checkpoint(folder: Path, layers: int = 4) -> Path:
    """What the picker takes for a checkpoint."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": 64}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder


def test_numbers_go_to_the_screens_and_so_do_clicks(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        for number, name in enumerate(SCREENS, 1):
            await pilot.press(str(number))
            await until(pilot, lambda name=name: key(app) == name)
        bar = text_of(app).splitlines()[0]
        for name in SCREENS:
            await pilot.click(offset=(bar.index(name.capitalize()) + 1, 0))
            await until(pilot, lambda name=name: key(app) == name)

    play(app, script)


@pytest.mark.parametrize("name", SCREENS)
def test_help_lists_the_keys_of_every_screen(tmp_path: Path, name: str) -> None:
    app = make_app(tmp_path, screen=name)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: key(app) == name)
        await pilot.press("escape", "question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        help_text = str(app.screen.query_one("#keys").render())
        assert "app.quit" in help_text and "app.export" in help_text
        for binding in type(app.screen_stack[-2]).BINDINGS:
            if binding.id and binding.id != "pane.back":
                assert binding.id in help_text
        await pilot.press("j", "k", "escape")
        await until(pilot, lambda: key(app) == name)

    play(app, script)


def test_the_command_palette_reaches_the_screens(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("ctrl+p")
        await pilot.press(*"Sweep")
        await until(pilot, lambda: "Show the sweep screen" in text_of(app))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: key(app) == "sweep")

    play(app, script)


def test_every_theme_draws_every_screen(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        for name in ("textual-light", "ansi-dark", "ansi-light", "gruvbox"):
            app.theme = name
            for number in "123456":
                await pilot.press(number)
                if number == "3":
                    await pilot.press("s")
                await pilot.pause()
            await pilot.press("1")
            assert "8:12 ×3" in text_of(app)
        await pilot.press("t")
        assert app.theme != "gruvbox"

    play(app, script)


def test_without_a_path_the_picker_opens_and_goes_by_keyboard_alone(tmp_path: Path) -> None:
    here = tmp_path / "here"
    checkpoint(here / "smol")
    checkpoint(here / "runs" / "lidas" / "checkpoints" / "step_000040")
    (here / "runs" / "lidas" / "latest").write_text("checkpoints/step_000040\n")
    (here / "runs" / "lidas" / "config.toml").touch()
    app = make_app(tmp_path, pick=True)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: isinstance(app.screen, Picker) and app.screen.query_one(OptionList).option_count == 2)
        seen = text_of(app)
        assert "checkpoint" in seen and "run" in seen and "step_000040" in seen
        await pilot.press(*"lid", "enter")
        board = await settled(pilot)
        assert app.choice.paths == (str(here / "runs" / "lidas"),)
        assert board.look and board.look.sides[0].path.endswith("lidas")
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, Picker))
        await pilot.press("tab", "enter")  # the cursor has gone on to the next one
        await settled(pilot)
        assert len(app.choice.paths) == 1
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, Picker))
        await pilot.press("tab", "tab", "enter")
        await settled(pilot)
        assert len(app.choice.paths) == 2
        await pilot.press("o", *"zzz", "enter")
        await until(pilot, lambda: "zzz is no checkpoint" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: key(app) == "loop")

    play(app, script)


def test_what_was_chosen_is_there_the_next_time(tmp_path: Path) -> None:
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("up", "slash", "end", *" so", "enter", "greater_than_sign", "t")
        await settled(pilot)

    play(app, script)
    again = make_app(tmp_path, plan=None)

    async def look(pilot: Pilot[None]) -> None:
        await settled(pilot)
        assert again.choice.plan == "8:12x4"
        assert again.choice.prompt.text == "The capital of France is so"
        assert again.choice.tokens == 48
        assert again.theme == app.theme != "textual-dark"
        assert again.kept.recent == (str(Path("smol").resolve()),)

    play(again, look)


def test_settings_that_cannot_be_kept_are_said_at_the_end(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    (tmp_path / "home").write_text("a file where the folder would be")

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)

    play(app, script)
    assert app.unkept == f"the settings cannot be kept in {tmp_path / 'home'}: File exists"


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"theme": 3, "tokens": "many", "recent": [1, "a"]}', "\xff"])
def test_damaged_settings_are_as_at_the_first_time(tmp_path: Path, text: str) -> None:
    (tmp_path / "tui.json").write_bytes(text.encode("latin-1"))
    found = settings.read(tmp_path)
    assert found.theme == "textual-dark" and found.tokens == 32
    assert found.recent in ((), ("a",))


def test_settings_come_back_as_written(tmp_path: Path) -> None:
    kept = settings.Settings("ansi-dark", "Grüße ", True, "1:2x3@damped", 64).opened("/a").opened("/b").opened("/a")
    settings.write(tmp_path / "new" / "folder", kept)
    assert settings.read(tmp_path / "new" / "folder") == kept
    assert kept.recent == ("/a", "/b")
