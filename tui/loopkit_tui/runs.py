"""Run folders as they grow: the events so far, read on from where the last look ended."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopkit.errors import LoopkitError

SMOOTH = 0.05  # weight of a new loss in the running mean


@dataclass
class Watched:
    """What a run has recorded by now, by column."""

    path: Path
    offset: int = 0
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)  # losses as a running mean
    heldout: list[tuple[int, float]] = field(default_factory=list)
    flops: float = 0.0
    last: str = ""

    def look(self) -> bool:
        """Take in the whole lines written since; whether there were any. A rewound file is read from its beginning."""
        file = self.path / "metrics.jsonl"
        size = file.stat().st_size if file.exists() else 0
        if size < self.offset:
            self.__init__(self.path)  # type: ignore[misc]
        if size == self.offset:
            return False
        with file.open("rb") as opened:
            opened.seek(self.offset)
            new = opened.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            self._take(line)
        return bool(whole)

    @property
    def total(self) -> int:
        """Steps the run is to make; 0 where its recipe cannot be read."""
        from loopkit.training.folder import RunFolder

        try:
            return RunFolder(self.path).recipe.schedule.steps
        except LoopkitError:
            return 0

    @property
    def rate(self) -> float:
        """Tokens a second over the last 50 steps."""
        window = min(50, len(self.steps) - 1)
        spent = sum(self.seconds[-window:]) if window > 0 else 0.0
        return (self.tokens[-1] - self.tokens[-1 - window]) / spent if spent else 0.0

    def sample(self) -> tuple[str, str]:
        """The newest sample: after which step, and its text."""
        files = sorted((self.path / "samples").glob("step_*.txt"))
        return (files[-1].stem.replace("_", " "), files[-1].read_text(encoding="utf-8", errors="replace")) if files else ("", "")

    def _take(self, line: bytes) -> None:
        try:
            event: dict[str, Any] = json.loads(line)
            kind = self.last = event["event"]
            if kind == "step":
                for name in ("steps", "losses", "tokens", "seconds", "layers", "visits"):
                    getattr(self, name).append(event[COLUMNS[name]])
                self.flops = event["flops"]
                mean = self.smooth[-1] if self.smooth else self.losses[-1]
                self.smooth.append(mean + SMOOTH * (self.losses[-1] - mean))
            elif kind == "evaluated":
                self.heldout.append((event["step"], event["loss"]))
        except (ValueError, KeyError, TypeError):
            return  # a line that another program tore or added


COLUMNS = {"steps": "step", "losses": "loss", "tokens": "tokens", "seconds": "seconds", "layers": "layers", "visits": "visits"}


def start(recipe: str, out: str) -> "subprocess.Popen[bytes]":
    """loopkit train in a process of its own that outlives the app. Raises LoopkitError where it cannot be."""
    recipe, out = str(Path(recipe).expanduser()), str(Path(out).expanduser())
    if not Path(recipe).is_file():
        raise LoopkitError(f"there is no recipe {recipe}; e.g. examples/demo.toml")
    if Path(out).exists():
        raise LoopkitError(f"{out} exists already; choose another folder")
    log = Path(f"{out}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        command = [sys.executable, "-m", "loopkit", "train", recipe, "--out", out]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
