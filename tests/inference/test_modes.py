"""Plan texts with a mode: what parses, what does not, and what each mode does to the stream."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import layouts, random_arrays, random_ids, repeat_texts

from loopkit.backend import Backend
from loopkit.errors import UsageError
from loopkit.inference.modes import MODES, canonical, parse_run, with_mode
from loopkit.inference.passes import forward
from loopkit.plan import parse_layout, parse_plan
from loopkit.run import Run
from loopkit.spec import Spec

SPEC = Spec(64, 96, 4, 2, 16, 101, "5")


@given(st.data(), st.sampled_from(MODES))
def test_a_mode_keeps_the_plan_and_its_text_comes_back(data: st.DataObject, mode: str) -> None:
    base = parse_layout(data.draw(layouts()))
    text = data.draw(repeat_texts(base))
    run = parse_run(f"{text}@{mode}", base)
    assert run.plan == parse_plan(text, base)
    assert parse_run(canonical(f" {text}@{mode} ", base), base) == run
    assert all(span.stop <= len(run.plan) for span in run.blend)
    assert canonical(text, base) == canonical(f"{text}@plain", base)


@pytest.mark.parametrize(
    ("text", "names"),
    [("1:3x2@dampened", "dampened"), ("5@damped", "mode damped needs a block"), ("layers:0,1@residual", "8:12x2@residual")],
)
def test_bad_modes_are_named(text: str, names: str) -> None:
    with pytest.raises(UsageError, match=names):
        parse_run(text, SPEC.plan)


def stream(backend: Backend, device: str, run: Run) -> np.ndarray:
    """The stream before each visit and after the last."""
    weights = backend.put(random_arrays(SPEC), device, "float32")
    return forward(backend, weights, SPEC, random_ids(SPEC), replace(run, capture=True))[1]["resid"]


def test_a_damped_block_goes_part_of_the_way_at_each_pass(backend: Backend, device: str) -> None:
    run = parse_run("1:3x3@damped", SPEC.plan)
    found = stream(backend, device, run)
    for start in (1, 3, 5):
        undamped = stream(backend, device, Run((1, 2), overwrite={0: found[start]}))[2]
        np.testing.assert_allclose(found[start + 2], found[start] + (undamped - found[start]) / 3, rtol=0, atol=1e-5)


def test_once_is_the_plain_pass_under_every_mode(backend: Backend, device: str) -> None:
    plain = stream(backend, device, Run(SPEC.plan))
    for mode in MODES:
        np.testing.assert_allclose(stream(backend, device, parse_run(with_mode("1:4x1", mode), SPEC.plan)), plain, rtol=0, atol=1e-5)


def test_a_scaled_block_is_one_with_smaller_output_matrices(backend: Backend, device: str) -> None:
    found = stream(backend, device, parse_run("1:3x2@residual", SPEC.plan))
    arrays = random_arrays(SPEC)
    for layer in (1, 2):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            arrays[f"model.layers.{layer}.{name}.weight"] *= np.float32(2**-0.5)
    weights = backend.put(arrays, device, "float32")
    expected = forward(backend, weights, SPEC, random_ids(SPEC), Run((0, 1, 2, 1, 2, 3, 4), capture=True))[1]["resid"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
