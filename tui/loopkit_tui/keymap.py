"""The person's own keys: keymap.toml, checked against the actions and keys there are, so that nothing in it is passed over in silence."""

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import KEY_NAME_REPLACEMENTS, Keys, key_to_character

from loopkit.errors import LoopkitError, UsageError

FILE, TABLE = "keymap.toml", "keys"
EXAMPLE = 'e.g. "loop.more" = "k,up"'
MODIFIERS = {"ctrl", "shift", "alt", "meta", "super", "hyper"}
NAMED = {name for name in (*(key.value.rpartition("+")[2] for key in Keys), *KEY_NAME_REPLACEMENTS.values()) if len(name) > 1}


def read(folder: Path) -> dict[str, str]:
    """``[keys]`` of keymap.toml: an action's id and the keys that do it, e.g. ``"loop.more" = "k,up"``; empty where there is no file.

    Raises LoopkitError where the file is no TOML, UsageError naming an action or a key that there is not.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoopkitError(f"{file} is not TOML ({error}); write [{TABLE}] and then {EXAMPLE}") from error
    if set(found) - {TABLE} or not isinstance(found.get(TABLE, {}), dict):
        raise UsageError(f"{file}: keys stand under [{TABLE}], with the action in quotes, {EXAMPLE}")
    keys: dict[str, Any] = found.get(TABLE, {})
    known = actions() if keys else set()
    for action, text in keys.items():
        _check(file, action, text, known)
    return keys


def actions() -> set[str]:
    """The ids of all actions of the app and its screens."""
    from loopkit_tui.app import LoopkitApp
    from loopkit_tui.screens import CLASSES
    from loopkit_tui.widgets.heatmap import Heatmap

    screens = [getattr(import_module(f"loopkit_tui.screens.{module}"), name) for module, name in CLASSES.items()]
    return {binding.id for each in (LoopkitApp, *screens, Heatmap) for binding in _bindings(each) if binding.id}


def _bindings(node: type[DOMNode]) -> Iterator[Binding]:
    """A class's own bindings and those it inherits."""
    for each in node.__mro__:
        yield from (binding for binding in vars(each).get("BINDINGS", ()) if isinstance(binding, Binding))


def _check(file: Path, action: str, text: object, known: set[str]) -> None:
    if action not in known:
        raise UsageError(f"{file}: no action {action!r}{_nearest(action, known)}; ? in the app names those of a screen")
    if not isinstance(text, str):
        raise UsageError(f'{file}: {action} must be a text of keys, e.g. "{action}" = "k,up"')
    for key in map(str.strip, text.split(",")):
        if not _is_key(key):
            close = f"; nearest: {key.lower()}" if _is_key(key.lower()) else _nearest(key, NAMED)
            raise UsageError(f"{file}: {action}: no key {key!r}{close}; keys are like k, K, up, f5, ctrl+x, slash")


def _is_key(key: str) -> bool:
    *modifiers, last = key.split("+")
    return set(modifiers) <= MODIFIERS and (last in NAMED or key_to_character(last) is not None)


def _nearest(name: str, known: set[str]) -> str:
    """The known names most like one, as the rest of a sentence."""
    close = get_close_matches(name.lower(), sorted(known), 3, 0.5)
    return f"; nearest: {', '.join(close)}" if close else ""
