"""Decoding: with a cache as without one, for any plan; the same draws on both backends; in any thread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import plans, random_arrays, random_ids, specs

import loopkit
from loopkit.backend import Backend, Weights
from loopkit.checkpoint.folder import write_folder
from loopkit.plan import Plan
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SPEC = Spec(64, 96, 4, 2, 16, 101, "5")
NEW = 8


def uncached(backend: Backend, weights: Weights, spec: Spec, prompt: list[int], plan: Plan, limit: int, sampling: Sampling) -> list[int]:
    """The same tokens by running the whole text again for each."""
    ids = list(prompt)
    for step in range(limit):
        logits = backend.forward(weights, spec, np.array([ids]), Run(plan))[0][0, -1]
        ids.append(int((logits + sampling.noise(step, spec.vocab_size)).argmax()))
    return ids[len(prompt) :]


@FEW
@given(st.data())
def test_cached_equals_uncached(backend: Backend, device: str, data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    weights = backend.put(random_arrays(spec), device, "float32")
    prompt = random_ids(spec, 1, data.draw(st.sampled_from([1, 2, 9])))[0].tolist()
    sampling = Sampling(data.draw(st.sampled_from([0.0, 0.0, 1.0])), seed=data.draw(st.integers(0, 9)))
    found = list(backend.stream(weights, spec, prompt, plan, NEW, sampling))
    assert found == uncached(backend, weights, spec, prompt, plan, NEW, sampling)
    assert all(type(token) is int for token in found)


def test_layers_left_out_and_layers_run_out_of_order(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    for plan in ((4,), (0, 4), (3, 1, 3, 1, 1), (2, 2, 2, 0, 2)):
        found = list(backend.stream(weights, SPEC, [5, 6, 7], plan, NEW, Sampling()))
        assert found == uncached(backend, weights, SPEC, [5, 6, 7], plan, NEW, Sampling())


def test_long_texts_outgrow_the_first_cache(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    prompt = random_ids(SPEC, 1, 252)[0].tolist()
    found = list(backend.stream(weights, SPEC, prompt, (0, 1, 1, 4), NEW, Sampling()))
    assert found == uncached(backend, weights, SPEC, prompt, (0, 1, 1, 4), NEW, Sampling())


@FEW
@given(st.data())
def test_a_seed_gives_the_same_tokens_on_both_backends(pair: list[tuple[Backend, str]], data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    sampling = Sampling(data.draw(st.sampled_from([0.0, 0.7, 1.5])), seed=data.draw(st.integers(0, 2**31)))
    prompt = random_ids(spec, 1, 5)[0].tolist()
    first, second = (list(b.stream(b.put(random_arrays(spec), d, "float32"), spec, prompt, plan, NEW, sampling)) for b, d in pair)
    assert first == second


def test_temperature_draws_from_the_softmax(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    draws = [next(backend.stream(weights, SPEC, [5, 6, 7], SPEC.plan, 1, Sampling(1.0, seed))) for seed in range(400)]
    logits = backend.forward(weights, SPEC, np.array([[5, 6, 7]]), Run(SPEC.plan))[0][0, -1].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    top = int(expected.argmax())
    spread = np.sqrt(expected[top] * (1 - expected[top]) / len(draws))
    assert abs(draws.count(top) / len(draws) - expected[top]) < 4 * spread


def test_a_model_generates_in_any_thread(backend: Backend, device: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "model", SPEC, random_arrays(SPEC))
    here = loopkit.load(tmp_path / "model", backend=backend.name, device=device)
    expected = list(here.generate_ids([5, 6, 7], "1:3x2", NEW))
    assert len(expected) == NEW

    def work() -> list[list[int]]:
        there = loopkit.load(tmp_path / "model", backend=backend.name, device=device)
        assert there.trace(np.array([5, 6, 7])).resid.shape[0] == SPEC.n_layers + 1
        return [list(model.generate_ids([5, 6, 7], "1:3x2", NEW)) for model in (here, there)]

    for _ in range(2):
        with ThreadPoolExecutor(1) as worker:
            assert worker.submit(work).result() == [expected] * 2


def test_two_streams_at_once_do_not_mix(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    alone = [list(backend.stream(weights, SPEC, [5, 6], plan, NEW, Sampling())) for plan in ((0, 1, 2), (2, 2))]
    both = [backend.stream(weights, SPEC, [5, 6], plan, NEW, Sampling()) for plan in ((0, 1, 2), (2, 2))]
    assert [list(tokens) for tokens in zip(*both, strict=True)] == [list(tokens) for tokens in zip(*alone, strict=True)]
