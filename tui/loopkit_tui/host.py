"""What the screens share: the app as they see it, and what the person has chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loopkit_tui.engine import About, Engine, Prompt
from loopkit_tui.worker import Worker


@dataclass(frozen=True)
class Choice:
    """The checkpoints, the first of which the screens are about, the plan, the text, and how many tokens to write."""

    paths: tuple[str, ...]
    plan: str
    prompt: Prompt
    tokens: int


class Host(Protocol):
    """The app."""

    worker: Worker
    engine: Engine
    choice: Choice
    abouts: dict[str, About]
    here: Path

    @property
    def about(self) -> About | None:
        """The model the screens are about, None before its config is read."""

    def choose(self, choice: Choice) -> None:
        """Change what is chosen; the screen in front hears of it."""

    def need(self, path: str) -> None:
        """Load a checkpoint beside the first."""
