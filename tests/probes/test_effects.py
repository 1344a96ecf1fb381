"""Depth score, future and local effects against hooks, and where the answer is known."""

from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.backend import Backend
from loopkit.errors import UsageError
from loopkit.plan import Plan
from loopkit.probes import depth_score, future_effects, local_effects
from loopkit.probes.common import interval
from loopkit.probes.effects import draw_cuts, expected_index
from loopkit.session import Model
from loopkit.spec import Spec

PLANS: list[Plan | None] = [None, (0, 1, 2, 1, 2, 1, 3)]
LENGTH, CUTS, SEED = 31, 2, 3
OUTPUTS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def spec_of(model: Model) -> Spec:
    return model.spec


def cuts_for(count: int) -> list[list[int]]:
    """The positions that a probe with SEED draws for so many prompts."""
    rng = np.random.default_rng(SEED)
    return [draw_cuts(LENGTH, CUTS, rng).tolist() for _ in range(count)]


def relative(changed: np.ndarray, clean: np.ndarray, t: int) -> float:
    ratios = np.linalg.norm(changed - clean, axis=-1) / np.maximum(np.linalg.norm(clean, axis=-1), 1e-6)
    return float(ratios[t:].max())


def obvious(reference: Any, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Future effects, local effects and output changes by their definitions: a pass for each (prompt, t, s) or (prompt, t, s, l)."""
    visits = len(reference.layers)
    future, local = np.full((2, visits, visits), np.nan)
    changes = np.zeros((len(ids), visits))
    for n, (row, cuts) in enumerate(zip(ids, cuts_for(len(ids)), strict=True)):
        before, _, _, after = reference.streams(row)
        clean, output = after - before, reference.torch.from_numpy(reference.logits(row)).softmax(-1).numpy()
        for t in cuts:
            for s in range(visits):
                updates, changed = reference.without(row, s, t)
                changes[n, s] = max(changes[n, s], np.linalg.norm(changed - output, axis=-1)[t:].max())
                for later in range(s + 1, visits):
                    future[s, later] = np.nanmax([future[s, later], relative(updates[later], clean[later], t)])
                    x = before[later].copy()
                    x[1:t] -= clean[s, 1:t]
                    local[s, later] = np.nanmax([local[s, later], relative(reference.alone(later, x), clean[later], t)])
    return future, local, changes


@pytest.mark.parametrize("plan", PLANS, ids=["own", "edited"])
def test_effects_are_those_of_hooks(model: Model, hooked: Any, plan: Plan | None) -> None:
    ids = random_ids(model.spec, 2, LENGTH)
    reference = hooked(model.spec, random_arrays(model.spec), plan or model.plan)
    future, local, changes = obvious(reference, ids)
    np.testing.assert_allclose(future_effects(model, ids, plan, cuts=CUTS, seed=SEED).matrix, future, rtol=0, atol=1e-4)
    np.testing.assert_allclose(local_effects(model, ids, plan, cuts=CUTS, seed=SEED).matrix, local, rtol=0, atol=1e-4)
    found = depth_score(model, ids, plan, cuts=CUTS, seed=SEED)
    np.testing.assert_allclose(found.changes, changes, rtol=0, atol=1e-4)
    mean = changes.mean(0) / changes.mean(0).sum()
    np.testing.assert_allclose(found.distribution, mean, rtol=0, atol=1e-4)
    assert found.score == pytest.approx(sum(i * share for i, share in enumerate(mean)), abs=1e-3)
    assert found.score_low <= found.score <= found.score_high


def test_a_layer_without_output_has_no_effect(backend: Backend, make: Any) -> None:
    spec = Spec(48, 64, 4, 2, 12, 300, "4")
    arrays = random_arrays(spec)
    for name in OUTPUTS:
        arrays[f"model.layers.1.{name}"] = np.zeros_like(arrays[f"model.layers.1.{name}"])
    model, ids = make(backend, spec, arrays), random_ids(spec, 2, LENGTH)
    changes = depth_score(model, ids).changes
    assert changes[:, 1].max() < 1e-6 < 1e-3 < changes[:, [0, 2]].min()
    for matrix in (future_effects(model, ids).matrix, local_effects(model, ids).matrix):
        assert np.nanmax(matrix[1]) < 1e-5
        assert matrix[0, 1] == 0  # an update of nothing cannot change
        assert matrix[0, 2] > 1e-3


def test_the_score_is_the_depth_of_the_only_visit_that_matters(backend: Backend, make: Any) -> None:
    spec = Spec(48, 64, 4, 2, 12, 300, "5")
    arrays = random_arrays(spec)
    for layer in (0, 1, 3):
        for name in OUTPUTS:
            arrays[f"model.layers.{layer}.{name}"] = np.zeros_like(arrays[f"model.layers.{layer}.{name}"])
    found = depth_score(make(backend, spec, arrays), random_ids(spec, 3, LENGTH))  # removing the last visit changes no later position
    assert found.score == pytest.approx(2, abs=1e-3)
    assert (found.score_low, found.score_high) == pytest.approx((2, 2), abs=1e-3)


def test_later_visits_only_and_positions_before_the_cut_never() -> None:
    rng = np.random.default_rng(0)
    for length in range(4, 80):
        cuts = draw_cuts(length, 4, rng)
        assert 1 <= len(cuts) <= 4
        assert cuts.min() >= 2
        assert cuts.max() < length
        assert len(set(cuts.tolist())) == len(cuts)
    assert expected_index(np.zeros(3)) == 0
    assert expected_index(np.array([1.0, 0, 3])) == 1.5


def test_long_batches_go_in_parts(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_ids(model.spec, 1, LENGTH)
    whole = depth_score(model, ids, cuts=CUTS), local_effects(model, ids, cuts=CUTS)
    monkeypatch.setattr("loopkit.probes.common.TOKENS", 2 * LENGTH)
    monkeypatch.setattr("loopkit.probes.effects.ROWS", 1)
    np.testing.assert_allclose(depth_score(model, ids, cuts=CUTS).changes, whole[0].changes, rtol=0, atol=1e-6)
    np.testing.assert_allclose(local_effects(model, ids, cuts=CUTS).matrix, whole[1].matrix, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "quantile"), [(3, 4.3027), (8, 2.3646), (20, 2.0930), (21, 2.0860), (31, 2.0423), (50, 2.0096)])
def test_intervals_of_means_are_students(size: int, quantile: float) -> None:
    """Quantiles from the usual table."""
    values = np.random.default_rng(size).standard_normal((size, 2))
    half = quantile * values.std(0, ddof=1) / np.sqrt(size)
    np.testing.assert_allclose(interval(values), (values.mean(0) - half, values.mean(0) + half), rtol=0, atol=5e-3)


def test_two_values_have_no_interval() -> None:
    np.testing.assert_array_equal(interval(np.array([[1.0], [3.0]])), [[2.0], [2.0]])


def test_mistakes(model: Model) -> None:
    with pytest.raises(UsageError, match="4 tokens or more"):
        depth_score(model, random_ids(model.spec, 1, 3))
    with pytest.raises(UsageError, match="cuts must be 1"):
        local_effects(model, random_ids(model.spec, 1, 9), cuts=0)
    with pytest.raises(UsageError, match="without a mode"):
        depth_score(model, random_ids(model.spec, 1, 9), "1:3x2@damped")
