"""Logits: both backends and transformers agree, loops equal their unrolled copies, weights survive the round trip."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TOLERANCE, plans, random_arrays, random_ids, specs, unrolled

import loopkit
from loopkit.backend import Backend
from loopkit.checkpoint.folder import write_folder
from loopkit.errors import UsageError
from loopkit.inference.passes import forward, nll
from loopkit.plan import Plan, listing
from loopkit.run import Run
from loopkit.spec import RopeScaling, Spec

FEW = settings(max_examples=20, deadline=None, derandomize=True)
LLAMA3 = RopeScaling("llama3", 8.0, original_max_position_embeddings=64)
FAMILIES = {
    "llama-mha": Spec(64, 96, 4, 4, 16, 101, "4"),
    "llama-gqa": Spec(64, 96, 4, 2, 16, 101, "4", tie_word_embeddings=False),
    "llama-mqa-wide": Spec(48, 96, 4, 1, 24, 101, "4"),
    "llama-biases-linear": Spec(64, 96, 4, 2, 16, 101, "4", attention_bias="qkvo", rope_scaling=RopeScaling("linear", 4.0)),
    "llama-llama3": Spec(64, 96, 4, 2, 16, 101, "4", rope_theta=5e5, rope_scaling=LLAMA3),
    "qwen2": Spec(64, 96, 4, 2, 16, 101, "4", attention_bias="qkv", rms_norm_eps=1e-6),
    "qwen3": Spec(64, 96, 4, 2, 24, 101, "4", qk_norm=True, rope_theta=1e6),
    "looped": Spec(64, 96, 4, 2, 16, 101, "1-2x3-1"),
}


def logits(backend: Backend, device: str, spec: Spec, arrays: dict[str, np.ndarray], plan: Plan, dtype: str = "float32") -> np.ndarray:
    """Logits of the same few ids, ``[B, T, V]``."""
    return forward(backend, backend.put(arrays, device, dtype), spec, random_ids(spec), Run(plan))[0]


def transformers_logits(spec: Spec, arrays: dict[str, np.ndarray], plan: Plan) -> np.ndarray:
    """The same from Hugging Face's own implementation, on the unrolled copy."""
    import torch
    import transformers

    deep, copied = unrolled(spec, arrays, plan)
    config = deep.to_config()
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(config.pop("model_type"), **config))
    state = {name: torch.from_numpy(array) for name, array in copied.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if spec.tie_word_embeddings else set())
    with torch.inference_mode():
        result: np.ndarray = model.float().eval()(torch.from_numpy(random_ids(spec))).logits.numpy()
    return result


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_with_transformers(backend: Backend, device: str, family: str) -> None:
    spec = FAMILIES[family]
    arrays = random_arrays(spec)
    for plan in (spec.plan, (0, 1, 2, 1, 2, 3)):
        ours = logits(backend, device, spec, arrays, plan)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, transformers_logits(spec, arrays, plan), rtol=0, atol=TOLERANCE["float32"])


