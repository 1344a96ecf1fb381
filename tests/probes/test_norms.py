"""Norms and sublayer ratios against hooks; periods that were planted are found, noise has none."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_arrays, random_ids

from loopkit.probes import find_period, residual_norms, sublayers
from loopkit.session import Model

PLAN = (0, 1, 2, 1, 3)


@pytest.mark.parametrize("plan", [None, PLAN], ids=["own", "edited"])
def test_norms_are_those_of_hooks(model: Model, hooked: Any, plan: Any) -> None:
    ids = random_ids(model.spec, 2, 13)
    norms, shares = residual_norms(model, ids, plan), sublayers(model, ids, plan)
    reference = hooked(model.spec, random_arrays(model.spec), plan or model.plan)
    for n, row in enumerate(ids):
        before, attn, mlp, after = reference.streams(row)
        size = np.linalg.norm(np.concatenate([before, after[-1:]]), axis=-1)
        np.testing.assert_allclose(norms.means[n], size.mean(-1), rtol=1e-4)
        np.testing.assert_allclose(norms.medians[n], np.median(size, -1), rtol=1e-4)
        for found, a, b in (
            (shares.attention, attn, before),
            (shares.mlp, mlp, before + attn),
            (shares.contribution, after - before, before),
        ):
            expected = (np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).mean(-1)
            np.testing.assert_allclose(found[n], expected, rtol=1e-4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 5), st.integers(24, 48), st.integers(0, 10**6), st.floats(-1, 1))
def test_a_planted_period_is_found(period: int, size: int, seed: int, slope: float) -> None:
    """A peak every ``period`` visits on a trend, with noise of a tenth, and a first value far off, as the embedding's is."""
    rng, places = np.random.default_rng(seed), np.arange(size)
    values = (places % period == period // 2) + 0.1 * rng.standard_normal(size) + 0.02 * slope * places
    values[0] += 8
    found = find_period(values)
    assert found.length == period
    assert found.chance <= 0.01


def test_a_cycle_of_four_is_said_in_words(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sublayers(model, random_ids(model.spec, 2, 9))
    assert set(found.headline.values()) <= {"no cycle", "cycle of 2"}
    planted = np.tile([0.1, 0.1, 0.4, 0.1], 6) + 0.01 * np.random.default_rng(0).standard_normal((3, 24))
    assert find_period(planted.mean(0)).length == 4


def test_noise_and_smooth_curves_have_no_period() -> None:
    rng = np.random.default_rng(0)
    assert sum(find_period(rng.standard_normal(24), seed).length > 0 for seed in range(200)) <= 6
    places = np.arange(24)
    for smooth in (places * 1.0, places**2.0, np.exp(-places / 5), np.sqrt(places), np.ones(24), np.minimum(places, 30 - places) * 1.0):
        assert find_period(smooth).length == 0
    assert find_period(np.ones(2)).length == find_period(np.arange(3.0)).length == 0


def test_the_same_seed_gives_the_same_chance() -> None:
    values = np.random.default_rng(3).standard_normal(24)
    assert find_period(values, 1) == find_period(values, 1)
