"""Learning rate schedules: worked values, the order of their parts, refused requests."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.errors import UsageError
from loopkit.training.schedule import cooldown_start, learning_rate

schedules = st.tuples(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["wsd", "cosine"]), st.floats(0, 0.5))


def test_the_papers_schedule() -> None:
    assert cooldown_start(200_000, 0.15) == 170_000

    def rate(step: int) -> float:
        return learning_rate(step, 200_000, 3e-3, 5000, 0.15)

    assert rate(0) == pytest.approx(3e-3 / 5000)
    assert rate(4999) == rate(5000) == rate(100_000) == rate(170_000) == 3e-3
    assert rate(177_500) == pytest.approx(3e-3 * 0.5)  # a quarter of the way: 1 - sqrt(1/4)
    assert rate(199_999) == pytest.approx(3e-3 * (1 - math.sqrt(29_999 / 30_000)))
    assert rate(200_000) == 0


def test_cosine() -> None:
    rates = [learning_rate(step, 110, 1.0, 10, 0.15, "cosine", 0.1) for step in (9, 10, 60, 110)]
    assert rates == pytest.approx([1, 1, 0.55, 0.1])


@given(schedules, st.floats(1e-5, 1))
def test_it_rises_to_the_peak_and_never_again(schedule: tuple[int, float, float, str, float], peak: float) -> None:
    total, warm, cooldown, kind, final_ratio = schedule
    end = cooldown_start(total, cooldown) if kind == "wsd" else total
    warmup = int(warm * end)
    rates = [learning_rate(step, total, peak, warmup, cooldown, kind, final_ratio) for step in range(total)]
    assert all(0 < rate <= peak for rate in rates)
    assert all(low < high for low, high in pairwise(rates[:warmup]))
    assert all(high >= low for high, low in pairwise(rates[max(0, warmup - 1) :]))
    assert warmup == 0 or rates[warmup - 1] == pytest.approx(peak)
    after = learning_rate(total, total, peak, warmup, cooldown, kind, final_ratio)
    assert after == pytest.approx(peak * final_ratio if warmup < total and (kind == "cosine" or end < total) else peak)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "linear"}, "no schedule 'linear'; schedules are wsd, cosine"),
        ({"total": 0}, "at least 1 step, got 0"),
        ({"cooldown": 1.5}, "schedule.cooldown must be from 0 to 1, got 1.5; example: 0.15"),
        ({"final_ratio": -1}, "final_ratio must be from 0 to 1"),
        (
            {"warmup": 90},
            "warmup must be from 0 to 85 steps, got 90: the cooldown begins at step 85 of 100; example: --set schedule.warmup=8",
        ),
        ({"warmup": -1}, "warmup must be from 0 to 85 steps, got -1"),
    ],
)
def test_bad_requests_are_one_line_that_names_the_cause(change: dict[str, object], said: str) -> None:
    values = {"step": 0, "total": 100, "peak": 1e-3, "warmup": 10, "cooldown": 0.15}
    with pytest.raises(UsageError) as caught:
        learning_rate(**values | change)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
