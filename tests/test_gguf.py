"""GGUF files: what is written comes back, transformers agrees, and what cannot be read is refused by name."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q
from gguf.quants import dequantize, quantize

import loopkit
from loopkit.checkpoint.bundled import bundled_model
from loopkit.checkpoint.convert import convert
from loopkit.checkpoint.folder import open_folder
from loopkit.checkpoint.gguf import gguf_name, read_gguf, unpermute
from loopkit.errors import LoopkitError
from loopkit.spec import RopeScaling, Spec

LLAMA = Spec(64, 96, 4, 2, 16, 128, "2", tie_word_embeddings=False)
QWEN2 = Spec(64, 96, 4, 2, 16, 128, "2", attention_bias="qkv", rms_norm_eps=1e-6)
QWEN3 = Spec(64, 96, 2, 1, 128, 128, "2", qk_norm=True, tie_word_embeddings=False)  # transformers takes head_dim 128 for granted here
SPECS = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}


def random_arrays(spec: Spec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: (rng.normal(size=shape) / 8 + (len(shape) == 1)).astype(np.float32) for name, shape in spec.shapes().items()}


def permute(array: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter orders q and k."""
    rows = len(array)
    return array.reshape(heads, 2, rows // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def in_gguf_order(arch: str, spec: Spec, name: str, array: np.ndarray) -> np.ndarray:
    heads = {"q_proj": spec.num_attention_heads, "k_proj": spec.num_key_value_heads}.get(name.split(".")[-2])
    return permute(array, heads) if arch == "llama" and heads else array


def write(
    path: Path,
    arch: str,
    spec: Spec,
    arrays: Mapping[str, np.ndarray],
    kind: Q = Q.F32,
    keys: Mapping[str, Any] | None = None,
    raw: Mapping[str, tuple[np.ndarray, Q]] | None = None,
) -> Path:
    """A GGUF file of these arrays, matrices quantized; ``keys`` change metadata (None leaves a key out), ``raw`` adds tensors."""
    writer = gguf.GGUFWriter(path, arch)
    metadata = {
        "block_count": spec.n_layers,
        "context_length": spec.max_position_embeddings,
        "embedding_length": spec.hidden_size,
        "feed_forward_length": spec.intermediate_size,
        "attention.head_count": spec.num_attention_heads,
        "attention.head_count_kv": spec.num_key_value_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "rope.dimension_count": spec.head_dim,
        "rope.freq_base": spec.rope_theta,
        "attention.layer_norm_rms_epsilon": spec.rms_norm_eps,
        "vocab_size": spec.vocab_size,
    } | dict(keys or {})
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}.get(type(value))
        if add:
            add(key if "." in key and key.split(".")[0] in ("split", "tokenizer") else f"{arch}.{key}", value)
    for name, array in arrays.items():
        ordered = in_gguf_order(arch, spec, name, array)
        stored = quantize(ordered, kind) if array.ndim == 2 and kind != Q.F32 else ordered
        writer.add_tensor(gguf_name(name), stored, raw_dtype=kind if array.ndim == 2 else Q.F32)
    for name, (data, data_kind) in (raw or {}).items():
        writer.add_tensor(name, data, raw_dtype=data_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("arch", SPECS)
@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0])
def test_what_is_written_comes_back(arch: str, kind: Q, tmp_path: Path) -> None:
    spec = SPECS[arch]
    arrays = random_arrays(spec)
    model = read_gguf(write(tmp_path / "m.gguf", arch, spec, arrays, kind))
    assert model.spec == spec
    assert model.dtype == {Q.F16: "float16", Q.BF16: "bfloat16"}.get(kind, "float32")
    assert list(model.arrays) == list(spec.shapes())
    for name, array in arrays.items():
        expected = dequantize(quantize(array, kind), kind) if array.ndim == 2 and kind != Q.F32 else array
        np.testing.assert_array_equal(model.arrays[name], expected.astype(model.arrays[name].dtype), err_msg=name)
        assert model.arrays[name].dtype.name == model.dtype


