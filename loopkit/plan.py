"""Plans: the order in which a model's layers run.

A plan is a tuple of layer numbers; each entry is a *visit*. Three text forms parse to plans:

- a layout, ``24``, ``4x6``, ``4-4x4-4``: segments of new layers from bottom to top, ``LxK`` runs its L layers K times
  (Loop(LxK) and Loop(e-LxK-d) of the paper, section 3.1);
- repeats, ``8:12x2`` or ``8:12x2,20:22x3``: on a base plan, the visits 8 to 11 run twice in a row (half-open range of
  positions, total count);
- a listing, ``layers:0,1,2,2,3``: any order at all.
"""

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from loopkit.errors import UsageError

Plan = tuple[int, ...]

LISTING = "layers:"
EXAMPLES = "examples: 8:12x2 or 8:12x2,20:22x3 (repeats), 4-4x4-4 (a layout), layers:0,1,2,1,2,3 (a listing)"


class Repeat(NamedTuple):
    """Positions ``start`` to ``stop - 1`` of a plan run ``times`` times in a row."""

    start: int
    stop: int
    times: int

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}x{self.times}"


class Segment(NamedTuple):
    """``length`` layers not used further down, run ``times`` times in a row."""

    length: int
    times: int

    def __str__(self) -> str:
        return f"{self.length}x{self.times}" if self.times > 1 else str(self.length)


def parse_layout(text: str) -> Plan:
    """The plan of a layout such as ``24``, ``4x6``, ``4-4x4-4`` or ``layers:0,1,1,2``.

    Raises UsageError where the text does not parse, or a listing leaves out a layer.
    """
    text = text.strip()
    if text.startswith(LISTING):
        plan = _parse_listing(text)
        missing = sorted(set(range(max(plan) + 1)) - set(plan))
        if missing:
            raise UsageError(f"layout {text!r} never runs layer {missing[0]}; number the layers it runs from 0 up")
        return plan
    visits: list[int] = []
    first = 0
    for part in text.split("-"):
        match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", part.strip())
        if not match:
            raise UsageError(f"bad part {part!r} in layout {text!r}; examples: 24, 4x6, 4-4x4-4")
        length, times = int(match[1]), int(match[2] or 1)
        visits.extend(list(range(first, first + length)) * times)
        first += length
    return tuple(visits)


def format_layout(plan: Plan) -> str:
    """The shortest layout that parses back to ``plan``; a ``layers:`` listing where no layout does."""
    segments = _segments(plan)
    return "-".join(map(str, segments)) if segments else listing(plan)


def listing(plan: Plan) -> str:
    """The full text form, ``layers:0,1,2,...``."""
    return LISTING + ",".join(map(str, plan))


def parse_plan(text: str, base: Plan) -> Plan:
    """The plan that ``text`` asks for on a model whose own plan is ``base``.

    Repeats count positions of ``base``; layouts and listings count the model's unique layers. A layout tells of a whole model, so one
    that leaves out layers is refused; a listing may leave out any. Raises UsageError that names the bad part.
    """
    text = text.strip()
    if "@" in text:
        raise UsageError(f"the mode in {text!r} is for running a model; sizes and checkpoints know plain plans: {text.partition('@')[0]}")
    if ":" in text and not text.startswith(LISTING):
        return apply_repeats(base, parse_repeats(text))
    layers = n_layers(base)
    if text.startswith(LISTING):
        return check_plan(_parse_listing(text), layers)
    plan = check_plan(parse_layout(text), layers)
    if n_layers(plan) < layers:
        unused = f"layers {n_layers(plan)} to {layers - 1}"
        raise UsageError(f"layout {text!r} leaves out {unused} of this model; for less than all list what runs: layers:0,1,...")
    return plan


def format_plan(plan: Plan, base: Plan) -> str:
    """A short text that ``parse_plan`` reads back as ``plan`` on ``base``."""
    if plan == base:
        return format_layout(base)
    repeats = find_repeats(plan, base)
    return ",".join(map(str, repeats)) if repeats else listing(plan)


def parse_repeats(text: str) -> tuple[Repeat, ...]:
    """``8:12x2,20:22x3`` as Repeats in ascending order. Raises UsageError on bad or overlapping ranges."""
    repeats = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+):(\d+)x(\d+)", part.strip())
        if not match:
            raise UsageError(f"bad part {part.strip()!r} in plan {text!r}; {EXAMPLES}")
        repeat = Repeat(*map(int, match.groups()))
        if repeat.start >= repeat.stop:
            raise UsageError(f"empty range in {part.strip()!r}: write START:STOPxTIMES with START < STOP, e.g. 8:12x2")
        if repeat.times < 1:
            raise UsageError(f"times must be 1 or more in {part.strip()!r}; to leave layers out, list what runs: layers:0,1,4,5")
        repeats.append(repeat)
    repeats.sort()
    for left, right in itertools.pairwise(repeats):
        if right.start < left.stop:
            raise UsageError(f"ranges {left} and {right} overlap; a listing can say any order: layers:0,1,2,1,2,3")
    return tuple(repeats)


def apply_repeats(base: Plan, repeats: Iterable[Repeat]) -> Plan:
    """``base`` with each range of its positions run the given number of times. Ranges must not overlap."""
    plan = base
    for start, stop, times in sorted(repeats, reverse=True):
        plan = repeat(plan, start, stop, times)
    return plan


