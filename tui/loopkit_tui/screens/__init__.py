"""One file a screen; they load when they are wanted."""

from importlib import import_module

from textual.screen import Screen

CLASSES = {
    "loop": "LoopScreen",
    "lens": "LensScreen",
    "sweep": "SweepScreen",
    "probes": "ProbesScreen",
    "train": "TrainScreen",
    "compare": "CompareScreen",
}


def make(name: str) -> Screen[None]:
    """A screen by name."""
    made: Screen[None] = getattr(import_module(f"loopkit_tui.screens.{name}"), CLASSES[name])()
    return made
