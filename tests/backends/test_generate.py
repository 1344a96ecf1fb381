"""Decoding: with a cache as without one, for any plan; the same draws on both backends; in any thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import plans, random_arrays, random_ids, specs

import loopkit
from loopkit.backend import Backend, Weights
from loopkit.checkpoint.folder import write_folder
from loopkit.inference.modes import parse_run
from loopkit.inference.passes import forward
from loopkit.plan import Plan, key_value_slots, repeat
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SPEC = Spec(64, 96, 4, 2, 16, 101, "5")
NEW = 8


def stream(backend: Backend, weights: Weights, spec: Spec, prompt: list[int], plan: Plan, limit: int, sampling: Sampling) -> Iterator[int]:
    """The backend's tokens with a slot a visit."""
    return backend.stream(weights, spec, prompt, Run(plan), key_value_slots(plan), limit, sampling)


def uncached(backend: Backend, weights: Weights, spec: Spec, prompt: list[int], run: Run, limit: int, sampling: Sampling) -> list[int]:
    """The same tokens by running the whole text again for each."""
    ids = list(prompt)
    for step in range(limit):
        logits = forward(backend, weights, spec, np.array([ids]), run)[0][0, -1]
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
    found = list(stream(backend, weights, spec, prompt, plan, NEW, sampling))
    assert found == uncached(backend, weights, spec, prompt, Run(plan), NEW, sampling)
    assert all(type(token) is int for token in found)


