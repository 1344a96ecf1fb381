"""Tasks by name. A family such as ``var-math`` makes a task of each number it accepts: ``var-math-0``, ``var-math-1``.

A new task is one file in this folder that calls ``register``; every file here is loaded on the first lookup.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

from loopkit.data.tasks.task import Task
from loopkit.errors import UsageError

PAPER = ("copy-random", "copy-words", *(f"var-{style}-{depth}" for style in ("basic", "math", "code") for depth in range(3)))


@dataclass(frozen=True)
class Family:
    """A row of the registry: its name, how to build one of its tasks from a number, and names that show what is allowed."""

    name: str
    build: Callable[[int | None], Task]
    examples: tuple[str, ...]


_families: dict[str, Family] = {}


def register(name: str, *examples: str) -> Callable[[Callable[[int | None], Task]], Callable[[int | None], Task]]:
    """Decorator of ``build(number) -> Task``; the number is the name's last part, None where it has none.

    Raises UsageError where another module has a task of that name.
    """

    def add(build: Callable[[int | None], Task]) -> Callable[[int | None], Task]:
        taken = _families.get(name)
        if taken and taken.build.__module__ != build.__module__:
            raise UsageError(f"{taken.build.__module__} has a task {name!r} already; choose another name")
        _families[name] = Family(name, build, examples)
        return build

    return add


@lru_cache(maxsize=64)
def find(name: str) -> Task:
    """The task of a name such as ``copy-words`` or ``var-math-1``. Raises UsageError that offers the nearest names."""
    match = re.fullmatch(r"([a-z]+(?:-[a-z]+)*)(?:-(0|[1-9]\d{0,5}))?", name)
    family = families().get(match[1]) if match else None
    if not match or family is None:
        known = [example for each in families().values() for example in each.examples]
        near = get_close_matches(name, known, n=3, cutoff=0.3) or known
        raise UsageError(f"no task is called {name!r}; nearest: {', '.join(near)}")
    return family.build(int(match[2]) if match[2] else None)


def named(text: str) -> tuple[str, ...]:
    """The names in ``copy-words,var-math-1``, each once; ``primitives`` stands for the paper's. Raises UsageError at none, or no task."""
    parts = filter(None, (part.strip() for part in text.split(",")))
    names = dict.fromkeys(name for part in parts for name in (PAPER if part in ("primitives", "paper/primitives") else (part,)))
    if not names:
        raise UsageError("no task is named; e.g. copy-words,var-math-1")
    for name in names:
        find(name)
    return tuple(names)


def families() -> dict[str, Family]:
    """Every registered family by name."""
    _load()
    return dict(sorted(_families.items()))


def number_of(family: str, number: int | None, least: int) -> int:
    """The number of a task name, for families that need one. Raises UsageError where it is missing or too small."""
    if number is None or number < least:
        raise UsageError(f"{family} needs a number of {least} or more, e.g. {family}-{max(least, 2)}")
    return number


@lru_cache(maxsize=1)
def _load() -> None:
    package = import_module("loopkit.data.tasks")
    for module in iter_modules(package.__path__):
        import_module(f"loopkit.data.tasks.{module.name}")
