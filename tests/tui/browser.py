"""The app in a headless browser: loopkit tui --web behind a port, keys sent to the page, and what the page's terminal shows by now."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from terminal import LONG, LOOPKIT, QUIET, Screen

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAMED = {"enter": ("Enter", 13, "\r"), "tab": ("Tab", 9, "\t"), "up": ("ArrowUp", 38, ""), "escape": ("Escape", 27, "")}


@contextmanager
def served(*words: str, here: Path | None = None) -> Iterator[int]:
    """The app behind a port, ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen([*LOOPKIT, *words, "--web", "--port", str(port)], start_new_session=True, cwd=here)
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
    """A page over the browser's DevTools socket; ``screen`` is what the app has drawn into it."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._count, self.screen = connection, 0, Screen()

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        self._count += 1
        await self._connection.send_json({"id": self._count, "method": method, "params": params})
        async for message in self._connection:
            answer = message.json()
            if answer.get("method") == "Network.webSocketFrameReceived":
                frame = answer["params"]["response"]
                self.screen.feed(base64.b64decode(frame["payloadData"]) if frame["opcode"] == 2 else b"")
            if answer.get("id") == self._count:
                result: dict[str, Any] = answer.get("result", {})
                return result
        raise AssertionError("the browser went away")

    async def until(self, *texts: str) -> str:
        """Wait until all of these stand on the screen; what it shows then."""
        try:
            while not all(text in self.screen.text for text in texts):
                await asyncio.sleep(0.1)
                await self._take_in()
        except asyncio.CancelledError:
            raise AssertionError(f"{texts} never came; on screen:\n{self.screen.text}") from None
        return self.screen.text

    async def _take_in(self) -> None:
        """What has come meanwhile stands before the answer."""
        await self.call("Runtime.evaluate", expression="1")

    async def click(self, x: int, y: int) -> None:
        """Into the page, which from then on has the keys."""
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, *keys: str) -> None:
        """Keys by name, or text, each once the one before has done what it does."""
        for each in keys:
            for name, code, text in [NAMED[each]] if each in NAMED else [(one, ord(one.upper()) * one.isalnum(), one) for one in each]:
                typed = {"text": text} if text else {}
                await self.call("Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=code, **typed)
                await self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)
            fed = -1
            while fed < self.screen.fed:
                fed = self.screen.fed
                await asyncio.sleep(QUIET)
                await self._take_in()

    async def picture(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def browsing(browser: str, folder: Path, port: int) -> AsyncIterator[Browser]:
    """A page of the app in a browser of its own, with a profile in ``folder``."""
    import aiohttp

    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,800"]
    command = [browser, *quiet, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(LONG), aiohttp.ClientSession() as session:
            while not (folder / "DevToolsActivePort").exists():
                await asyncio.sleep(0.1)
            debug = (folder / "DevToolsActivePort").read_text().split()[0]
            pages = json.loads(await (await session.get(f"http://127.0.0.1:{debug}/json")).text())
            target = next(page for page in pages if page["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as connection:
                page = Browser(connection)
                await page.call("Network.enable")
                await page.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
                yield page
    finally:
        process.terminate()
        await process.wait()
