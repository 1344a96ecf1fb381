"""Mixtures: sources by weight, as text ``0.7*stdlib + 0.3*primitives`` or as TOML tables."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from loopkit.data.sources import Source, parse_source
from loopkit.errors import UsageError

EXAMPLE = "example: 0.7*stdlib + 0.3*primitives:copy-words"


@dataclass(frozen=True)
class Part:
    """One source and its weight; only the ratio of weights matters."""

    source: Source
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.weight) and self.weight > 0):
            raise UsageError(f"the weight of {self.source} must be above 0, got {self.weight}; {EXAMPLE}")

    def __str__(self) -> str:
        return str(self.source) if self.weight == 1 else f"{self.weight!r}*{self.source}"


@dataclass(frozen=True)
class Mixture:
    """What a run reads, and in which proportion of rows."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UsageError(f"a mixture needs at least one source; {EXAMPLE}")

    def __str__(self) -> str:
        return " + ".join(map(str, self.parts))

    @property
    def shares(self) -> tuple[float, ...]:
        """Weights that add up to one."""
        total = sum(part.weight for part in self.parts)
        return tuple(part.weight / total for part in self.parts)

    def check(self) -> None:
        """Open every source, before any compute. Raises the first one's error."""
        for part in self.parts:
            part.source.check()


def parse_mixture(text: str) -> Mixture:
    """The mixture of a text form; ``str`` of it parses back. Raises UsageError."""
    return Mixture(tuple(_part(part) for part in re.split(r"\s\+\s", text)))


def mixture_from_tables(tables: Iterable[Mapping[str, Any]]) -> Mixture:
    """The mixture of TOML tables. Raises UsageError at an unknown key, a missing source, a weight that is no number."""
    parts = []
    for table in tables:
        unknown = sorted(set(table) - {"source", "weight"})
        if unknown or not isinstance(table.get("source"), str):
            raise UsageError(f"a data.mix table has source and weight, got {', '.join(map(str, table)) or 'nothing'}")
        weight = table.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UsageError(f"the weight of {table['source']} must be a number, got {weight!r}")
        parts.append(Part(parse_source(table["source"]), float(weight)))
    return Mixture(tuple(parts))


def _part(text: str) -> Part:
    match = re.fullmatch(r"\s*(?:([\d.]+(?:[eE][-+]?\d+)?)\s*\*)?\s*(.*)", text, re.DOTALL)
    assert match is not None
    if not match[1]:
        return Part(parse_source(match[2]))
    try:
        weight = float(match[1])
    except ValueError:
        raise UsageError(f"bad weight {match[1]!r} in {text.strip()!r}; {EXAMPLE}") from None
    return Part(parse_source(match[2]), weight)
