"""How a block that runs several times is applied: plan texts with a mode, and what they do in one pass.

``8:12x2`` repeats plainly. ``8:12x2@damped`` moves 1/K of the way in each of its K passes, x <- x + (F(x) - x) / K, the passes
accumulating (Training-free looped transformers, arXiv 2605.23872). ``8:12x2@residual`` scales what every sublayer of the block adds
by sqrt(1/K), which keeps the sum of K independent passes at the size of one.
"""

from collections.abc import Iterator
from typing import Literal, get_args

from loopkit.errors import UsageError
from loopkit.plan import LISTING, Plan, Repeat, apply_repeats, format_plan, parse_plan, parse_repeats
from loopkit.run import Blend, Run

Mode = Literal["plain", "damped", "residual"]
MODES: tuple[Mode, ...] = get_args(Mode)


def parse_run(text: str, base: Plan) -> Run:
    """The pass that a plan text asks for, with ``@mode`` or without. Raises UsageError that names the bad part."""
    plan_text, mode = split_mode(text)
    if mode == "plain":
        return Run(parse_plan(plan_text, base))
    repeats = _repeats(plan_text, mode)
    plan = apply_repeats(base, repeats)
    if mode == "damped":
        return Run(plan, blend=tuple(Blend(start, stop, 1 / times) for start, stop, times in _passes(repeats)))
    return Run(plan, scale={visit: times**-0.5 for start, stop, times in _passes(repeats) for visit in range(start, stop)})


def canonical(text: str, base: Plan) -> str:
    """The same text in the form that results carry: the shortest there is, with its mode unless that is plain."""
    plan_text, mode = split_mode(text)
    if mode == "plain":
        return format_plan(parse_plan(plan_text, base), base)
    return with_mode(",".join(map(str, _repeats(plan_text, mode))), mode)


def split_mode(text: str) -> tuple[str, Mode]:
    """A plan text without its mode, and the mode. Raises UsageError that names a mode there is not."""
    plan_text, at, name = text.strip().partition("@")
    return plan_text.strip(), parse_mode(name.strip()) if at else "plain"


def parse_mode(name: str) -> Mode:
    """A mode by name. Raises UsageError with those there are."""
    mode = next((mode for mode in MODES if mode == name), None)
    if mode is None:
        raise UsageError(f"no mode {name!r}; modes are {', '.join(MODES)}, e.g. 8:12x2@damped")
    return mode


def with_mode(text: str, mode: Mode) -> str:
    """A plan text under a mode."""
    return text if mode == "plain" else f"{text}@{mode}"


def _repeats(plan_text: str, mode: Mode) -> tuple[Repeat, ...]:
    if ":" not in plan_text or plan_text.startswith(LISTING):
        raise UsageError(f"mode {mode} needs a block that repeats, got {plan_text!r}; e.g. 8:12x2@{mode}")
    return parse_repeats(plan_text)


def _passes(repeats: tuple[Repeat, ...]) -> Iterator[tuple[int, int, int]]:
    """Where each pass of each block lies in the edited plan, and of how many passes it is one."""
    shift = 0
    for start, stop, times in repeats:
        size = stop - start
        for number in range(times):
            yield start + shift + number * size, start + shift + (number + 1) * size, times
        shift += size * (times - 1)
