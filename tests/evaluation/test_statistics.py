"""Intervals and tests of shares, against published values and brute force."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.evaluation.statistics import mcnemar, paired_interval, wilson


@given(st.integers(1, 300), st.data())
def test_intervals_hold_the_share_and_narrow(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    wider = wilson(correct, total, 3.0)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


def test_the_interval_is_wilsons() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I, method 3


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 1), (0, 6), (4, 4)])
def test_mcnemar_counts_the_coins_as_lopsided_as_these(gained: int, lost: int) -> None:
    changed = gained + lost
    throws = [abs(2 * sum(coins) - changed) for coins in itertools.product((0, 1), repeat=changed)]
    assert mcnemar(gained, lost) == pytest.approx(sum(each >= abs(gained - lost) for each in throws) / len(throws))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100))
def test_paired_intervals_turn_round_with_the_sides(gained: int, lost: int, same: int) -> None:
    total = gained + lost + same
    low, high = paired_interval(gained, lost, total)
    assert -1 <= low < high <= 1
    assert paired_interval(lost, gained, total) == pytest.approx((-high, -low))
