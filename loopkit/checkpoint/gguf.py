"""GGUF files as a Spec, arrays under Hugging Face's names, and tokenizer files."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loopkit.checkpoint.folder import DTYPES
from loopkit.checkpoint.gguf_tokenizer import tokenizer_files
from loopkit.errors import LoopkitError
from loopkit.spec import FAMILIES, Bias, RopeScaling, Spec

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # Mistral and SmolLM are exported as llama
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ROPE_FACTORS = "rope_freqs.weight"  # what Llama 3's rope scaling divides each frequency by
TOKEN_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}


class GgufModel(NamedTuple):
    """What a GGUF file holds: ``arrays`` under Hugging Face's names and of type ``dtype``, token ids, tokenizer files by name."""

    spec: Spec
    arrays: dict[str, np.ndarray]
    dtype: str
    token_ids: dict[str, int]
    tokenizer: dict[str, str]


def read_gguf(path: Path, dtype: str | None = None) -> GgufModel:
    """Read a whole GGUF file; by default F16 and BF16 files keep their type and quantized ones become float32.

    Raises LoopkitError naming the file, and the tensor or metadata key, where it is torn or of an unsupported kind.
    """
    metadata, tensors = _open(path)
    spec = _spec(path, metadata, tensors)
    tokenizer = tokenizer_files(metadata, str(path), spec.vocab_size)
    dtype = dtype or _stored_dtype(tensors)
    token_ids = {name: int(metadata[f"tokenizer.ggml.{key}"]) for name, key in TOKEN_IDS.items() if f"tokenizer.ggml.{key}" in metadata}
    return GgufModel(spec, _arrays(path, spec, metadata, tensors, dtype), dtype, token_ids, tokenizer)


def gguf_name(name: str) -> str:
    """A parameter's name in GGUF."""
    stem, kind = name.rsplit(".", 1)
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"