def find_repeats(plan: Plan, base: Plan) -> tuple[Repeat, ...]:
    """The smallest Repeats that turn ``base`` into ``plan``, leftmost first; empty where there are none."""
    found, at, position = [], 0, 0  # at: in plan; position: in base
    while position < len(base):
        if at >= len(plan) or plan[at] != base[position]:
            return ()
        taken = _repeat_at(plan, at, base, position)
        if taken:
            found.append(taken)
            at += (taken.stop - taken.start) * taken.times
            position = taken.stop
        else:
            at, position = at + 1, position + 1
    return tuple(found) if at == len(plan) else ()


def repeat(plan: Plan, start: int, stop: int, times: int) -> Plan:
    """Positions ``start`` to ``stop - 1`` run ``times`` times in a row (paper, section 4.2 and appendix B.2)."""
    _check_range(plan, start, stop)
    if times < 1:
        raise UsageError(f"times must be 1 or more, got {times}")
    return plan[:start] + plan[start:stop] * times + plan[stop:]


def skip(plan: Plan, start: int, stop: int | None = None) -> Plan:
    """Without positions ``start`` to ``stop - 1`` (one position by default)."""
    stop = start + 1 if stop is None else stop
    _check_range(plan, start, stop)
    if stop - start == len(plan):
        raise UsageError("a plan must keep at least one visit")
    return plan[:start] + plan[stop:]


def swap(plan: Plan, start: int, size: int = 1) -> Plan:
    """The block of ``size`` visits at ``start`` exchanged with the block right after it (paper, appendix B.1)."""
    _check_range(plan, start, start + 2 * size)
    return plan[:start] + plan[start + size : start + 2 * size] + plan[start : start + size] + plan[start + 2 * size :]


def truncate(plan: Plan, visits: int) -> Plan:
    """Only the first ``visits`` visits: early exit."""
    _check_range(plan, 0, visits)
    return plan[:visits]


def key_value_slots(plan: Plan, budget: int | None = None) -> tuple[int, ...]:
    """The key-value slot of each visit: one each, or with a budget at most so many a layer, taken in turn."""
    if budget is not None and budget < 1:
        raise UsageError(f"a layer needs at least one key-value slot, got {budget}")
    owners = [(layer, plan[:visit].count(layer) % (budget or len(plan))) for visit, layer in enumerate(plan)]
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
    return tuple(numbers[owner] for owner in owners)


def runs(plan: Plan) -> list[tuple[Plan, int]]:
    """The plan as runs of consecutive layers, each with how often it repeats in a row: for pictures of it."""
    found: list[tuple[Plan, int]] = []
    at = 0
    while at < len(plan):
        block, times = _best_run(plan, at)
        found.append((block, times))
        at += len(block) * times
    return found


def n_layers(plan: Plan) -> int:
    """Number of unique layers of the model whose own plan this is."""
    return max(plan) + 1


def check_plan(plan: Plan, layers: int) -> Plan:
    """``plan`` itself, or a UsageError where it runs a layer the model does not have."""
    if not plan:
        raise UsageError(f"a plan must run at least one layer; {EXAMPLES}")
    bad = [layer for layer in plan if not 0 <= layer < layers]
    if bad:
        raise UsageError(f"the plan runs layer {bad[0]}, the model has layers 0 to {layers - 1}")
    return plan


def _parse_listing(text: str) -> Plan:
    parts = [part.strip() for part in text[len(LISTING) :].split(",")]
    for part in parts:
        if not re.fullmatch(r"\d+", part):
            raise UsageError(f"bad part {part!r} in {text!r}; example: layers:0,1,2,1,2,3")
    return tuple(map(int, parts))


def _check_range(plan: Plan, start: int, stop: int) -> None:
    if not 0 <= start < stop <= len(plan):
        raise UsageError(f"range {start}:{stop} is outside this plan of {len(plan)} visits; ranges go from 0 to {len(plan)}")


def _segments(plan: Plan) -> list[Segment]:
    """The layout of a plan, or nothing where it has none: new layers in order, each jump back repeats a whole block."""
    segments: list[Segment] = []
    at, first = 0, 0
    while at < len(plan):
        top = first
        while at < len(plan) and plan[at] == top:
            at, top = at + 1, top + 1
        start = plan[at] if at < len(plan) else top  # a jump back says where the looped block begins
        if not first <= start <= top or top == first:
            return []
        block, times = tuple(range(start, top)), 1
        while block and plan[at : at + len(block)] == block:
            at, times = at + len(block), times + 1
        if block and times == 1:
            return []
        segments += [Segment(start - first, 1)] * (start > first) + [Segment(len(block), times)] * bool(block)
        first = top
    return segments


def _repeat_at(plan: Plan, at: int, base: Plan, position: int) -> Repeat | None:
    """The shortest block of ``base`` from ``position`` that ``plan`` runs more often than ``base`` does."""
    for size in range(1, len(base) - position + 1):
        block = base[position : position + size]
        if plan[at : at + size] != block:
            return None
        in_plan, in_base = count(plan, at, block), count(base, position, block)
        if in_plan > in_base:
            return Repeat(position, position + size, in_plan - in_base + 1)
    return None


def _best_run(plan: Plan, at: int) -> tuple[Plan, int]:
    """The ascending block at ``at`` with its repeats, cut short where a block that repeats begins inside it."""
    size = 1
    while at + size < len(plan) and plan[at + size] == plan[at + size - 1] + 1:
        size += 1
    for start in range(at, at + size):
        block = plan[start : at + size]
        times = count(plan, start, block)
        if times > 1:
            return (block, times) if start == at else (plan[at:start], 1)
    return plan[at : at + size], 1


def count(plan: Plan, at: int, block: Plan) -> int:
    """How often ``block`` runs in a row from visit ``at`` on."""
    times = 0
    while plan[at : at + len(block)] == block:
        at, times = at + len(block), times + 1
    return times
