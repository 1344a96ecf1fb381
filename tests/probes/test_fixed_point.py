"""How the stream moves over repeats, against passes of their own; verdicts where the answer is known."""

from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.errors import UsageError
from loopkit.plan import parse_layout, parse_plan
from loopkit.probes import fixed_point
from loopkit.probes.fixed_point import looped_block, verdict
from loopkit.session import Model


def test_moves_are_those_of_passes_of_their_own(model: Model, hooked: Any) -> None:
    """Four repeats of layers 1 and 2: each exit is a pass of a model with so many repeats."""
    plan, ids, arrays = (0, *(1, 2) * 4, 3), random_ids(model.spec, 2, 9), random_arrays(model.spec)
    found = fixed_point(model, ids, plan)
    assert (found.start, found.stop, found.times) == (1, 3, 4)
    for n, row in enumerate(ids):
        before, _, _, after = hooked(model.spec, arrays, plan).streams(row)
        states = [before[1], after[2], after[4], after[6], after[8]]
        logs = []
        for r in range(1, 5):
            reference = hooked(model.spec, arrays, (0, *(1, 2) * r, 3))
            logs.append(reference.torch.from_numpy(reference.logits(row)).log_softmax(-1).numpy())
        for r in range(4):
            step = states[r + 1] - states[r]
            ratio = np.linalg.norm(step, axis=-1) / np.linalg.norm(states[r], axis=-1)
            assert found.steps[n, r] == pytest.approx(ratio.mean(), rel=1e-4)
            if r < 3:
                following = states[r + 2] - states[r + 1]
                cosine = (step * following).sum(-1) / np.linalg.norm(step, axis=-1) / np.linalg.norm(following, axis=-1)
                assert found.cosines[n, r] == pytest.approx(cosine.mean(), abs=1e-4)
                back = np.linalg.norm(states[r + 2] - states[r], axis=-1) / np.linalg.norm(states[r], axis=-1)
                assert found.returns[n, r] == pytest.approx(back.mean(), rel=1e-4)
                kl = (np.exp(logs[r + 1]) * (logs[r + 1] - logs[r])).sum(-1).mean()
                assert found.kl[n, r] == pytest.approx(kl, abs=1e-4)
                assert found.flips[n, r] == np.mean(logs[r + 1].argmax(-1) != logs[r].argmax(-1))


def test_a_block_that_does_nothing_has_converged(backend: Any, make: Any) -> None:
    arrays = random_arrays(make(backend).spec)
    for layer in (1, 2):
        for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
            arrays[f"model.layers.{layer}.{name}"] = np.zeros_like(arrays[f"model.layers.{layer}.{name}"])
    model = make(backend, arrays=arrays)
    found = fixed_point(model, random_ids(model.spec, 2, 9), "1:3x3")
    assert np.abs(found.steps).max() == np.abs(found.flips).max() == 0
    assert np.abs(found.kl).max() < 1e-6
    assert found.headline["moves"] == "converges"


def test_verdicts() -> None:
    rates = 0.5 ** np.arange(6)
    assert verdict(rates, 1.5 * rates[1:]) == "converges"
    assert verdict(np.ones(6), np.full(5, 0.01)) == "cycles"
    assert verdict(np.ones(6), np.full(5, 2.0)) == "drifts"
    assert verdict(np.array([1, 0.1, 0.2, 0.4]), np.full(3, 0.5)) == "drifts"


def test_the_block_that_runs_most_often_is_meant() -> None:
    assert looped_block((0, 1, 1, 2, 3, 2, 3, 2, 3, 4)) == (3, 2, 3)
    assert looped_block((0, 1, 2) * 4) == (0, 3, 4)
    assert looped_block((0, 2, 4, 2, 4, 2, 4, 5)) == (1, 2, 3)  # not in the layers' order
    assert looped_block((0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4)) == (2, 2, 4)
    assert looped_block(parse_plan("10:14x3", parse_layout("4-4x2-4"))) == (10, 4, 3)  # over the end of the model's own block
    with pytest.raises(UsageError, match="--plan 8:12x8"):
        looped_block((0, 1, 2))
