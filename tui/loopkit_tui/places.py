"""Where checkpoints and runs lie: the person's last ones, the folders around here, the hub's cache."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

AROUND = (".", "runs", "checkpoints", "models")
DEPTH = 3  # folders down


@dataclass(frozen=True)
class Place:
    """A folder that can be opened: a ``run``, a ``checkpoint`` or one of the ``hub`` cache, and what its config says."""

    path: str
    kind: str
    about: str


def find(here: Path, recent: tuple[str, ...] = ()) -> list[Place]:
    """What there is to open, the last opened first, each once."""
    found: dict[str, Place] = {}
    for path in (*map(Path, recent), *_around(here), *_hub()):
        place = look(path)
        if place:
            found.setdefault(str(path.resolve()), place)
    return list(found.values())


def runs(here: Path, named: tuple[str, ...] = ()) -> list[Path]:
    """The run folders among ``named`` and around ``here``, the newest first."""
    candidates = {path.resolve(): path for path in (*map(Path, named), *_around(here)) if _is_file(path / "config.toml")}
    return sorted(candidates.values(), key=_changed, reverse=True)


def look(path: Path) -> Place | None:
    """What a folder holds, if it can be opened."""
    if _is_file(path / "latest"):
        name = (path / "latest").read_text(encoding="utf-8").strip()
        return Place(str(path), "run", f"{_sizes(path / name)}, {Path(name).name}")
    if _is_file(path / "config.json") and any(path.glob("*.safetensors")):
        return Place(str(path), "hub" if "snapshots" in path.parts else "checkpoint", _sizes(path))
    return None


def _is_file(path: Path) -> bool:
    """Whether a file is there and its folder may be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def name(path: str) -> str:
    """What to call a checkpoint: its folder."""
    return Path(path).name or Path(path).resolve().name


def _around(here: Path) -> Iterator[Path]:
    for name in AROUND:
        if (here / name).is_dir():
            yield from _below(Path(name) if here == Path() else here / name, 1 if name == "." else DEPTH)


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """The folders below, not those inside a run or a checkpoint."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for name in names:
        yield folder / name
        if depth > 1 and not any((folder / name / file).exists() for file in ("config.toml", "config.json")):
            yield from _below(folder / name, depth - 1)


def _hub() -> Iterator[Path]:
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub")
    yield from sorted(cache.glob("models--*/snapshots/*"))


def _sizes(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return f"{config['model_type']}, {config['num_hidden_layers']} layers, width {config['hidden_size']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "config.json cannot be read"


def _changed(path: Path) -> float:
    metrics = path / "metrics.jsonl"
    return (metrics if metrics.exists() else path).stat().st_mtime
