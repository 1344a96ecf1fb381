"""Sampled recurrence: the distribution of the counts, the plans drawn, where gradients stop, the text form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.errors import UsageError
from loopkit.plan import repeat
from loopkit.training.recurrence import Recurrence, count, draw, parse_recurrence

PLAN = tuple(range(12))
FIRST = [1, 6, 4, 4, 3, 1, 5, 3, 3, 3, 3, 3]  # seed 0, mean 4


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    start = draw(st.integers(0, 11))
    mean = draw(st.one_of(st.integers(1, 9), st.floats(1, 9)))
    most = draw(st.none() | st.integers(9, 40))
    return Recurrence(start, draw(st.integers(start + 1, 12)), mean, draw(st.floats(0, 2)), most, draw(st.none() | st.integers(1, 9)))


@given(recurrences())
def test_text_reads_back_as_the_same(recurrence: Recurrence) -> None:
    assert parse_recurrence(str(recurrence)) == recurrence


@pytest.mark.parametrize("text", ["8:12~4", "0:1~2.5", "8:12~4,sigma=0.25,max=16,backprop=2", "8:12~4,max=16"])
def test_short_texts_stay_short(text: str) -> None:
    assert str(parse_recurrence(text)) == text


def test_options_come_in_any_order() -> None:
    assert parse_recurrence(" 8:12~4.0, backprop=2 ,sigma=0.5") == Recurrence(8, 12, 4, backprop=2)


@given(recurrences(), st.integers(0, 2**40), st.integers(0, 10**6))
def test_drawn_plans_repeat_the_block_and_cut_before_its_last_repetitions(recurrence: Recurrence, seed: int, step: int) -> None:
    times = count(recurrence, seed, step)
    plan, cut = draw(recurrence, PLAN, seed, step)
    assert 1 <= times <= recurrence.most
    assert plan == repeat(PLAN, recurrence.start, recurrence.stop, times)
    assert draw(recurrence, PLAN, seed, step) == (plan, cut)
    if recurrence.backprop is None or times <= recurrence.backprop:
        assert cut is None
    else:
        block = PLAN[recurrence.start : recurrence.stop]
        assert plan[cut:] == block * recurrence.backprop + PLAN[recurrence.stop :]


@pytest.mark.parametrize(("mean", "sigma"), [(2, 0.5), (8, 0.5), (4, 0)])
def test_counts_average_the_mean_and_spread_as_the_mixture_does(mean: float, sigma: float) -> None:
    counts = np.array([count(Recurrence(8, 12, mean, sigma, max=1000), 7, step) for step in range(2000)])
    rate = mean - 1
    variance = rate + rate**2 * (np.exp(sigma**2) - 1)  # Poisson of a log-normal rate
    assert counts.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / len(counts)))
    assert counts.var() == pytest.approx(variance, rel=0.2)


def test_the_default_cap_hardly_moves_the_mean() -> None:
    counts = np.array([count(Recurrence(8, 12, 4), 0, step) for step in range(2000)])
    assert counts.mean() == pytest.approx(4, abs=0.2)
    assert counts.max() <= 16


def test_draws_are_the_same_forever() -> None:
    recurrence = Recurrence(8, 12, 4)
    assert [count(recurrence, 0, step) for step in range(12)] == FIRST
    assert [count(recurrence, 1, step) for step in range(12)] != FIRST
    assert {count(Recurrence(8, 12, 1), 0, step) for step in range(20)} == {1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8:12x4", "bad part '8:12x4'"),
        ("8:12~", "bad part '8:12~'"),
        ("8:12~4,mean=3", "bad part 'mean=3'"),
        ("8:12~4,max=many", "bad part 'max=many'"),
        ("8:12~4,", "bad part ''"),
        ("12:8~4", "the range must not be empty"),
        ("8:12~0.5", "the mean must be from 1"),
        ("8:12~4,sigma=-1", "sigma must be from 0 to 2"),
        ("8:12~4,sigma=nan", "sigma must be from 0 to 2"),
        ("8:12~4,max=2", "max must be no less than the mean"),
        ("8:12~4,backprop=0", "backprop must be 1 or more"),
    ],
)
def test_bad_text_is_one_line_with_an_example(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recurrence(text)
    assert said in str(caught.value)
    assert "example: 8:12~4" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_outside_the_plan_is_refused() -> None:
    with pytest.raises(UsageError, match="range 8:40 is outside this plan of 12 visits"):
        draw(Recurrence(8, 40, 4), PLAN, 0, 0)
