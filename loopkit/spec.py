"""Spec: everything that decides a model's shape, as one frozen value that both backends and Hugging Face's config agree on.

Field names are those of Hugging Face's Llama config. A parameter's name, shape and orientation are the same on disk, in torch
and in MLX.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from loopkit.errors import LoopkitError, UsageError
from loopkit.plan import Plan, format_layout, n_layers, parse_layout

Bias = Literal["none", "qkv", "qkvo"]
LOOPED = "loopkit_"  # model types of looped checkpoints: loopkit_llama, loopkit_qwen2, loopkit_qwen3
FAMILIES = "Llama (SmolLM, SmolLM2, Llama 3, TinyLlama), Mistral without a sliding window, Qwen2, Qwen3"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched: ``linear`` divides them all, ``llama3`` only the slow ones (Llama 3.1 report)."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True)
class Spec:
    """A decoder-only transformer of the Llama kind: pre-RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    ``layout`` says how many unique layers there are and in which order they run (``loopkit.plan``). ``attention_bias`` is
    ``qkv`` in Qwen2, ``qkvo`` in Llama with biases; ``qk_norm`` is the per-head RMSNorm of Qwen3.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    layout: str
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = True
    attention_bias: Bias = "none"
    qk_norm: bool = False
    max_position_embeddings: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", format_layout(parse_layout(self.layout)))
        for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UsageError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads ({self.num_key_value_heads})"
            )
        if self.head_dim % 2:
            raise UsageError(f"head_dim must be even for rotary positions, got {self.head_dim}")
        if self.qk_norm and self.attention_bias == "qkv":
            raise UsageError("qk_norm goes with attention_bias 'none' or 'qkvo' (Qwen3), not 'qkv' (Qwen2)")

    @cached_property
    def plan(self) -> Plan:
        """The order in which the layers run."""
        return parse_layout(self.layout)

    @property
    def n_layers(self) -> int:
        """Number of unique layers."""
        return n_layers(self.plan)

    @property
    def looped(self) -> bool:
        """Whether the layout runs the layers other than once each in order."""
        return self.plan != tuple(range(self.n_layers))

    @property
    def family(self) -> str:
        """The Hugging Face family with this architecture: llama, qwen2 or qwen3."""
        if self.qk_norm:
            return "qwen3"
        return "qwen2" if self.attention_bias == "qkv" else "llama"

    def with_layout(self, layout: str | Plan) -> "Spec":
        """The same sizes in another depth."""
        return replace(self, layout=layout if isinstance(layout, str) else format_layout(layout))

    def rope_frequencies(self) -> np.ndarray:
        """Rotary angle a position, radians, one for each pair of dimensions: float32 ``[head_dim / 2]``."""
        exponent = np.arange(0, self.head_dim, 2, dtype=np.float32) / np.float32(self.head_dim)
        frequencies = (1.0 / np.float32(self.rope_theta) ** exponent).astype(np.float32)
        return _scaled(frequencies, self.rope_scaling)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name within a layer -> shape; linear weights are ``[out, in]``."""
        d, ffn, hd = self.hidden_size, self.intermediate_size, self.head_dim
        q, kv = self.num_attention_heads * hd, self.num_key_value_heads * hd
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (d,),
            "self_attn.q_proj.weight": (q, d),
            "self_attn.k_proj.weight": (kv, d),
            "self_attn.v_proj.weight": (kv, d),
            "self_attn.o_proj.weight": (d, q),
            "post_attention_layernorm.weight": (d,),
            "mlp.gate_proj.weight": (ffn, d),
            "mlp.up_proj.weight": (ffn, d),
            "mlp.down_proj.weight": (d, ffn),
        }
        if self.attention_bias != "none":
            shapes |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
        if self.attention_bias == "qkvo":
            shapes["self_attn.o_proj.bias"] = (d,)
        if self.qk_norm:
            shapes |= {"self_attn.q_norm.weight": (hd,), "self_attn.k_norm.weight": (hd,)}
        return shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name -> shape of the whole model, Hugging Face's names."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        for layer in range(self.n_layers):
            shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in self.layer_shapes().items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes

    def to_config(self, dtype: str = "float32") -> dict[str, Any]:
        """Hugging Face's config.json. Rope is written in all three spellings, since each reader knows only some of them.

        A looped layout gets a model type of its own, so that no tool loads it as its unlooped self; its
        ``num_hidden_layers`` counts visits, as caches need it.
        """
        rope = {"rope_type": "default"} if self.rope_scaling is None else _rope_scaling_to_config(self.rope_scaling)
        config: dict[str, Any] = {
            "architectures": [_ARCHITECTURES[self.family]],
            "model_type": self.family,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": len(self.plan),
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None if self.rope_scaling is None else rope,
            "rope_parameters": rope | {"rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias == "qkvo",
            "attention_dropout": 0.0,
            "torch_dtype": dtype,
            "dtype": dtype,
        }
        if self.family == "llama":
            config["mlp_bias"] = False
        else:
            config |= {"use_sliding_window": False, "sliding_window": None}
        if self.looped:
            name = _ARCHITECTURES[self.family].replace("ForCausalLM", "")
            config |= {
                "model_type": LOOPED + self.family,
                "architectures": [f"Looped{name}ForCausalLM"],
                "layout": self.layout,
                "n_unique_layers": self.n_layers,
                "auto_map": {
                    "AutoConfig": f"modeling_looped.Looped{name}Config",
                    "AutoModelForCausalLM": f"modeling_looped.Looped{name}ForCausalLM",
                },
                "model_file": "mlx_looped.py",
            }
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Spec":
        """The Spec of a Hugging Face config. Raises LoopkitError for an architecture this project does not run."""
        family = str(config.get("model_type"))
        looped = family.startswith(LOOPED)
        family = family.removeprefix(LOOPED)
        if family not in ("llama", "mistral", "qwen2", "qwen3"):
            raise LoopkitError(f"model type {config.get('model_type')!r} is not supported; supported are {FAMILIES}")
        _refuse_variants(family, config)
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            bias: Bias = "qkvo" if config.get("attention_bias", False) else "none"
            return cls(
                hidden_size=hidden,
                intermediate_size=int(config["intermediate_size"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                vocab_size=int(config["vocab_size"]),
                layout=str(config["layout"] if looped else config["num_hidden_layers"]),
                rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
                rope_theta=_rope_theta(config),
                rope_scaling=_rope_scaling_from_config(config),
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                attention_bias="qkv" if family == "qwen2" else bias,
                qk_norm=family == "qwen3",
                max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
            )
        except KeyError as missing:
            raise LoopkitError(f"config.json has no {missing}; is this a Hugging Face {family} folder?") from None


_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def _refuse_variants(family: str, config: Mapping[str, Any]) -> None:
    """Refuse what a family's config can ask for and this project does not compute."""
    window = config.get("sliding_window", 4096 if family == "mistral" else None)  # transformers' own default
    sliding = window and (family == "mistral" or config.get("use_sliding_window"))
    rope = config.get("rope_parameters") or {}
    unsupported = {
        f"hidden_act {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
        "mlp_bias": config.get("mlp_bias"),
        "a sliding window": sliding or "sliding_attention" in (config.get("layer_types") or ()),
        "partial rotary positions": (rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1) != 1,
        "quantized weights of another tool (quantization_config)": config.get("quantization_config") and not config.get("quantization"),
    }
    for what, asked in unsupported.items():
        if asked:
            raise LoopkitError(f"this {family} checkpoint uses {what}, which is not supported; supported are {FAMILIES}")


