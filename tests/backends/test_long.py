"""Both backends held against each other where texts are longer than what attention, caches and heads take at a time: 64, 256 and more."""

from dataclasses import replace

import numpy as np
import pytest
from learners import assert_close, gradient, start
from strategies import random_arrays

from loopkit.backend import Backend
from loopkit.inference.passes import forward, nll
from loopkit.inference.scoring import Request, score
from loopkit.plan import Plan, key_value_slots, repeat
from loopkit.run import Batch, Blend, Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

PLAIN = Spec(48, 96, 4, 2, 16, 151, "1-2x2-1", max_position_embeddings=1024)
SPECS = (PLAIN, replace(PLAIN, num_key_value_heads=1, qk_norm=True, attention_bias="qkvo", tie_word_embeddings=False))
PLAN: Plan = repeat(PLAIN.plan, 1, 3, 3)
Pair = list[tuple[Backend, str]]


@pytest.fixture(params=SPECS, ids=["llama", "qwen3"])
def spec(request: pytest.FixtureRequest) -> Spec:
    return request.param  # type: ignore[no-any-return]


def documents(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Four documents a row, numbered from 0."""
    numbers = np.sort(rng.integers(0, 4, (rows, length)), axis=1)
    return (numbers - numbers[:, :1]).astype(np.int32)


def test_passes(pair: Pair, spec: Spec) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, spec.vocab_size, (3, 330))
    gate = {(1, "attention"): rng.random(330, dtype=np.float32), (4, "mlp"): rng.random(330, dtype=np.float32)}
    run = Run(PLAN, gate=gate, scale={2: 0.5}, blend=(Blend(3, 5, 0.7),), capture=True)  # type: ignore[arg-type]
    apart = documents(rng, 3, 330)
    found = []
    for backend, device in pair:
        weights = backend.put(random_arrays(spec), device, "float32")
        logits, kept = forward(backend, weights, spec, ids, run)
        found.append((logits, *kept.values(), *(nll(backend, weights, spec, ids, Run(PLAN), each) for each in (None, apart))))
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(second, first, atol=1e-4)


def test_scores(pair: Pair, spec: Spec) -> None:
    rng = np.random.default_rng(1)
    sizes = [(int(rng.integers(1, 120)), rng.integers(1, 90, int(rng.integers(1, 5)))) for _ in range(6)]
    asked = [Request(tuple(rng.integers(0, 151, prompt)), tuple(tuple(rng.integers(0, 151, n)) for n in each)) for prompt, each in sizes]
    found = []
    for backend, device in pair:
        weights = backend.put(random_arrays(spec), device, "float32")
        scores = (each for batch in score(backend, weights, spec, asked, [Run(spec.plan), Run(PLAN)]) for each in batch)
        found.append([each.log_likelihood for each in sorted(scores, key=lambda each: each.request)])
    for first, second in zip(*found, strict=True):
        np.testing.assert_allclose(second, first, atol=2e-4)


@pytest.mark.parametrize("budget", [None, 2])
def test_decoding(pair: Pair, spec: Spec, budget: int | None) -> None:
    prompt, slots = np.random.default_rng(2).integers(0, 151, 240).tolist(), key_value_slots(PLAN, budget)
    first, second = (
        list(b.stream(b.put(random_arrays(spec), d, "float32"), spec, prompt, Run(PLAN), slots, 40, Sampling(0.8, 3))) for b, d in pair
    )
    assert first == second


def test_gradients(pair: Pair, spec: Spec) -> None:
    rng = np.random.default_rng(3)
    ids, counted = rng.integers(0, 151, (4, 201)).astype(np.int32), rng.random((4, 200)) < 0.4
    batch = Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), counted, documents(rng, 4, 200))
    first, second = (
        gradient(start(b, d, spec, random_arrays(spec), micro_batches=2, checkpointing=True, norm_scaling=True), batch, PLAN, 1)
        for b, d in pair
    )
    assert_close(second, first, 1e-5)
