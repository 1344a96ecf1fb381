"""Learners without a run around them, for tests: small models, batches and gradients."""

from dataclasses import replace
from typing import Any

import numpy as np

from loopkit.backend import Backend, Learner
from loopkit.optimizer import Optimizer
from loopkit.run import Batch
from loopkit.spec import Spec

Arrays = dict[str, np.ndarray]
BARE = Optimizer(weight_decay=0.0, clip=0.0)
SPEC = Spec(16, 24, 4, 2, 8, 23, "1-2x2", tie_word_embeddings=False)
FAMILIES = {
    "llama": SPEC,
    "tied": replace(SPEC, tie_word_embeddings=True),
    "qwen2": replace(SPEC, attention_bias="qkv"),
    "qwen3": replace(SPEC, attention_bias="qkvo", qk_norm=True),
}


def start(backend: Backend, device: str, spec: Spec, arrays: Arrays, settings: Optimizer = BARE, **options: Any) -> Learner:
    """A learner without any update behind it."""
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    return go_on(backend, device, spec, {"weights": arrays, "first": zeros, "second": zeros}, 0, settings, **options)


def go_on(
    backend: Backend, device: str, spec: Spec, state: dict[str, Arrays], updates: int, settings: Optimizer = BARE, **options: Any
) -> Learner:
    plain = {"dtype": "float32", "micro_batches": 1, "checkpointing": False, "compiled": False, "norm_scaling": False}
    return backend.learner(spec, state, updates, settings, device=device, **(plain | options))


def rows(spec: Spec, batch: int = 4, length: int = 9, seed: int = 0, counted: float = 1.0) -> Batch:
    """Random tokens, of whose targets about a share ``counted`` counts."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, spec.vocab_size, (batch, length + 1)).astype(np.int32)
    mask = None if counted == 1 else rng.random((batch, length)) < counted
    return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), mask)


def gradient(learner: Learner, batch: Batch, plan: tuple[int, ...], detach_at: int | None = None) -> Arrays:
    """Read off the first moment of a first update with rate 0."""
    learner.step(batch, plan, 0.0, detach_at)
    return {name: array / (1 - BARE.beta1) for name, array in learner.state()["first"].items()}


def assert_close(found: Arrays, expected: Arrays, tolerance: float = 2e-6) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(array).max())), err_msg=name)
