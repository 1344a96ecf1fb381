"""Cosines of weights and updates against plain loops; copies are found."""

from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.backend import Backend
from loopkit.errors import LoopkitError, UsageError
from loopkit.probes import block_similarity
from loopkit.session import Model
from loopkit.spec import Spec

SPEC = Spec(48, 64, 4, 2, 12, 300, "6")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def copied(spec: Spec, source: tuple[int, ...], noise: float = 0.0) -> dict[str, np.ndarray]:
    """Weights whose layer i is layer ``source[i]`` of another model, with noise."""
    arrays, rng = random_arrays(spec), np.random.default_rng(1)
    for i, layer in enumerate(source):
        for name in spec.layer_shapes():
            base = random_arrays(spec)[f"model.layers.{layer}.{name}"]
            arrays[f"model.layers.{i}.{name}"] = base + np.float32(noise) * rng.standard_normal(base.shape, np.float32)
    return arrays


@pytest.mark.parametrize("size", [1, 2])
def test_weights_are_compared_matrix_by_matrix(backend: Backend, make: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("loopkit.probes.similarity.CHUNK", 1000)
    arrays = copied(SPEC, (0, 1, 2, 3, 2, 3), 0.05)
    found = block_similarity(make(backend, SPEC, arrays), random_ids(SPEC, 1, 9), size=size)
    blocks = 6 - size + 1
    assert found.weights.shape == (blocks, blocks)
    for m, module in enumerate(found.modules):
        flat = [np.concatenate([arrays[f"model.layers.{i + k}.{module}"].ravel() for k in range(size)]) for i in range(blocks)]
        expected = [[cosine(a, b) for b in flat] for a in flat]
        np.testing.assert_allclose(found.by_module[m], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.weights, found.by_module.mean(0), rtol=0, atol=1e-12)


def test_updates_are_compared_position_by_position(model: Model, hooked: Any) -> None:
    ids = random_ids(model.spec, 2, 9)
    found = block_similarity(model, ids).updates
    reference = hooked(model.spec, random_arrays(model.spec), model.plan)
    updates = []
    for row in ids:
        before, _, _, after = reference.streams(row)
        updates.append(after - before)
    for i in range(6):
        for j in range(6):
            each = [cosine(update[i, t], update[j, t]) for update in updates for t in range(9)]
            assert found[i, j] == pytest.approx(np.mean(each), abs=1e-4)


def test_a_copied_block_has_similarity_one(backend: Backend, make: Any) -> None:
    model = make(backend, SPEC, copied(SPEC, (0, 1, 0, 1, 4, 5)))
    found = block_similarity(model, random_ids(SPEC, 1, 9), size=2)
    assert found.weights[0, 2] == pytest.approx(1, abs=1e-6)
    others = found.weights[~np.isin(np.add.outer(np.arange(5) * 10, np.arange(5)), [0, 11, 22, 33, 44, 2, 20])]
    assert np.abs(others).max() < 0.6
    periodic = block_similarity(make(backend, SPEC, copied(SPEC, (0, 1, 0, 1, 0, 1))), random_ids(SPEC, 1, 9))
    assert periodic.headline["most alike at distance"] == 2


def test_mistakes(model: Model) -> None:
    with pytest.raises(UsageError, match="size must be 1 to 4"):
        block_similarity(model, random_ids(model.spec, 1, 9), size=5)


def test_packed_weights_are_refused(mlx: Backend, make: Any, tmp_path: Any) -> None:
    import loopkit

    spec = Spec(64, 64, 4, 2, 16, 320, "2")
    mlx.quantize_folder(make("torch", spec).checkpoint.path, tmp_path, 4)  # type: ignore[attr-defined]
    with pytest.raises(LoopkitError, match="--quantize"):
        block_similarity(loopkit.load(tmp_path, "mlx"), random_ids(spec, 1, 9))