@FEW
@given(st.data())
def test_backends_agree_with_each_other_and_with_transformers(pair: list[tuple[Backend, str]], data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    arrays = random_arrays(spec)
    first, second = (logits(backend, device, spec, arrays, plan) for backend, device in pair)
    np.testing.assert_allclose(first, second, rtol=0, atol=TOLERANCE["float32"])
    np.testing.assert_allclose(first, transformers_logits(spec, arrays, plan), rtol=0, atol=TOLERANCE["float32"])


@FEW
@given(st.data())
def test_a_loop_is_its_unrolled_copy_exactly(backend: Backend, device: str, data: st.DataObject) -> None:
    spec = data.draw(specs())
    plan = data.draw(plans(spec.plan))
    arrays = random_arrays(spec)
    deep, copied = unrolled(spec, arrays, plan)
    np.testing.assert_array_equal(logits(backend, device, spec, arrays, plan), logits(backend, device, deep, copied, deep.plan))


def test_once_is_the_plain_model_bit_for_bit(backend: Backend, device: str, tmp_path: Path) -> None:
    spec = Spec(64, 96, 4, 2, 16, 101, "5")
    write_folder(tmp_path / "model", spec, random_arrays(spec))
    model = loopkit.load(tmp_path / "model", backend=backend.name, device=device)
    plain = model.logits(random_ids(spec))
    np.testing.assert_array_equal(model.logits(random_ids(spec), "1:4x1"), plain)
    assert np.abs(model.logits(random_ids(spec), "1:4x2") - plain).max() > 0.01


def test_a_looped_folder_runs_as_its_layout_says(backend: Backend, device: str, tmp_path: Path) -> None:
    spec = Spec(64, 96, 4, 2, 16, 101, "1-2x2-1")
    arrays = random_arrays(spec)
    write_folder(tmp_path / "looped", spec, arrays)
    write_folder(tmp_path / "plain", spec.with_layout("4"), arrays)
    looped, plain = (loopkit.load(tmp_path / name, backend=backend.name, device=device) for name in ("looped", "plain"))
    expected = plain.logits(random_ids(spec), listing(spec.plan))
    np.testing.assert_array_equal(looped.logits(random_ids(spec)), expected)
    np.testing.assert_array_equal(looped.logits(random_ids(spec)[0])[0], looped.logits(random_ids(spec)[:1])[0])


@FEW
@given(st.data())
def test_nll_is_what_the_logits_say(backend: Backend, device: str, data: st.DataObject) -> None:
    spec = data.draw(specs())
    run = Run(data.draw(plans(spec.plan)))
    weights = backend.put(random_arrays(spec), device, "float32")
    ids = random_ids(spec, batch=data.draw(st.integers(1, 3)), length=data.draw(st.sampled_from([2, 7, 130, 300])))
    found = nll(backend, weights, spec, ids, run)
    every = forward(backend, weights, spec, ids, run)[0].astype(np.float64)[:, :-1]
    expected = np.log(np.exp(every).sum(-1)) - np.take_along_axis(every, ids[:, 1:, None], -1)[..., 0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE["float32"])


def test_nll_obeys_gates(backend: Backend, device: str) -> None:
    spec = FAMILIES["llama-gqa"]
    weights = backend.put(random_arrays(spec), device, "float32")
    ids, off = random_ids(spec), np.zeros(11, np.float32)
    gated = nll(backend, weights, spec, ids, Run(spec.plan, gate={(1, "attention"): off, (1, "mlp"): off}))
    np.testing.assert_array_equal(gated, nll(backend, weights, spec, ids, Run((0, 2, 3))))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama-gqa", "llama-biases-linear", "qwen3"])
def test_half_precision_is_near(backend: Backend, device: str, family: str, dtype: str) -> None:
    spec = FAMILIES[family]
    arrays, plan = random_arrays(spec), (0, 1, 2, 1, 2, 3)
    low = logits(backend, device, spec, arrays, plan, dtype)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, logits(backend, device, spec, arrays, plan), rtol=0, atol=TOLERANCE[dtype])
    assert not np.array_equal(low, logits(backend, device, spec, arrays, plan))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_survive_the_round_trip(backend: Backend, device: str, dtype: type) -> None:
    spec = FAMILIES["llama-biases-linear"]
    arrays = {name: array.astype(dtype) for name, array in random_arrays(spec).items()}
    back = backend.get(backend.put(arrays, device, np.dtype(dtype).name), list(arrays))
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_weights_of_several_types_are_put_as_numbers(backend: Backend, device: str) -> None:
    spec = FAMILIES["llama-gqa"]
    kinds = (ml_dtypes.bfloat16, np.float16, np.float32)
    arrays = {name: array.astype(kinds[i % 3]) for i, (name, array) in enumerate(random_arrays(spec).items())}
    back = backend.get(backend.put(arrays, device, "float32"), list(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32))


def test_an_unknown_dtype_is_a_usage_error(backend: Backend, device: str) -> None:
    with pytest.raises(UsageError, match="int3"):
        backend.put({}, device, "int3")


def test_what_the_doctor_asks(backend: Backend, device: str) -> None:
    assert device in backend.devices()
    assert backend.default_dtype("cpu") == "float32"
    assert backend.matmul_rate("cpu") > 0
    assert all(isinstance(value, str) for value in backend.versions().values())
