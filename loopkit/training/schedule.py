"""The learning rate as a function of the step alone, so that one schedule spans growth stages, resumes and backends."""

import math
from typing import Literal, get_args

from loopkit.errors import UsageError

Kind = Literal["wsd", "cosine"]


def learning_rate(
    step: int, total: int, peak: float, warmup: int, decay_share: float, kind: Kind = "wsd", final_ratio: float = 0.0
) -> float:
    """The rate of step ``step`` of ``total``, counted from 0; it rises to ``peak`` over ``warmup`` steps, from ``peak / warmup`` on.

    ``wsd`` then stays, and over the last ``decay_share`` of all steps falls as 1 - sqrt(progress) (Hägele et al. 2024; SmolLM's
    schedule); ``cosine`` falls from the end of the warmup on and leaves ``decay_share`` to the data. Both end at
    ``final_ratio * peak``, which the step after the last would have. Raises UsageError where warmup and decay do not fit.
    """
    _check(total, warmup, decay_share, kind, final_ratio)
    if step < warmup:
        return peak * ((step + 1) / warmup)
    start = cooldown_start(total, decay_share) if kind == "wsd" else warmup
    progress = min(1.0, max(0, step - start) / max(1, total - start))
    fall = math.sqrt(progress) if kind == "wsd" else (1 - math.cos(math.pi * progress)) / 2
    return peak * (1 - (1 - final_ratio) * fall)


def cooldown_start(total: int, decay_share: float) -> int:
    """The first step of the cooldown, the last ``decay_share`` of ``total`` steps; ``total`` where there is none."""
    if not 0 <= decay_share <= 1:
        raise UsageError(f"decay_share must be from 0 to 1, got {decay_share}; example: 0.15")
    return total - round(total * decay_share)


def _check(total: int, warmup: int, decay_share: float, kind: str, final_ratio: float) -> None:
    if kind not in get_args(Kind):
        raise UsageError(f"no schedule {kind!r}; schedules are {', '.join(get_args(Kind))}")
    if total < 1:
        raise UsageError(f"a run must have at least 1 step, got {total}")
    if not 0 <= final_ratio <= 1:
        raise UsageError(f"final_ratio must be from 0 to 1, got {final_ratio}; example: 0")
    end = cooldown_start(total, decay_share) if kind == "wsd" else total
    if not 0 <= warmup <= end:
        raise UsageError(
            f"warmup must be from 0 to {end} steps, got {warmup}: {total} steps, decay_share {decay_share}; example: {end // 10}"
        )
