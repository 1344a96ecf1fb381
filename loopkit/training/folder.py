"""Run folders: config.toml, metrics.jsonl, checkpoints with all that a resume needs, samples, and ``latest``.

Each checkpoint is a model folder that any tool loads, with optimizer.safetensors and trainer_state.json beside the model. It is
written whole or not at all, so a run that is killed goes on from the last one.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from loopkit.checkpoint import tensors
from loopkit.checkpoint.atomic import new_folder, write_text
from loopkit.checkpoint.folder import fill_folder, newest, open_folder
from loopkit.checkpoint.tokenizer import token_ids
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec
from loopkit.training.events import Event
from loopkit.training.recipe import Recipe, read_recipe

State = dict[str, dict[str, np.ndarray]]  # "weights", "first" and "second" moments, each by parameter name


@dataclass(frozen=True)
class Position:
    """Where a run stands: ``step`` updates are done."""

    step: int
    tokens: int = 0
    flops: float = 0.0
    history: tuple[tuple[int, tuple[int, ...]], ...] = ()  # (step, source map) of each growth


@dataclass(frozen=True)
class RunFolder:
    """A run on disk."""

    path: Path

    @property
    def recipe(self) -> Recipe:
        """The run's recipe. Raises LoopkitError where the folder is no run."""
        if not self.begun:
            raise LoopkitError(f"{self.path} has no config.toml, so it is not a run; start one with: loopkit train --out {self.path}")
        return read_recipe(self.path / "config.toml")

    @property
    def begun(self) -> bool:
        """Whether the folder is a run, of any age."""
        return (self.path / "config.toml").exists()

    @property
    def tokenizer(self) -> Path:
        """Where the run's tokenizer lies."""
        return self.path / "tokenizer"

    def refuse_existing(self) -> None:
        """Raises UsageError where something is there already."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(f"{self.path} exists already; continue it with --resume, or choose another --out")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this process until the block, or the process, ends. Raises LoopkitError where another one has it."""
        lock = FileLock(self.path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise LoopkitError(f"another process is training in {self.path}; wait until it has ended, or stop it") from None
        try:
            yield
        finally:
            lock.release()

    def create(self, recipe: Recipe) -> None:
        """Write the recipe, by which the folder becomes a run."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.toml", recipe.toml())

    def begin_as(self, other: "RunFolder", recipe: Recipe, steps: int) -> None:
        """Become a run with the last checkpoint of ``other`` from its first ``steps`` steps. Raises LoopkitError where it kept none."""
        kept = {other.position(path).step: path for path in other.checkpoints()}
        last = max((step for step in kept if step <= steps), default=None)
        if last is None:
            raise LoopkitError(
                f"{other.path} keeps no checkpoint of its first {steps} steps, which the branch shares, but of steps"
                f" {', '.join(map(str, kept)) or 'none'}; train it with --set train.keep=0 --set train.save_every={steps}"
            )
        with new_folder(self.path, force=True) as part:  # what exists is empty, see refuse_existing
            begun = RunFolder(part)
            begun.create(recipe)
            shutil.copytree(other.tokenizer, begun.tokenizer)
            shutil.copytree(kept[last], part / "checkpoints" / kept[last].name)
            if (other.path / "metrics.jsonl").exists():
                shutil.copyfile(other.path / "metrics.jsonl", part / "metrics.jsonl")
            begun.rewind(last)

    def newest(self) -> Path | None:
        """The last whole checkpoint: the one ``latest`` names, or where that is gone the newest there is."""
        named, whole = newest(self.path), self.checkpoints()
        return named if named in whole else whole[-1] if whole else None

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        found = (path for path in (self.path / "checkpoints").glob("step_*") if re.fullmatch(r"step_\d+", path.name))
        return sorted(found, key=lambda path: int(path.name[5:]))

    def save(self, spec: Spec, state: State, position: Position, folded: Mapping[str, np.ndarray], tokenizer: Path, keep: int) -> Path:
        """Write a checkpoint and point ``latest`` at it; then drop all but the newest ``keep`` (0 keeps all).

        ``folded`` are the weights as other tools should see them, where they differ from ``state``'s.
        """
        path = self.path / "checkpoints" / f"step_{position.step:06}"
        raw = {f"weights.{name}": array for name, array in state["weights"].items() if array is not folded[name]}
        moments = {f"{part}.{name}": array for part in ("first", "second") for name, array in state[part].items()}
        with new_folder(path, force=True) as part:
            fill_folder(part, spec, folded, tokenizer=tokenizer, config={**token_ids(tokenizer), "history": position.history})
            tensors.write(part / "optimizer.safetensors", raw | moments)
            (part / "trainer_state.json").write_text(json.dumps(asdict(position)), encoding="utf-8")
        write_text(self.path / "latest", f"checkpoints/{path.name}\n")
        for old in self.checkpoints()[:-keep] if keep else []:
            shutil.rmtree(old)
        return path

    def load(self, path: Path) -> tuple[Spec, State, Position]:
        """A checkpoint's model, weights and moments, and position. Raises LoopkitError naming a torn file."""
        checkpoint, position = open_folder(path), self.position(path)
        extra = tensors.read(path / "optimizer.safetensors")
        names = checkpoint.spec.shapes()
        weights = {name: extra.get(f"weights.{name}", checkpoint.arrays[name]) for name in names}
        missing = [f"{part}.{name}" for part in ("first", "second") for name in names if f"{part}.{name}" not in extra]
        if missing:
            raise LoopkitError(f"{path / 'optimizer.safetensors'} lacks {missing[0]}; resume from an older checkpoint")
        return checkpoint.spec, {"weights": weights} | {p: {n: extra[f"{p}.{n}"] for n in names} for p in ("first", "second")}, position

    def position(self, path: Path) -> Position:
        """Where the run stood at a checkpoint. Raises LoopkitError naming a torn file."""
        file = path / "trainer_state.json"
        try:
            saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            history = tuple((int(step), tuple(source)) for step, source in saved.pop("history"))
            return Position(history=history, **saved)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LoopkitError(f"{file} is not a trainer's state ({error}); resume from an older checkpoint") from error

    def record(self, event: Event) -> None:
        """Append an event to metrics.jsonl; texts go to samples."""
        fields = {"event": type(event).__name__.lower(), **asdict(event)}
        if "text" in fields:
            (self.path / "samples").mkdir(exist_ok=True)
            write_text(self.path / "samples" / f"step_{event.step:06}.txt", fields["text"])
            return
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The events so far; a last line torn by a kill is left out."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [event for event in map(_parsed, lines) if event is not None]

    def rewind(self, step: int) -> None:
        """Forget what was recorded after update ``step``: a resumed run does those again, with the same results."""
        repeated = ("step", "grown")  # at ``step`` these are of the update to come, all others of those done
        kept = [e for e in self.metrics() if e["step"] < step or (e["step"] == step and e["event"] not in repeated)]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(event) + "\n" for event in kept))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
