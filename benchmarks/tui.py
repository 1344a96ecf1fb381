"""The app's speed on this machine: start to first screen, redraw after a change of the repeat count, and keys while the model works.

    python benchmarks/tui.py CKPT [--json]

CKPT should be the real model (loopkit convert smollm2-135m-instruct smol). Minima and medians, with the machine's load beside them:
on a busy machine the median says more of the others than of the app.
"""

import argparse
import asyncio
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path

from loopkit_tui.app import LoopkitApp
from loopkit_tui.start import _maker
from loopkit_tui.widgets.board import Board
from textual.pilot import Pilot

TOKENS = 64
STARTS, TURNS, KEYS = 5, 12, 40


def start_to_first_screen(checkpoint: str) -> list[float]:
    """Seconds from starting the command in a terminal until the screen is drawn."""
    return [_first_screen(checkpoint) for _ in range(STARTS)]


def _first_screen(checkpoint: str) -> float:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "TERM": "xterm-256color", "XDG_CONFIG_HOME": home}
        command = [sys.executable, "-m", "loopkit", "tui", checkpoint]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True)
        seen = b""
        while b"Compare" not in seen:
            if select.select([ours], [], [], 60)[0]:
                seen += os.read(ours, 65536)
        spent = time.perf_counter() - begin
        process.kill()
        process.wait()
    os.close(ours)
    os.close(theirs)
    return spent


async def redraws_and_keys(checkpoint: str) -> tuple[list[tuple[float, float]], list[float]]:
    """Seconds from a key that changes the repeat count to the new numbers on the screen, and from a key to its effect while the model
    works."""
    with tempfile.TemporaryDirectory() as home:
        text = "the quick brown fox jumps over the lazy dog " * 20
        app = LoopkitApp(_maker(("torch", "cpu", None)), (checkpoint,), home=Path(home), here=Path(home), plan="8:12x2", prompt="a")
        async with app.run_test(size=(120, 40)) as pilot:
            board = app.screen.query_one(Board)
            await _until(pilot, lambda: board.look is not None)
            ids = app.engine._model(checkpoint).tokenizer.encode(text)[:TOKENS]  # type: ignore[attr-defined]
            app.screen.query_one("#prompt").value = app.engine._model(checkpoint).tokenizer.decode(ids)  # type: ignore[attr-defined]
            await _until(pilot, lambda: board.look is not None and board.look.tokens == TOKENS)
            redraws = [await _redraw(pilot, board) for _ in range(TURNS)]
            keys = [await _key(pilot) for _ in range(KEYS)]
    app.worker.close(30)
    return redraws, keys


async def _redraw(pilot: Pilot[None], board: Board) -> tuple[float, float]:
    """All of it, and the part that is not the model's passes."""
    begin = time.perf_counter()
    pilot.app.screen.action_times(1)  # type: ignore[attr-defined]
    while board.look is None:
        await asyncio.sleep(0.002)
    drawn = asyncio.Event()
    pilot.app.screen.call_after_refresh(drawn.set)
    await drawn.wait()
    spent = time.perf_counter() - begin
    return spent, spent - board.look.seconds


async def _key(pilot: Pilot[None]) -> float:
    """A key that moves the block, while the look of the one before is under way."""
    pilot.app.screen.action_times(1 if pilot.app.screen.dial.times < 8 else -6)  # type: ignore[attr-defined]
    await asyncio.sleep(0.03)
    dial, begin = pilot.app.screen.dial, time.perf_counter()  # type: ignore[attr-defined]
    pilot.app.simulate_key("right" if dial.stop < dial.visits else "left")
    while pilot.app.screen.dial == dial:  # type: ignore[attr-defined]
        await asyncio.sleep(0.001)
    return time.perf_counter() - begin


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    while not condition():
        await pilot.pause(0.02)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    redraws, keys = asyncio.run(redraws_and_keys(options.checkpoint))
    starts = start_to_first_screen(options.checkpoint)
    found = {
        "start to first screen": starts,
        f"one more repeat, {TOKENS} tokens": [whole for whole, _ in redraws],
        "  of which not the model": [rest for _, rest in redraws],
        "key while the model works": keys,
    }
    if options.json:
        print(json.dumps({"load": load, "cores": os.cpu_count(), "seconds": found}))
        return
    print(f"load {load:.1f} on {os.cpu_count()} cores; aims: 1000, 300 and 50 ms")
    for name, times in found.items():
        print(f"{name:32} min {1000 * min(times):7.1f}   median {1000 * statistics.median(times):7.1f}   max {1000 * max(times):7.1f} ms")


if __name__ == "__main__":
    main()
