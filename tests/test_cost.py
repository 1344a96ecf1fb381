from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import plans, random_arrays, specs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from loopkit import backend, cost
from loopkit.inference.passes import forward
from loopkit.plan import key_value_slots
from loopkit.run import Run
from loopkit.spec import Spec, preset


@settings(max_examples=20, deadline=None)
@given(specs(), st.data())
def test_flops_are_torchs(spec: Spec, data: st.DataObject) -> None:
    """torch counts attention over all pairs of positions, so ours is asked for a context of the full length."""
    plan, length = data.draw(plans(spec.plan)), 80  # enough rows for the products that the counter knows
    torch_backend = backend.load("torch")
    weights = torch_backend.put(random_arrays(spec), "cpu", "float32")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the counter misses the CPU's fused attention
        forward(torch_backend, weights, spec, np.zeros((1, length), np.int64), Run(plan))
    assert counter.get_total_flops() == length * cost.token_flops(spec, plan, length)


@given(specs())
def test_parameters_count_what_a_checkpoint_holds(spec: Spec) -> None:
    assert cost.parameters(spec) == sum(map(prod, spec.shapes().values()))
    tables = (2 - spec.tie_word_embeddings) * spec.vocab_size * spec.hidden_size
    assert cost.parameters(spec, embeddings=False) == cost.parameters(spec) - tables


def test_smollm_is_as_large_as_published() -> None:
    assert cost.parameters(preset("smollm-135m")) == 134_515_008
    assert cost.parameters(preset("smollm-360m")) == 361_821_120
    assert cost.parameters(preset("smollm-1.7b")) == 1_711_376_384


def test_a_loop_costs_inference_but_no_parameters() -> None:
    looped, deep = preset("smollm-1.7b").with_layout("4x6"), preset("smollm-1.7b")
    assert cost.token_flops(looped, context=100) == cost.token_flops(deep, context=100)
    assert cost.parameters(looped) < cost.parameters(deep)
    assert cost.effective_parameters(looped) == cost.parameters(deep)


def test_training_costs_three_passes_over_every_token() -> None:
    spec = preset("nano")
    one = cost.sequence_flops(spec, 128)
    assert cost.training_flops(spec, [(spec.plan, 128)], 128) == pytest.approx(3 * one)
    half = spec.plan[:4]
    both = cost.training_flops(spec, [(half, 1280), (spec.plan, 1280)], 128)
    assert cost.training_flops(spec, [(half, 2560)], 128) < both < cost.training_flops(spec, [(spec.plan, 2560)], 128)


def test_sequence_flops_sum_over_positions() -> None:
    spec = preset("nano")
    by_position = sum(cost.token_flops(spec, context=position + 1) for position in range(50))
    assert cost.sequence_flops(spec, 50) == pytest.approx(by_position)


def test_cache_has_a_slot_a_visit() -> None:
    spec = preset("nano")
    model = backend.load("torch")
    from loopkit_torch.model import new_cache

    cache = new_cache(model.put(random_arrays(spec), "cpu", "float32"), spec, key_value_slots(spec.plan), 1, 10)
    assert sum(t.numel() * t.element_size() for t in (cache.keys, cache.values)) == cost.cache_bytes(spec, length=10)
    assert torch.float32.itemsize == 4