@pytest.mark.parametrize("kind", [Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K])
def test_k_quants(kind: Q, tmp_path: Path) -> None:
    spec = Spec(256, 256, 4, 2, 64, 32, "1")
    block, size = gguf.GGML_QUANT_SIZES[kind]
    arrays = random_arrays(spec)
    matrices = [name for name, shape in spec.shapes().items() if len(shape) == 2]
    rng = np.random.default_rng(1)
    packed = {name: rng.integers(0, 60, (len(arrays[name]), 256 // block * size)).astype(np.uint8) for name in matrices}  # scales below 1
    raw = {gguf_name(name): (data, kind) for name, data in packed.items()}
    norms = {name: array for name, array in arrays.items() if name not in matrices}
    model = read_gguf(write(tmp_path / "m.gguf", "llama", spec, norms, raw=raw))
    heads = {"q_proj": 4, "k_proj": 2}
    for name, data in packed.items():
        expected = dequantize(data, kind)
        assert np.isfinite(expected).all() and expected.std() > 0
        part = name.split(".")[-2]
        np.testing.assert_array_equal(model.arrays[name], unpermute(expected, heads[part]) if part in heads else expected)


@pytest.mark.parametrize("arch", SPECS)
def test_transformers_reads_the_same(arch: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = write(tmp_path / "m.gguf", arch, SPECS[arch], random_arrays(SPECS[arch]), Q.Q8_0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype="float32")
    ours = loopkit.load(convert(str(path), tmp_path / "out"), backend="torch", device="cpu")
    compare(ours, theirs, np.arange(1, 30))


def test_the_real_model_equals_transformers_reading_it(smollm: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = bundled_model(print)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype="float32")
    ours = loopkit.load(smollm, backend="torch", device="cpu")
    assert ours.spec == replace(loopkit.preset("smollm-135m"), rope_theta=100000.0, max_position_embeddings=8192)
    compare(ours, theirs, np.array(ours.tokenizer.encode("The sun rises in the east, and the moon circles the earth.")))


def compare(ours: Any, theirs: Any, ids: np.ndarray) -> None:
    """Every tensor equal, logits within 1e-4."""
    import torch

    state = theirs.state_dict()
    for name, array in ours.checkpoint.arrays.items():
        np.testing.assert_array_equal(state[name].numpy(), array, err_msg=name)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(ids)[None]).logits.numpy()
    np.testing.assert_allclose(ours.logits(ids), expected, atol=1e-4, rtol=0)


def test_biases_of_llama_are_unpermuted_too(tmp_path: Path) -> None:
    spec = replace(LLAMA, attention_bias="qkvo")
    arrays = random_arrays(spec)
    model = read_gguf(write(tmp_path / "m.gguf", "llama", spec, arrays))
    assert model.spec == spec
    for name, array in arrays.items():
        np.testing.assert_array_equal(model.arrays[name], array, err_msg=name)


def test_llama3_rope_factors_become_their_scaling(tmp_path: Path) -> None:
    spec = replace(LLAMA, head_dim=64, rope_theta=500000.0, rope_scaling=RopeScaling("llama3", 32.0), max_position_embeddings=131072)
    factors = replace(spec, rope_scaling=None).rope_frequencies() / spec.rope_frequencies()
    arrays = random_arrays(spec)
    good = write(tmp_path / "good.gguf", "llama", spec, arrays, raw={"rope_freqs.weight": (factors, Q.F32)})
    assert read_gguf(good).spec == spec
    factors[9] *= 1.01
    bad = write(tmp_path / "bad.gguf", "llama", spec, arrays, raw={"rope_freqs.weight": (factors, Q.F32)})
    with pytest.raises(LoopkitError, match=r"bad\.gguf: tensor rope_freqs\.weight"):
        read_gguf(bad)
    ones = write(tmp_path / "ones.gguf", "llama", spec, arrays, raw={"rope_freqs.weight": (np.ones(32, np.float32), Q.F32)})
    assert read_gguf(ones).spec == replace(spec, rope_scaling=None)


def test_linear_rope_scaling(tmp_path: Path) -> None:
    keys = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    path = write(tmp_path / "m.gguf", "llama", LLAMA, random_arrays(LLAMA), keys=keys)
    assert read_gguf(path).spec == replace(LLAMA, rope_scaling=RopeScaling("linear", 4.0))


def test_dtype_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "qwen2", QWEN2, random_arrays(QWEN2), Q.Q8_0)
    checkpoint = open_folder(convert(str(path), tmp_path / "out", dtype="bfloat16"))
    assert {array.dtype.name for array in checkpoint.arrays.values()} == {"bfloat16"}
    assert checkpoint.config["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "'yarn' is not supported"),
        ({"expert_count": 8}, "a mixture of experts"),
        ({"attention.sliding_window": 512}, "a sliding window"),
        ({"rope.dimension_count": 8}, "partial rotary"),
        ({"attention.head_count": None}, "lacks 'attention.head_count'"),
        ({"attention.head_count": 3}, "multiple of num_key_value_heads"),
        ({"block_count": 3}, "lacks tensor blk.2.attn_norm.weight"),
        ({"block_count": 1}, "tensor blk.1.attn_norm.weight has no place"),
        ({"feed_forward_length": 64}, r"tensor blk.0.ffn_gate.weight has shape \[96, 64\], its metadata asks for \[64, 64\]"),
        ({"block_count": 4_000_000_000}, "block_count is 4000000000"),
        ({"split.count": 2}, "one part of several"),
    ],
)
def test_refused_metadata(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "llama", LLAMA, random_arrays(LLAMA), keys=keys)
    refused(path, message)


def test_refused_architecture_and_tensor_type(tmp_path: Path) -> None:
    refused(
        write(tmp_path / "g.gguf", "gemma2", LLAMA, random_arrays(LLAMA)), "architecture 'gemma2' is not supported; supported are Llama"
    )
    arrays = random_arrays(LLAMA)
    norm = arrays.pop("model.norm.weight")
    path = write(tmp_path / "i.gguf", "llama", LLAMA, arrays, raw={"output_norm.weight": (norm.astype(np.int8), Q.I8)})
    refused(path, "tensor output_norm.weight has type I8")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    arrays = random_arrays(LLAMA)
    arrays["lm_head.weight"][3, 5] = 1e30
    path = write(tmp_path / "m.gguf", "llama", LLAMA, arrays)
    with pytest.raises(LoopkitError, match=r"tensor output\.weight has values that are not finite in float16"):
        convert(str(path), tmp_path / "out", dtype="float16")
    arrays["lm_head.weight"][3, 5] = np.nan
    refused(write(path, "llama", LLAMA, arrays), r"tensor output\.weight has values that are not finite")


@pytest.mark.parametrize("kept", [0, 3, 20, 100, 500, 2000, 20000, -1000, -1])
def test_torn_files(kept: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf", "llama", LLAMA, random_arrays(LLAMA)).read_bytes()
    (tmp_path / "torn.gguf").write_bytes(whole[:kept])
    refused(tmp_path / "torn.gguf", "torn.gguf is not a whole GGUF file")


def test_garbage(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"<html>" * 100)
    refused(tmp_path / "m.gguf", "is not a whole GGUF file")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(tmp_path / "m.gguf", r"pip install 'loopkit-lm\[gguf\]'")


def refused(path: Path, message: str) -> None:
    """Conversion fails in one line with this message and leaves nothing behind."""
    with pytest.raises(LoopkitError, match=message) as caught:
        convert(str(path), path.parent / "out")
    assert "\n" not in str(caught.value)
    assert not (path.parent / "out").exists() and not list(path.parent.glob(".out*"))
