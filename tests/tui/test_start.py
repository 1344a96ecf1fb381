"""The command as a person starts it: in a terminal, from a script, in a browser; the app on a real model."""

import asyncio
import base64
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loopkit_tui.app import LoopkitApp
from loopkit_tui.start import _maker
from loopkit_tui.widgets.heatmap import Heatmap
from playing import play, settled, until
from strategies import random_arrays
from textual.pilot import Pilot

from loopkit.checkpoint.folder import write_folder
from loopkit.data.tokenizers import byte_codec
from loopkit.session import load
from loopkit.spec import Spec

LOOPKIT = [sys.executable, "-m", "loopkit", "tui"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LONG = 120  # seconds on a busy machine before a test gives up


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with a tokenizer."""
    folder = tmp_path_factory.mktemp("nano")
    spec = Spec(48, 64, 4, 2, 12, 300, "6", max_position_embeddings=4096)
    (folder / "tokenizer").mkdir()
    byte_codec().save(folder / "tokenizer")
    return write_folder(folder / "nano", spec, random_arrays(spec), tokenizer=folder / "tokenizer")


def test_without_a_terminal_it_says_what_to_use_instead(nano: Path) -> None:
    done = subprocess.run([*LOOPKIT, str(nano)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "loopkit loop CKPT" in done.stderr


def test_an_unknown_screen_is_refused() -> None:
    done = subprocess.run([*LOOPKIT, "--screen", "nope"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "loop, lens, sweep, probes, train, compare" in done.stderr


class Terminal:
    """The app in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.screen = pty.fork()
        if not self.pid:
            os.environ.update(TERM="xterm-256color", COLUMNS="100", LINES="30", COLORTERM="truecolor")
            os.execv(LOOPKIT[0], [*LOOPKIT, *words])
        self.seen = b""

    def until(self, text: str) -> None:
        """Read until something has been drawn."""
        end = time.monotonic() + LONG
        while text.encode() not in self.seen:
            assert time.monotonic() < end, self.seen[-2000:]
            if select.select([self.screen], [], [], 0.5)[0]:
                self.seen += os.read(self.screen, 65536)

    def press(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def end(self) -> int:
        """Read what is left; the exit code."""
        while True:
            try:
                data = os.read(self.screen, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_in_a_terminal_control_c_stops_and_q_leaves_it_as_it_was(nano: Path) -> None:
    terminal = Terminal(str(nano), "--plan", "1:3x2", "--prompt", "hello")
    terminal.until("Loop")
    terminal.press(b"\x03")
    terminal.until("1:3")
    terminal.press(b"q")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen  # the screen from before is back


def test_a_signal_in_the_middle_of_loading_leaves_no_traceback(nano: Path) -> None:
    terminal = Terminal(str(nano))
    terminal.until("Loop")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.press(b"q")
    terminal.end()
    assert b"Traceback" not in terminal.seen
    assert b"\x1b[?1049l" in terminal.seen


def test_a_checkpoint_that_is_none_is_said_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal(str(tmp_path / "gone"))
    terminal.until("gone does not exist")
    terminal.press(b"q")
    assert terminal.end() == 0


def real_app(folder: Path, checkpoint: Path, backend: str = "torch", **options: str) -> LoopkitApp:
    """The app on a real engine."""
    here = folder / "here"
    here.mkdir()
    return LoopkitApp(_maker((backend, "cpu", None)), (str(checkpoint),), home=folder / "home", here=here, **options)


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


@contextmanager
def served(*words: str) -> Iterator[int]:
    """The app behind a port, ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen([*LOOPKIT, *words, "--web", "--port", str(port)], start_new_session=True)
    try:
        end = time.monotonic() + LONG
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Browser:
    """A headless browser over its DevTools socket; ``seen`` is what the app has sent to the page."""

    def __init__(self, socket_: object) -> None:
        self.socket, self.count, self.seen = socket_, 0, b""

    async def call(self, method: str, **params: object) -> dict:
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": params})
        async for message in self.socket:
            answer = message.json()
            if answer.get("method") == "Network.webSocketFrameReceived":
                frame = answer["params"]["response"]
                self.seen += base64.b64decode(frame["payloadData"]) if frame["opcode"] == 2 else frame["payloadData"].encode()
            if answer.get("id") == self.count:
                return answer.get("result", {})
        raise AssertionError("the browser went away")

    async def until(self, text: str) -> None:
        """Wait for something to be drawn in the page."""
        while text.encode() not in self.seen:
            await asyncio.sleep(0.2)
            await self.call("Runtime.evaluate", expression="1")

    async def click(self, x: int, y: int) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key: str, code: int) -> None:
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, text=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)


async def _in_browser(browser: str, folder: Path, port: int) -> None:
    import aiohttp

    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(LONG), aiohttp.ClientSession() as session:
            while not (folder / "DevToolsActivePort").exists():
                await asyncio.sleep(0.1)
            debug = (folder / "DevToolsActivePort").read_text().split()[0]
            pages = await (await session.get(f"http://127.0.0.1:{debug}/json")).json()
            target = next(page for page in pages if page["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as ws:
                page = Browser(ws)
                await page.call("Network.enable")
                await page.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
                await page.until("1:3 ×2")
                await page.until("nats")
                await page.click(5, 5)
                await page.press("k", 75)
                await page.until("1:3 ×3")
                await page.press("2", 50)
                await page.until("entropy")
                picture = await page.call("Page.captureScreenshot")
                assert len(base64.b64decode(picture["data"])) > 10_000
    finally:
        process.terminate()
        await process.wait()


def test_in_a_browser(tmp_path: Path, nano: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; install Debian's package chromium to test --web")
    pytest.importorskip("textual_serve", reason="--web needs textual-serve: pip install 'loopkit-lm[web]'")
    with served(str(nano), "--plan", "1:3x2", "--prompt", "hello") as port:
        asyncio.run(_in_browser(browser, tmp_path / "profile", port))
