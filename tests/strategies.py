"""What Hypothesis draws, small models of every family with their layouts and plans, and random weights for them."""

import numpy as np
from hypothesis import strategies as st

from loopkit.plan import Plan, format_layout, repeat, skip, swap, truncate
from loopkit.spec import RopeScaling, Spec

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 0.15}  # of logits around 1, whatever computes them
MAX_VISITS = 10
SCALINGS = (
    None,
    RopeScaling("linear", 4.0),
    RopeScaling("llama3", 8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64),
)


@st.composite
def layouts(draw: st.DrawFn, max_layers: int = 6) -> str:
    """Layouts of one to ``max_layers`` unique layers, looped or not."""
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).filter(lambda parts: sum(parts) <= max_layers))
    parts = [(length, draw(st.integers(1, 3))) for length in lengths]
    plan: Plan = ()
    for length, times in parts:
        first = max(plan, default=-1) + 1
        plan += tuple(range(first, first + length)) * times
    return format_layout(plan if len(plan) <= MAX_VISITS else tuple(range(sum(lengths))))


@st.composite
def specs(draw: st.DrawFn, layout: st.SearchStrategy[str] | None = None) -> Spec:
    """Small models: MHA, GQA and MQA, heads wider than the stream, biases, qk-norm, every rope, tied or not."""
    groups, ratio = draw(st.sampled_from([(4, 1), (2, 2), (1, 4), (2, 1), (1, 3)]))
    bias, qk_norm = draw(st.sampled_from([("none", False), ("qkvo", False), ("qkv", False), ("none", True), ("qkvo", True)]))
    return Spec(
        hidden_size=draw(st.sampled_from([36, 48, 60])),  # transformers' Llama wants a multiple of the heads
        intermediate_size=draw(st.sampled_from([48, 96])),
        num_attention_heads=groups * ratio,
        num_key_value_heads=groups,
        head_dim=draw(st.sampled_from([8, 16, 24])),
        vocab_size=draw(st.integers(97, 200)),
        layout=draw(layout or layouts()),
        rms_norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        rope_theta=draw(st.sampled_from([1e4, 1e5])),
        rope_scaling=draw(st.sampled_from(SCALINGS)),
        tie_word_embeddings=draw(st.booleans()),
        attention_bias=bias,
        qk_norm=qk_norm,
        max_position_embeddings=128,
    )


@st.composite
def plans(draw: st.DrawFn, base: Plan) -> Plan:
    """``base`` after one to three edits, or any order at all of its layers; layers may be left out."""
    if draw(st.booleans()):
        return tuple(draw(st.lists(st.sampled_from(sorted(set(base))), min_size=1, max_size=MAX_VISITS)))
    plan = base
    for _ in range(draw(st.integers(1, 3))):
        plan = draw(_edited(plan))
    return plan[:MAX_VISITS]


@st.composite
def repeat_texts(draw: st.DrawFn, base: Plan) -> str:
    """One or two blocks of ``base``, each run one to three times."""
    cuts = sorted(draw(st.sets(st.integers(0, len(base)), min_size=2, max_size=4)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    return ",".join(f"{start}:{stop}x{draw(st.integers(1, 3))}" for start, stop in spans)


@st.composite
def _edited(draw: st.DrawFn, plan: Plan) -> Plan:
    start = draw(st.integers(0, len(plan) - 1))
    stop = draw(st.integers(start + 1, len(plan)))
    edits = [repeat(plan, start, stop, draw(st.integers(1, 3))), truncate(plan, stop)]
    if stop - start < len(plan):
        edits.append(skip(plan, start, stop))
    if start + 2 <= len(plan):
        edits.append(swap(plan, start))
    return draw(st.sampled_from(edits))


def random_arrays(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights float32 of a size that keeps the stream near 1 and logits apart."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in spec.shapes().items():
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("norm.weight"):
            arrays[name] = 1 + np.float32(0.1) * values
        else:
            arrays[name] = values / np.float32(np.sqrt(shape[-1])) if len(shape) == 2 else np.float32(0.1) * values
    return arrays


def random_ids(spec: Spec, batch: int = 2, length: int = 11, seed: int = 0) -> np.ndarray:
    """Token ids ``[B, T]``."""
    return np.random.default_rng(seed).integers(0, spec.vocab_size, (batch, length))


def unrolled(spec: Spec, arrays: dict[str, np.ndarray], plan: Plan) -> tuple[Spec, dict[str, np.ndarray]]:
    """The plain model with a layer of its own for each visit of ``plan``."""
    deep = spec.with_layout(tuple(range(len(plan))))
    copied = {name: array for name, array in arrays.items() if ".layers." not in name}
    for visit, layer in enumerate(plan):
        for name in spec.layer_shapes():
            copied[f"model.layers.{visit}.{name}"] = arrays[f"model.layers.{layer}.{name}"]
    return deep, copied