def unpermute(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k projection as Hugging Face orders them; GGUF's llama keeps each rotary pair side by side."""
    rows = array.shape[0]
    return array.reshape(heads, rows // heads // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata by key and the library's tensors by name."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise LoopkitError("reading GGUF files needs one more package; install it with: pip install 'loopkit-lm[gguf]'") from error
    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the library meets torn files with whatever its slicing raises
        raise LoopkitError(f"{path} is not a whole GGUF file ({_one_line(error)}); copy it again") from error
    if reader.byte_order == "S" or metadata.get("split.count", 1) > 1:
        kind = "of the other byte order" if reader.byte_order == "S" else "one part of several; join them first: llama-gguf-split --merge"
        raise LoopkitError(f"{path} is {kind}")
    return metadata, {tensor.name: tensor for tensor in reader.tensors}


def _spec(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> Spec:
    architecture = metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise LoopkitError(f"{path}: architecture {architecture!r} is not supported; supported are {FAMILIES}")
    keys = {name.removeprefix(f"{architecture}."): value for name, value in metadata.items() if name.startswith(f"{architecture}.")}
    try:
        spec = _plain_spec(keys, tensors, architecture)
    except KeyError as missing:
        raise LoopkitError(f"{path} lacks {missing}, so it is not a whole {architecture} model") from None
    except (TypeError, ValueError) as error:
        raise LoopkitError(f"{path}: {_one_line(error)}") from error
    _refuse_variants(path, keys, spec)
    if ROPE_FACTORS in tensors:
        return _with_rope_factors(path, spec, tensors[ROPE_FACTORS])
    return spec


def _plain_spec(keys: Mapping[str, Any], tensors: Mapping[str, Any], architecture: str) -> Spec:
    heads, hidden, blocks = int(keys["attention.head_count"]), int(keys["embedding_length"]), int(keys["block_count"])
    if blocks > len(tensors):  # before a plan of so many layers is made
        raise LoopkitError(f"block_count is {blocks}, but there are only {len(tensors)} tensors; copy the file again")
    return Spec(
        hidden_size=hidden,
        intermediate_size=int(keys["feed_forward_length"]),
        num_attention_heads=heads,
        num_key_value_heads=int(keys.get("attention.head_count_kv", heads)),
        head_dim=int(keys.get("attention.key_length", hidden // heads)),
        vocab_size=int(tensors["token_embd.weight"].shape[-1]),
        layout=str(blocks),
        rms_norm_eps=_short(keys["attention.layer_norm_rms_epsilon"]),
        rope_theta=_short(keys.get("rope.freq_base", 10000.0)),
        rope_scaling=_rope_scaling(keys),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias=_bias(tensors),
        qk_norm=architecture == "qwen3",
        max_position_embeddings=int(keys.get("context_length", 2048)),
    )


def _short(value: float) -> float:
    """The shortest decimal of a float32, so that 9.999999747378752e-06 is 1e-05 again."""
    return float(str(np.float32(value)))


def _bias(tensors: Mapping[str, Any]) -> Bias:
    if "blk.0.attn_q.bias" not in tensors:
        return "none"
    return "qkvo" if "blk.0.attn_output.bias" in tensors else "qkv"


def _rope_scaling(keys: Mapping[str, Any]) -> RopeScaling | None:
    factor = _short(keys.get("rope.scaling.factor", keys.get("rope.scale_linear", 1.0)))
    kind = keys.get("rope.scaling.type", "linear")
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return None
    if kind != "linear":
        raise LoopkitError(f"rope scaling {kind!r} is not supported; supported are none, linear and llama3")
    return RopeScaling("linear", factor)


def _refuse_variants(path: Path, keys: Mapping[str, Any], spec: Spec) -> None:
    """Refuse what a supported architecture can ask for and this project does not compute."""
    window = int(keys.get("attention.sliding_window") or 0)
    unsupported = {
        "a mixture of experts": keys.get("expert_count", 0) > 0,
        "a sliding window": 0 < window < spec.max_position_embeddings,
        "partial rotary positions": keys.get("rope.dimension_count", spec.head_dim) != spec.head_dim,
        "values of another size than keys": keys.get("attention.value_length", spec.head_dim) != spec.head_dim,
    }
    for what, asked in unsupported.items():
        if asked:
            raise LoopkitError(f"{path} uses {what}, which is not supported; supported are {FAMILIES}")


def _with_rope_factors(path: Path, spec: Spec, tensor: Any) -> Spec:
    """The Spec with the Llama 3 scaling behind the file's factors, which GGUF stores in place of the scaling's parameters."""
    factors = np.asarray(tensor.data, np.float32).ravel()
    base = spec.rope_frequencies()
    if factors.shape == base.shape and np.allclose(factors, 1.0):
        return spec
    scaled = replace(spec, rope_scaling=RopeScaling("llama3", _short(factors.max())))
    fits = factors.shape == base.shape and np.allclose(base / factors, scaled.rope_frequencies(), rtol=1e-3, atol=0)
    if spec.rope_scaling is not None or not fits:
        raise LoopkitError(f"{path}: tensor {ROPE_FACTORS} is not Llama 3's rope scaling; supported are none, linear and llama3")
    return scaled


def _stored_dtype(tensors: Mapping[str, Any]) -> str:
    kinds = {tensor.tensor_type.name for tensor in tensors.values() if len(tensor.shape) == 2}
    return {"F16": "float16", "BF16": "bfloat16"}.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"


def _arrays(path: Path, spec: Spec, metadata: Mapping[str, Any], tensors: Mapping[str, Any], dtype: str) -> dict[str, np.ndarray]:
    """Every array the Spec asks for, one tensor dequantized at a time."""
    names = {name: gguf_name(name) for name in spec.shapes()}
    _check_tensors(path, {names[name]: shape for name, shape in spec.shapes().items()}, tensors)
    heads = {"q_proj": spec.num_attention_heads, "k_proj": spec.num_key_value_heads}
    arrays = {}
    for name, stored in names.items():
        array = _dequantize(path, tensors[stored], dtype)
        part = name.split(".")[-2]
        permuted = metadata["general.architecture"] == "llama" and part in heads
        arrays[name] = unpermute(array, heads[part]) if permuted else array
    return arrays


def _check_tensors(path: Path, wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any]) -> None:
    for name in tensors:
        if name not in wanted and name != ROPE_FACTORS:
            raise LoopkitError(f"{path}: tensor {name} has no place in the model its metadata describes; supported are {FAMILIES}")
    for name, shape in wanted.items():
        if name not in tensors:
            raise LoopkitError(f"{path} lacks tensor {name}")
        found = tuple(int(size) for size in reversed(tensors[name].shape))
        if found != shape:
            raise LoopkitError(f"{path}: tensor {name} has shape {list(found)}, its metadata asks for {list(shape)}")


def _dequantize(path: Path, tensor: Any, dtype: str) -> np.ndarray:
    from gguf.quants import dequantize

    try:
        with np.errstate(all="ignore"):
            array = np.asarray(dequantize(tensor.data, tensor.tensor_type)).astype(DTYPES[dtype], copy=False)
    except NotImplementedError:
        raise LoopkitError(f"{path}: tensor {tensor.name} has type {tensor.tensor_type.name}, which is not supported") from None
    except ValueError as error:
        raise LoopkitError(f"{path}: tensor {tensor.name} is corrupt ({_one_line(error)}); copy the file again") from error
    if not np.isfinite(array).all():
        raise LoopkitError(
            f"{path}: tensor {tensor.name} has values that are not finite in {dtype}; copy the file again or convert to float32"
        )
    return array


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
