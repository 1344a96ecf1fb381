"""Keys of one's own: a file that says something the app does not know ends in one line before the app starts."""

from pathlib import Path

import pytest
from loopkit_tui import keymap
from loopkit_tui.app import LoopkitApp
from loopkit_tui.screens.pane import Pane
from loopkit_tui.widgets.topbar import SCREENS
from playing import make_app, play, settled, until
from terminal import Terminal
from textual.pilot import Pilot

from loopkit.errors import LoopkitError


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keymap.toml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("not toml", 1, "is not TOML"),
        ('[key]\n"loop.more" = "w"\n', 2, "keys stand under [keys]"),
        ("keys = 3\n", 2, "keys stand under [keys]"),
        ('[keys]\nloop.more = "w"\n', 2, "no action 'loop'"),
        ('[keys]\n"loop.mroe" = "w"\n', 2, "no action 'loop.mroe'; nearest: loop.more"),
        ('[keys]\n"xyzzy" = "w"\n', 2, "no action 'xyzzy'; ? in the app names those of a screen"),
        ('[keys]\n"loop.more" = 3\n', 2, "loop.more must be a text of keys"),
        ('[keys]\n"loop.more" = "upp"\n', 2, "loop.more: no key 'upp'; nearest: up"),
        ('[keys]\n"loop.more" = "w,Ctrl+X"\n', 2, "loop.more: no key 'Ctrl+X'; nearest: ctrl+x"),
        ('[keys]\n"loop.more" = ""\n', 2, "loop.more: no key ''"),
        ('[keys]\n"loop.more" = "w,"\n', 2, "loop.more: no key ''"),
        ('[keys]\n"loop.more" = "strg+x"\n', 2, "loop.more: no key 'strg+x'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, text: str, code: int, said: str) -> None:
    with pytest.raises(LoopkitError) as error:
        keymap.read(write(tmp_path, text))
    assert error.value.exit_code == code
    assert said in str(error.value) and str(tmp_path / "keymap.toml") in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[keys]\n"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    assert keymap.read(write(tmp_path, text)) == keymap.read(tmp_path / "none") == {}


def test_every_key_the_app_uses_can_be_written_down(tmp_path: Path) -> None:
    from loopkit_tui.screens import CLASSES, make
    from loopkit_tui.widgets.heatmap import Heatmap

    used = {binding.id: binding.key for node in (LoopkitApp, Heatmap, *(type(make(name)) for name in CLASSES)) for binding in all_of(node)}
    assert set(used) == keymap.actions() and len(used) > 50
    lines = [f'"{name}" = "{keys}"' for name, keys in used.items()]
    assert keymap.read(write(tmp_path, "[keys]\n" + "\n".join(lines))) == used


def all_of(node: type) -> list:
    """What Textual makes of a class's bindings, by the way it merges them itself."""
    return [binding for bindings in node._merged_bindings.key_to_bindings.values() for binding in bindings if binding.id]


def test_help_names_only_actions_that_a_keymap_may_name(tmp_path: Path) -> None:
    app, named = make_app(tmp_path), set()

    async def script(pilot: Pilot[None]) -> None:
        for number, name in enumerate(SCREENS, 1):
            await pilot.press(str(number))
            await until(pilot, lambda name=name: isinstance(app.screen, Pane) and app.screen.key == name)
            named.update(each.binding.id for each in app.screen.active_bindings.values() if each.binding.id)

    play(app, script)
    assert named <= keymap.actions()


def test_a_persons_keys_replace_the_apps_own(tmp_path: Path) -> None:
    write(tmp_path / "home", '[keys]\n"loop.more" = "w, i"\n"app.quit" = "ctrl+x"\n')
    app = make_app(tmp_path)

    async def script(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("w", "i", "up", "q")
        assert app.is_running
        assert app.choice.plan == "8:12x5"
        await pilot.press("ctrl+x")

    play(app, script)
    assert app.return_code == 0


@pytest.mark.parametrize("web", [(), ("--web",)])
def test_the_command_ends_before_the_app_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: tuple[str, ...]) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = write(tmp_path / "config" / "loopkit", '[keys]\n"app.qiut" = "x"\n') / "keymap.toml"
    terminal = Terminal("--prompt", "hello", *web, size=(200, 24))
    assert terminal.end() == 2
    assert b"\x1b[?1049h" not in terminal.seen
    assert f"{file}: no action 'app.qiut'; nearest: app.quit" in terminal.screen.text
    assert len(terminal.screen.text.splitlines()) == 1
