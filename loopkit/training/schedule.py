"""The learning rate as a function of the step alone, so that one schedule spans growth stages, resumes and backends."""

import math
from typing import Literal, get_args

from loopkit.errors import UsageError

Kind = Literal["wsd", "cosine"]


def learning_rate(step: int, total: int, peak: float, warmup: int, cooldown: float, kind: Kind = "wsd", final_ratio: float = 0.0) -> float:
    """The rate of step ``step`` of ``total``, counted from 0; it rises to ``peak`` over ``warmup`` steps, from ``peak / warmup`` on.

    ``wsd`` then stays, and over the last ``cooldown`` of all steps falls as 1 - sqrt(progress) (Hägele et al. 2024; SmolLM's
    schedule); ``cosine`` falls from the end of the warmup on and leaves ``cooldown`` to the data. Both end at
    ``final_ratio * peak``, which the step after the last would have. Raises UsageError where warmup and decay do not fit.
    """
    _check(total, warmup, cooldown, kind, final_ratio)
    if step < warmup:
        return peak * ((step + 1) / warmup)
    start = cooldown_start(total, cooldown) if kind == "wsd" else warmup
    progress = min(1.0, max(0, step - start) / max(1, total - start))
    fall = math.sqrt(progress) if kind == "wsd" else (1 - math.cos(math.pi * progress)) / 2
    return peak * (1 - (1 - final_ratio) * fall)


def cooldown_start(total: int, cooldown: float) -> int:
    """The first step of the cooldown, the last ``cooldown`` of ``total`` steps; ``total`` where there is none."""
    if not 0 <= cooldown <= 1:
        raise UsageError(f"schedule.cooldown must be from 0 to 1, got {cooldown}; example: 0.15")
    return total - round(total * cooldown)


def _check(total: int, warmup: int, cooldown: float, kind: str, final_ratio: float) -> None:
    if kind not in get_args(Kind):
        raise UsageError(f"no schedule {kind!r}; schedules are {', '.join(get_args(Kind))}")
    if total < 1:
        raise UsageError(f"a run must have at least 1 step, got {total}")
    if not 0 <= final_ratio <= 1:
        raise UsageError(f"final_ratio must be from 0 to 1, got {final_ratio}; example: 0")
    end = cooldown_start(total, cooldown) if kind == "wsd" else total
    if not 0 <= warmup <= end:
        why = f"the cooldown begins at step {end} of {total}" if end < total else f"the run has {total}"
        raise UsageError(f"warmup must be from 0 to {end} steps, got {warmup}: {why}; example: --set schedule.warmup={end // 10}")