def test_layers_left_out_and_layers_run_out_of_order(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    for plan in ((4,), (0, 4), (3, 1, 3, 1, 1), (2, 2, 2, 0, 2)):
        found = list(stream(backend, weights, SPEC, [5, 6, 7], plan, NEW, Sampling()))
        assert found == uncached(backend, weights, SPEC, [5, 6, 7], Run(plan), NEW, Sampling())


def test_blocks_that_are_damped_or_scaled(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    plain = uncached(backend, weights, SPEC, [5, 6, 7], Run(repeat(SPEC.plan, 1, 3, 3)), NEW, Sampling())
    for text in ("1:3x3@damped", "1:3x3@residual", "0:1x2,2:5x2@damped"):
        run = parse_run(text, SPEC.plan)
        found = list(backend.stream(weights, SPEC, [5, 6, 7], run, key_value_slots(run.plan), NEW, Sampling()))
        assert found == uncached(backend, weights, SPEC, [5, 6, 7], run, NEW, Sampling()) != plain


def over_budget(spec: Spec, arrays: dict[str, np.ndarray], prompt: list[int], plan: Plan, slots: tuple[int, ...], limit: int) -> list[int]:
    """Greedy decoding in plain numpy, keys and values in a dictionary: all of the prompt but its last token at once, then token by
    token; a slot that visits share holds what the last of them wrote."""
    cache: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    ids = list(prompt)
    last = len(prompt) - 1
    for together in (range(last), *([at] for at in range(last, last + limit))):
        x = arrays["model.embed_tokens.weight"][[ids[at] for at in together]].astype(np.float64)
        for visit, layer in enumerate(plan):
            x = _reference_visit(spec, arrays, layer, x, list(together), slots[visit], cache)
        if together[-1] >= last:
            ids.append(int((arrays["model.embed_tokens.weight"] @ _rms(x[-1], arrays["model.norm.weight"], spec.rms_norm_eps)).argmax()))
    return ids[len(prompt) :]


def _rms(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight  # type: ignore[no-any-return]


def _reference_visit(
    spec: Spec,
    arrays: dict[str, np.ndarray],
    layer: int,
    x: np.ndarray,
    positions: list[int],
    slot: int,
    cache: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]],
) -> np.ndarray:
    at = f"model.layers.{layer}."
    y = _rms(x, arrays[at + "input_layernorm.weight"], spec.rms_norm_eps)
    q, k, v = ((y @ arrays[f"{at}self_attn.{name}_proj.weight"].T).reshape(len(x), -1, spec.head_dim) for name in "qkv")
    out = np.empty_like(q)
    for i, position in enumerate(positions):
        angles = position * spec.rope_frequencies()
        q[i], k[i] = _turned(q[i], angles), _turned(k[i], angles)
        cache[slot, position] = k[i], v[i]
    for i, position in enumerate(positions):
        seen = [cache[slot, p] for p in range(position + 1)]
        for head in range(spec.num_attention_heads):
            group = head // (spec.num_attention_heads // spec.num_key_value_heads)
            scores = np.array([q[i, head] @ key[group] for key, _ in seen]) / np.sqrt(spec.head_dim)
            weights = np.exp(scores - scores.max())
            out[i, head] = weights @ np.array([value[group] for _, value in seen]) / weights.sum()
    x = x + out.reshape(len(x), -1) @ arrays[at + "self_attn.o_proj.weight"].T
    y = _rms(x, arrays[at + "post_attention_layernorm.weight"], spec.rms_norm_eps)
    gate, up = (y @ arrays[f"{at}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    return x + (gate / (1 + np.exp(-gate)) * up) @ arrays[at + "mlp.down_proj.weight"].T  # type: ignore[no-any-return]


def _turned(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    low, high = np.split(x, 2, -1)
    return np.concatenate([low * np.cos(angles) - high * np.sin(angles), high * np.cos(angles) + low * np.sin(angles)], -1)


@pytest.mark.parametrize("budget", [1, 2, 3, None])
def test_a_budget_of_slots_shares_them_in_turn(backend: Backend, device: str, budget: int | None) -> None:
    arrays = random_arrays(SPEC)
    weights, plan, prompt = backend.put(arrays, device, "float32"), repeat(SPEC.plan, 1, 3, 3), [5, 6, 7, 8]
    slots = key_value_slots(plan, budget)
    assert len(set(slots)) == 3 + 2 * min(budget or 3, 3)
    found = list(backend.stream(weights, SPEC, prompt, Run(plan), slots, NEW, Sampling()))
    assert found == over_budget(SPEC, arrays, prompt, plan, slots, NEW)


def test_shared_slots_after_a_long_prompt(pair: list[tuple[Backend, str]]) -> None:
    """Longer than the pieces in which mlx-lm reads a prompt."""
    plan, prompt = repeat(SPEC.plan, 1, 3, 2), random_ids(SPEC, 1, 4000)[0].tolist()
    slots, arrays = key_value_slots(plan, 1), random_arrays(SPEC)
    first, second = (list(b.stream(b.put(arrays, d, "float32"), SPEC, prompt, Run(plan), slots, NEW, Sampling())) for b, d in pair)
    assert first == second


def test_long_texts_outgrow_the_first_cache(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    prompt = random_ids(SPEC, 1, 252)[0].tolist()
    found = list(stream(backend, weights, SPEC, prompt, (0, 1, 1, 4), NEW, Sampling()))
    assert found == uncached(backend, weights, SPEC, prompt, Run((0, 1, 1, 4)), NEW, Sampling())


@FEW
@given(st.data())
def test_a_seed_gives_the_same_tokens_on_both_backends(pair: list[tuple[Backend, str]], data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    sampling = Sampling(data.draw(st.sampled_from([0.0, 0.7, 1.5])), seed=data.draw(st.integers(0, 2**31)))
    prompt = random_ids(spec, 1, 5)[0].tolist()
    first, second = (list(stream(b, b.put(random_arrays(spec), d, "float32"), spec, prompt, plan, NEW, sampling)) for b, d in pair)
    assert first == second


def test_temperature_draws_from_the_softmax(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    draws = [next(stream(backend, weights, SPEC, [5, 6, 7], SPEC.plan, 1, Sampling(1.0, seed))) for seed in range(400)]
    logits = forward(backend, weights, SPEC, np.array([[5, 6, 7]]), Run(SPEC.plan))[0][0, -1].astype(np.float64)
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
    alone = [list(stream(backend, weights, SPEC, [5, 6], plan, NEW, Sampling())) for plan in ((0, 1, 2), (2, 2))]
    both = [stream(backend, weights, SPEC, [5, 6], plan, NEW, Sampling()) for plan in ((0, 1, 2), (2, 2))]
    assert [list(tokens) for tokens in zip(*both, strict=True)] == [list(tokens) for tokens in zip(*alone, strict=True)]
