"""Traces and interventions: what is captured adds up, gates remove what they gate, and overwriting with what was there changes nothing."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TOLERANCE, plans, random_arrays, random_ids, specs

from loopkit.backend import Backend, Weights
from loopkit.inference.passes import forward
from loopkit.plan import Plan
from loopkit.run import Rows, Run, Sublayer
from loopkit.spec import Spec

FEW = settings(max_examples=15, deadline=None, derandomize=True)
SPEC = Spec(64, 96, 4, 2, 16, 101, "1-2x2-1")
LENGTH = 11
SUBLAYERS: tuple[Sublayer, ...] = ("attention", "mlp")


def drawn(backend: Backend, device: str, data: st.DataObject, dtype: str = "float32") -> tuple[Weights, Spec, Plan]:
    """Weights, spec and a plan for them."""
    spec = data.draw(specs())
    return backend.put(random_arrays(spec), device, dtype), spec, data.draw(plans(spec.plan))


@FEW
@given(st.data())
def test_a_trace_adds_up(backend: Backend, device: str, data: st.DataObject) -> None:
    weights, spec, plan = drawn(backend, device, data)
    ids = random_ids(spec)
    logits, kept = forward(backend, weights, spec, ids, Run(plan, capture=True))
    assert kept["resid"].shape == (len(plan) + 1, *ids.shape, spec.hidden_size)
    assert kept["attn"].shape == kept["mlp"].shape == (len(plan), *ids.shape, spec.hidden_size)
    assert {array.dtype for array in kept.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(kept["resid"][0], random_arrays(spec)["model.embed_tokens.weight"][ids])
    np.testing.assert_array_equal(kept["resid"][1:], kept["resid"][:-1] + kept["attn"] + kept["mlp"])
    np.testing.assert_array_equal(logits, forward(backend, weights, spec, ids, Run(plan))[0])


@FEW
@given(st.data())
def test_a_gated_visit_is_a_visit_left_out(backend: Backend, device: str, data: st.DataObject) -> None:
    weights, spec, plan = drawn(backend, device, data)
    if len(plan) == 1:
        plan *= 2
    visit = data.draw(st.integers(0, len(plan) - 1))
    gate = {(visit, sublayer): np.zeros(LENGTH, np.float32) for sublayer in SUBLAYERS}
    without = plan[:visit] + plan[visit + 1 :]
    gated = forward(backend, weights, spec, random_ids(spec), Run(plan, gate=gate))[0]
    np.testing.assert_array_equal(gated, forward(backend, weights, spec, random_ids(spec), Run(without))[0])


@FEW
@given(st.data())
def test_overwriting_with_what_was_there_changes_nothing(backend: Backend, device: str, data: st.DataObject) -> None:
    weights, spec, plan = drawn(backend, device, data)
    ids = random_ids(spec)
    logits, kept = forward(backend, weights, spec, ids, Run(plan, capture=True))
    visits = data.draw(st.sets(st.integers(0, len(plan) - 1), min_size=1))
    again = forward(backend, weights, spec, ids, Run(plan, overwrite={visit: kept["resid"][visit] for visit in visits}))[0]
    np.testing.assert_array_equal(again, logits)


def test_a_gate_acts_at_its_positions_alone(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    gate = np.ones(LENGTH, np.float32)
    gate[[4, 7]] = 0, 0.5
    plain = forward(backend, weights, SPEC, random_ids(SPEC), Run(SPEC.plan, capture=True))[1]
    for sublayer, key in zip(SUBLAYERS, ("attn", "mlp"), strict=True):
        kept = forward(backend, weights, SPEC, random_ids(SPEC), Run(SPEC.plan, gate={(2, sublayer): gate}, capture=True))[1]
        np.testing.assert_array_equal(kept[key][2], plain[key][2] * gate[:, None])
        np.testing.assert_array_equal(kept["resid"][:3], plain["resid"][:3])
        np.testing.assert_array_equal(kept["resid"][:, :, :4], plain["resid"][:, :, :4])  # nothing looks ahead
        assert np.abs(kept["resid"][-1, :, 4:] - plain["resid"][-1, :, 4:]).max() > 0.01


def test_one_stream_overwrites_a_whole_batch(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    ids = random_ids(SPEC)
    stream = forward(backend, weights, SPEC, ids, Run(SPEC.plan, capture=True))[1]["resid"][3]
    logits, kept = forward(backend, weights, SPEC, ids, Run(SPEC.plan, overwrite={3: stream[0]}, capture=True))
    np.testing.assert_array_equal(kept["resid"][3], np.stack([stream[0]] * 2))
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=TOLERANCE["float32"])


def test_bfloat16_is_traced_in_float32(backend: Backend, device: str) -> None:
    exact, low = (
        forward(backend, backend.put(random_arrays(SPEC), device, dtype), SPEC, random_ids(SPEC), Run(SPEC.plan, capture=True))[1]
        for dtype in ("float32", "bfloat16")
    )
    for key, array in low.items():
        assert array.dtype == np.float32
        spread = exact[key].std()
        np.testing.assert_allclose(array / spread, exact[key] / spread, rtol=0, atol=TOLERANCE["bfloat16"])


@FEW
@given(st.data())
def test_backends_agree_on_traces_with_interventions(pair: list[tuple[Backend, str]], data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    visit = data.draw(st.integers(0, len(plan) - 1))
    gate = {(visit, sublayer): rng.random(LENGTH, dtype=np.float32) for sublayer in SUBLAYERS}
    overwrite = {data.draw(st.integers(0, len(plan) - 1)): rng.standard_normal((LENGTH, spec.hidden_size), dtype=np.float32)}
    run = Run(plan, gate, overwrite, capture=True)
    first, second = (forward(b, b.put(random_arrays(spec), device, "float32"), spec, random_ids(spec), run) for b, device in pair)
    np.testing.assert_allclose(first[0], second[0], rtol=0, atol=TOLERANCE["float32"])
    for key, array in first[1].items():
        np.testing.assert_allclose(array, second[1][key], rtol=0, atol=TOLERANCE["float32"])


def test_any_stream_can_be_put_in_place(backend: Backend, device: str) -> None:
    weights = backend.put(random_arrays(SPEC), device, "float32")
    stream = backend.enter(weights, SPEC, Rows(random_ids(SPEC)))
    wanted = np.random.default_rng(0).standard_normal((2, LENGTH, 64), dtype=np.float32)
    placed, _ = backend.advance(weights, SPEC, stream, Run((), overwrite={0: wanted}))
    np.testing.assert_array_equal(backend.hidden(placed), wanted)
    after, kept = backend.advance(weights, SPEC, stream, Run(SPEC.plan, overwrite={len(SPEC.plan): wanted[0]}, capture=True))
    np.testing.assert_array_equal(backend.hidden(after), np.broadcast_to(wanted[0], wanted.shape))
    np.testing.assert_array_equal(kept["resid"][-1], backend.hidden(after))
