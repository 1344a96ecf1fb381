"""What is remembered from one time to the next."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loopkit.checkpoint.atomic import write_text

FILE = "tui.json"
RECENT = 8


@dataclass(frozen=True)
class Settings:
    """The theme, the last text and plan, how many tokens to write, and the checkpoints opened last."""

    theme: str = "textual-dark"
    prompt: str = "The capital of France is"
    chat: bool = False
    plan: str = ""
    tokens: int = 32
    recent: tuple[str, ...] = ()

    def opened(self, path: str) -> "Settings":
        """With a checkpoint at the head of the last ones."""
        return replace(self, recent=tuple(dict.fromkeys([path, *self.recent]))[:RECENT])


def home() -> Path:
    """The person's folder for loopkit's settings."""
    from platformdirs import user_config_path

    return user_config_path("loopkit", appauthor=False)


def read(folder: Path) -> Settings:
    """The settings kept in a folder; what is missing or of another kind is as at the first time."""
    try:
        found: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Settings()
    plain = asdict(Settings())
    good = {key: found[key] for key in plain if isinstance(found, dict) and isinstance(found.get(key), _kinds(plain[key]))}
    recent = tuple(path for path in good.pop("recent", ()) if isinstance(path, str))
    return Settings(**good, recent=recent)


def write(folder: Path, settings: Settings) -> None:
    """Keep the settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(asdict(settings), indent=1, ensure_ascii=False) + "\n")


def _kinds(value: object) -> type | tuple[type, ...]:
    return (list, tuple) if isinstance(value, tuple) else type(value)
