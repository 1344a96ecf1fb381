"""A folder that keeps a sweep's answers, so that an interrupted one goes on where it was."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopkit.checkpoint.atomic import write_text
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.choice import Answers
from loopkit.session import Model

if TYPE_CHECKING:
    from loopkit.evaluation.sweep import Settings


class Store:
    """``sweep.json`` says what is asked of which model, ``answers.jsonl`` holds the answers, a line for every few questions.

    Raises UsageError where the folder holds a sweep with other settings, plans or weights.
    """

    def __init__(self, folder: Path, model: Model, settings: "Settings", plans: Sequence[str]) -> None:
        self.answers = folder / "answers.jsonl"
        about = json.loads(json.dumps({"settings": asdict(settings), "plans": list(plans), "weights": model.checkpoint.fingerprint}))
        path = folder / "sweep.json"
        if path.exists():
            _same(path, about)
            return
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds other files; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(about, indent=1))

    def append(self, task: str, answers: Answers) -> None:
        """Keep some answers, on the disk when this returns."""
        line = {
            "task": task,
            "questions": answers.questions,
            "right": ["".join("01"[right] for right in row) for row in answers.right.astype(int)],
            "probability": answers.probability.tolist(),
        }
        with self.answers.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> Iterator[tuple[str, Answers]]:
        """All answers kept so far; a last line that was torn is cut off."""
        if not self.answers.exists():
            return
        lines = self.answers.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            os.truncate(self.answers, sum(map(len, lines[:-1])))
            lines.pop()
        for number, line in enumerate(lines, 1):
            try:
                yield _read(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise LoopkitError(
                    f"{self.answers} line {number} is damaged ({error}); remove the line to ask its questions again"
                ) from error


def _same(path: Path, about: dict[str, Any]) -> None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoopkitError(f"{path} is damaged ({error}); choose another --out") from error
    differs = [key for key in about if kept.get(key) != about[key]]
    if "settings" in differs:
        differs = [key for key, value in about["settings"].items() if kept.get("settings", {}).get(key) != value]
    if differs:
        raise UsageError(f"{path.parent} holds a sweep with other {', '.join(differs)}; choose another --out, or the same options to go on")


def _read(line: dict[str, Any]) -> tuple[str, Answers]:
    right = np.array([[digit == "1" for digit in row] for row in line["right"]])
    return str(line["task"]), Answers(tuple(line["questions"]), right, np.array(line["probability"], dtype=float))
