"""What a probe finds: frozen numbers that become JSON and npz and come back, and the charts they make, as data.

Drawing lies in ``loopkit.probes.draw``; nothing here knows how a chart looks.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from loopkit.checkpoint.atomic import write_text
from loopkit.errors import LoopkitError

DIGITS = 7  # significant digits in JSON; npz is exact
R = TypeVar("R", bound="Result")


@dataclass(frozen=True, eq=False)
class Curve:
    """One value for each place in depth, ``values [n]``, with the ends of an interval ``low`` and ``high [n]`` where known."""

    title: str
    x: str
    y: str
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Grid:
    """A matrix ``values [rows, columns]``; ``centre`` is the value without meaning of its own, 0 for differences."""

    title: str
    x: str
    y: str
    values: np.ndarray
    centre: float | None = None


Chart = Curve | Grid
Headline = dict[str, float | str]


@dataclass(frozen=True, eq=False)
class Result(ABC):
    """What one probe found on one model under one plan. Fields are text, numbers, None, tuples of these, and arrays."""

    probe: ClassVar[str]
    plan: str

    @property
    @abstractmethod
    def headline(self) -> Headline:
        """The few numbers that say most."""

    @property
    @abstractmethod
    def charts(self) -> tuple[Chart, ...]:
        """The charts of these numbers, in the order to read them."""


def to_json(result: Result) -> dict[str, Any]:
    """All fields as JSON can hold them: arrays as nested lists of seven digits, NaN as null."""
    return {"probe": result.probe, **{each.name: _plain(getattr(result, each.name)) for each in fields(result)}}


def save(result: Result, stem: Path) -> None:
    """Write STEM.npz, the exact arrays, then STEM.json; where the JSON is there, both are whole."""
    arrays: dict[str, Any] = {each.name: value for each in fields(result) if isinstance(value := getattr(result, each.name), np.ndarray)}
    temporary = stem.with_name(f".{stem.name}.part.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(stem.with_suffix(".npz"))
    write_text(stem.with_suffix(".json"), json.dumps(to_json(result), indent=1, ensure_ascii=False) + "\n")


def load(kind: type[R], stem: Path) -> R:
    """The result that ``save`` wrote. Raises LoopkitError where its files do not hold one of this kind."""
    try:
        values: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(stem.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in file.files}
        if values["probe"] != kind.probe:
            raise ValueError(f"it is of probe {values['probe']}")
        found = {each.name: arrays.get(each.name, _tupled(values[each.name])) for each in fields(kind)}
    except (OSError, ValueError, KeyError) as error:
        raise LoopkitError(f"{stem}.json and .npz hold no result of {kind.probe} ({error}); run the probe again with --force") from error
    return kind(**found)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None
    return value


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
