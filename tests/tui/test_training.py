"""Real trainings started from the Train screen: watched to the end, stopped by key and resumed, and outliving the app."""

import base64
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from terminal import LONG, Terminal

from loopkit.session import load

LOOPKIT = [sys.executable, "-m", "loopkit"]


def began(here: Path) -> Terminal:
    """The app on the Train screen; the picker that comes first is closed."""
    here.mkdir()
    terminal = Terminal("--screen", "train", size=(120, 40), here=here)
    terminal.until("esc closes")
    terminal.press("escape")
    terminal.until("n starts one")
    return terminal


def start(terminal: Terminal, recipe: Path, out: str) -> None:
    """Start a training as a person does: recipe, folder, enter."""
    terminal.press("n")
    terminal.until("Start a training")
    terminal.press(str(recipe), "tab", out, "enter")
    terminal.until(f"{out.rpartition('/')[2]}  step", "tokens/s")


def steps(run: Path) -> list[int]:
    """The steps that are recorded; of a line that is being written only what is whole."""
    lines = (run / "metrics.jsonl").read_text().rpartition("\n")[0].splitlines()
    return [event["step"] for event in map(json.loads, lines) if event["event"] == "step"]


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_training_is_watched_to_its_end_and_another_stopped_and_resumed(tmp_path: Path, recipe: Callable[[int], Path]) -> None:
    terminal = began(tmp_path / "here")
    start(terminal, recipe(40), "runs/one")
    seen = terminal.until("step 40 of 40", "sample, step 000040")
    assert any("⠀" < character <= "⣿" for character in seen)  # the curve's dots
    assert steps(tmp_path / "here/runs/one") == list(range(40))
    assert load(tmp_path / "here/runs/one", "torch", "cpu").plan == (0, 1, 2, 3)

    start(terminal, recipe(100_000), "runs/two")
    terminal.press("s")
    terminal.until("of 100,000", "stopped; y copies what goes on")
    terminal.press("y", "q")
    assert terminal.end() == 0
    run = tmp_path / "here/runs/two"
    stopped = len(steps(run))
    assert (run / "latest").read_text().strip() == f"checkpoints/step_{stopped:06}"

    copied = base64.b64decode(re.findall(rb"\x1b\]52;c;([^\x07\x1b]+)", terminal.seen)[-1]).decode()
    assert copied == f"loopkit train --out {run} --resume"
    resumed = subprocess.Popen([*LOOPKIT, *shlex.split(copied)[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: len(steps(run)) > stopped + 5)
    resumed.send_signal(signal.SIGINT)
    assert resumed.wait(LONG) == 130
    assert steps(run) == list(range(len(steps(run))))


def test_a_training_outlives_the_app(tmp_path: Path, recipe: Callable[[int], Path]) -> None:
    terminal = began(tmp_path / "here")
    start(terminal, recipe(400), "runs/one")
    terminal.press("q")
    assert terminal.end() == 0
    run = tmp_path / "here/runs/one"
    left = len(steps(run))
    wait(lambda: (run / "checkpoints" / "step_000400").exists())
    assert left < 400 and steps(run) == list(range(400))
