"""What the commands found, read from the JSON they printed into one flat list of values."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopkit.errors import LoopkitError
from loopkit.plan import parse_repeats

ARRAYS = {  # fields of a probe's result that are means over examples, by the name of the value
    "depth-score": {"depth-change": "changes"},
    "top5-overlap": {"overlap": "overlap"},
    "tuned-lens": {"early-exit": "right", "early-kl": "kl"},
    "residual-norms": {"norm": "medians"},
    "sublayers": {"attention": "attention", "contribution": "contribution"},
    "local-effects": {},
    "swap": {"swap": "right", "swap-nll": "nll"},
}


@dataclass(frozen=True)
class Value:
    """One number about a model of one seed; ``x`` and ``y`` are what it is drawn against: visits, examples, the start of a block."""

    what: str
    model: str
    seed: int
    value: float
    task: str = ""
    x: float = 0
    y: float = 0


def read(out: Path) -> list[Value]:
    """All values of the results in a story's folder. Raises LoopkitError naming a file that does not hold what it should."""
    found: list[Value] = []
    for path in sorted((out / "results").glob("*/seed_*.json")):
        reader = READERS[path.parent.name.partition("-")[0]]
        try:
            found += reader(json.loads(path.read_text(encoding="utf-8")), path)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise LoopkitError(f"{path} is damaged ({error!r}); delete it, and the same command makes it again") from error
    return found


def owner(path: str) -> tuple[str, int]:
    """The model and seed of a run or of a checkpoint in it."""
    parts = re.search(r"([^/\\]+)[/\\]seed_(\d+)", path)
    if parts is None:
        raise ValueError(f"{path} is no run of the story")
    return parts[1], int(parts[2])


def _compared(data: Any, _: Path) -> Iterator[Value]:
    for entry in data["entries"]:
        name, seed = owner(entry["name"])
        for accuracy in entry["accuracies"][0]:
            yield Value("accuracy", name, seed, _share(accuracy), accuracy["task"])
        for what in ("unique", "inference", "training"):
            yield Value(what, name, seed, entry[what])
        yield Value("nll", name, seed, entry["nll"][0])


def _curves(data: Any, path: Path) -> Iterator[Value]:
    for curve in data:
        name, seed = owner(curve["name"])
        for spot in curve["spots"]:
            for accuracy in spot["accuracies"]:
                yield Value(path.parent.name, name, seed, _share(accuracy), curve["task"], spot["examples"])


def _repeated(data: Any, _: Path) -> Iterator[Value]:
    """``x`` counts how often the block runs: once in the model's own plan, which comes first, then more."""
    counts: dict[tuple[str, str], int] = {}
    for each in data:
        key = (each["checkpoint"], each["task"])
        counts[key] = counts.get(key, 0) + 1
        yield Value("repeats", *owner(each["checkpoint"]), _share(each), each["task"], counts[key])


def _swept(data: Any, path: Path) -> Iterator[Value]:
    """``x`` is the first visit of the block, ``y`` how often it runs, the value the change in accuracy on the same questions."""
    name, seed = owner(str(path))
    for row in data["rows"]:
        if ":" in row["plan"] and row["task"] != "all":
            (repeat,) = parse_repeats(row["plan"])
            yield Value("sweep", name.removeprefix("sweep-"), seed, row["difference"], row["task"], repeat.start, repeat.times)


def _probed(data: Any, _: Path) -> Iterator[Value]:
    (probe, by_label), paths = next(iter(data["results"].items())), data["study"]["checkpoints"]
    for label, result in by_label.items():
        name, seed = owner(paths[label])
        for what, field in ARRAYS[probe].items():
            for x, value in enumerate(np.mean(np.array(result[field], float), axis=0)):
                yield Value(what, name, seed, float(value), x=x)
        if probe == "depth-score":
            yield Value("depth-score", name, seed, result["score"])
        if probe == "swap":
            yield Value("unswapped", name, seed, float(np.mean(result["base_right"])))
        if probe == "local-effects":
            cells = np.array(result["matrix"], float)  # null, where nothing was measured, is NaN
            yield from (Value("local-effect", name, seed, float(cells[s, v]), x=v, y=s) for s, v in np.argwhere(np.isfinite(cells)))


def _share(accuracy: Any) -> float:
    return float(accuracy["correct"]) / float(accuracy["questions"])


READERS: dict[str, Callable[[Any, Path], Iterator[Value]]] = {
    "compare": _compared,
    "cooldown": _compared,
    "context": _curves,
    "finetune": _curves,
    "repeats": _repeated,
    "sweep": _swept,
    "probe": _probed,
}