def _rope_theta(config: Mapping[str, Any]) -> float:
    inside = (config.get("rope_parameters") or {}).get("rope_theta")
    return float(inside or config.get("rope_theta") or 10000.0)


def _rope_scaling_from_config(config: Mapping[str, Any]) -> RopeScaling | None:
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", float(scaling["factor"]))
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            float(scaling["factor"]),
            float(scaling["low_freq_factor"]),
            float(scaling["high_freq_factor"]),
            int(scaling["original_max_position_embeddings"]),
        )
    raise LoopkitError(f"rope scaling {kind!r} is not supported; supported are none, linear and llama3")


def _rope_scaling_to_config(scaling: RopeScaling) -> dict[str, Any]:
    config: dict[str, Any] = {"rope_type": scaling.kind, "type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        config |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position_embeddings,
        }
    return config


def _scaled(frequencies: np.ndarray, scaling: RopeScaling | None) -> np.ndarray:
    """Llama 3's rule: wavelengths above original/low are stretched, below original/high kept, between them blended."""
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return (frequencies / np.float32(scaling.factor)).astype(np.float32)
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    kept = np.clip((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0, 1)
    return (frequencies * ((1 - kept) / scaling.factor + kept)).astype(np.float32)


def _smollm(layout: str, hidden: int, ffn: int, heads: int, kv: int) -> Spec:
    return Spec(hidden, ffn, heads, kv, head_dim=64, vocab_size=49152, layout=layout)


PRESETS: dict[str, Spec] = {
    "nano": Spec(96, 256, 3, 3, 32, 1024, "8"),
    "micro": Spec(192, 512, 6, 2, 32, 2048, "12"),
    "mini": Spec(384, 1024, 6, 2, 64, 8192, "16"),
    # SmolLM-v1, the paper's backbones
    "smollm-135m": _smollm("30", 576, 1536, 9, 3),
    "smollm-360m": _smollm("32", 960, 2560, 15, 5),
    "smollm-1.7b": _smollm("24", 2048, 8192, 32, 32),
}


def preset(name: str) -> Spec:
    """A named size. Raises UsageError that lists the names."""
    if name not in PRESETS:
        raise UsageError(f"no preset {name!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[name]
