"""Colours with a meaning, in any theme: how much, better or worse, left or right. The terminal's own 16 colours get attributes instead."""

from functools import lru_cache

from textual.app import App
from textual.color import Color

LEVELS = 16
ANSI_STEPS = ("dim", "", "bold", "reverse")  # of a terminal whose colours are not known


def heat(app: App[object], value: float) -> str:
    """The style of a cell that has so much of something, 0 to 1."""
    return _heat(app.theme, _mixed(app), max(0, min(LEVELS, round(value * LEVELS))))


def change(app: App[object], value: float) -> str:
    """The style of a cell that is better or worse, -1 to 1."""
    return _change(app.theme, _mixed(app, "success", "error"), max(-LEVELS, min(LEVELS, round(value * LEVELS))))


def series(number: int) -> str:
    """The colour of a curve, told apart from its neighbours'."""
    return ("$primary", "$warning", "$success", "$error", "$secondary", "$accent")[number % 6]


def _mixed(app: App[object], *names: str) -> tuple[str, ...]:
    """The theme's own colours: background, text, and those that are named (the primary one by default)."""
    if app.current_theme.ansi:
        return ()
    variables = app.theme_variables
    return tuple(variables[name] for name in ("surface", "foreground", *(names or ("primary",))))


@lru_cache(maxsize=256)
def _heat(theme: str, colours: tuple[str, ...], level: int) -> str:
    if not colours:
        return ANSI_STEPS[min(3, level * 4 // LEVELS)]
    return _blend(colours[0], colours[1], colours[2], level)


@lru_cache(maxsize=256)
def _change(theme: str, colours: tuple[str, ...], level: int) -> str:
    if not colours:
        return f"ansi_green {ANSI_STEPS[min(3, 1 + level * 3 // LEVELS)]}" if level > 0 else _worse(-level)
    return _blend(colours[0], colours[1], colours[2] if level > 0 else colours[3], abs(level))


def _worse(level: int) -> str:
    return f"ansi_red {ANSI_STEPS[min(3, 1 + level * 3 // LEVELS)]}" if level else "dim"


def _blend(ground: str, text: str, colour: str, level: int) -> str:
    mixed = Color.parse(ground).blend(Color.parse(colour), 0.06 + 0.94 * level / LEVELS, 1.0)
    dark, light = Color.parse("#101010"), Color.parse("#f4f4f4")
    readable = dark if mixed.brightness > 0.5 else light
    return f"{readable.hex} on {mixed.hex}"
