"""The MLX interpreter: one loop over a plan.

Shapes: B batch, T length, S length with what the cache holds, D hidden, H query heads, G key-value heads, K head dim, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from loopkit.run import Rows, Run, Sublayer, by_row
from loopkit.spec import Spec
from loopkit_mlx.exponential import attend, sigmoid
from loopkit_mlx.memory import Weights, to_numpy

Rotary = tuple[mx.array, mx.array]
Kept = dict[str, list[np.ndarray]]


class View(NamedTuple):
    """What attention must know of the rows: where positions are (None: in order), and what each sees (None: all up to its own)."""

    rotary: Rotary | None = None
    mask: mx.array | None = None


class Slot(Protocol):
    """Keys and values of one visit, as mlx-lm's caches hold them; ``offset`` positions are filled."""

    offset: int

    def trim(self, n: int) -> int:
        """Forget the last ``n`` positions."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append ``[B, G, T, K]`` and return all there is, ``[B, G, S, K]``."""


def embed(weights: Weights, spec: Spec, ids_BT: mx.array) -> mx.array:
    """The stream before the first visit, ``[B, T, D]``."""
    rows = weights["model.embed_tokens.weight"][ids_BT]
    scales = weights.get("model.embed_tokens.scales")
    if scales is None:
        return rows
    biases = weights["model.embed_tokens.biases"][ids_BT]
    group_size, bits = packing(rows, scales, spec.hidden_size)
    return mx.dequantize(rows, scales[ids_BT], biases, group_size=group_size, bits=bits)


def unembed(weights: Weights, spec: Spec, x_BTD: mx.array) -> mx.array:
    """Final norm and head: logits float32 ``[B, T, V]``."""
    head = "model.embed_tokens" if spec.tie_word_embeddings else "lm_head"
    return linear(weights, head, mx.fast.rms_norm(x_BTD, weights["model.norm.weight"], spec.rms_norm_eps)).astype(mx.float32)


def view(spec: Spec, rows: Rows) -> View:
    """The view of rows that are whole from their beginning on."""
    seen = rows.seen()
    if seen is None:
        return View()
    angles = rows.places()[:, None, :, None] * spec.rope_frequencies()
    return View((mx.array(np.cos(angles, dtype=np.float32)), mx.array(np.sin(angles, dtype=np.float32))), mx.array(seen)[:, None])


def visits(
    weights: Weights,
    spec: Spec,
    x_BTD: mx.array,
    run: Run,
    rows: View,
    slots: Sequence[Slot] | None = None,
    kept: Kept | None = None,
) -> mx.array:
    """The stream after the visits of ``run``; with one slot a visit, as the continuation of what they hold.

    What the run captures is appended to ``kept``'s lists resid, attn and mlp.
    """
    start = slots[0].offset if slots else 0
    keep = _keeper(kept if run.capture else None)
    entry = x_BTD
    for visit, layer in enumerate(run.plan):
        x_BTD = _placed(x_BTD, run, visit)
        entry = x_BTD if any(span.start == visit for span in run.blend) else entry
        keep("resid", x_BTD)
        slot = slots[visit] if slots else None
        if slot is not None:
            slot.trim(slot.offset - start)  # an earlier visit that shares the slot has written these positions already
        x_BTD = x_BTD + keep(
            "attn", _changed(attention(weights, spec, layer, x_BTD, slot, rows.mask, rows.rotary), run, visit, "attention")
        )
        x_BTD = x_BTD + keep("mlp", _changed(mlp(weights, spec, layer, x_BTD), run, visit, "mlp"))
        for span in run.blend:
            x_BTD = entry + span.weight * (x_BTD - entry) if span.stop == visit + 1 else x_BTD
    return keep("resid", _placed(x_BTD, run, len(run.plan)))


def visit_at(weights: Weights, spec: Spec, x_BTD: mx.array, run: Run, rows: View, places: np.ndarray) -> mx.array:
    """The stream after a run's only visit, at flat positions alone (in order): ``[N, D]``."""
    (layer,) = run.plan
    row, column, columns = by_row(places, x_BTD.shape[:2])
    columns_BW = mx.array(columns)
    causal = mx.arange(x_BTD.shape[1]) <= columns_BW[..., None]
    mask = causal if rows.mask is None else mx.take_along_axis(rows.mask[:, 0], columns_BW[..., None], 1)
    added = attention(weights, spec, layer, x_BTD, None, mask[:, None], rows.rotary, columns_BW)
    x_BWD = mx.take_along_axis(x_BTD, columns_BW[..., None], 1) + _changed(added, run, 0, "attention")
    x_BWD = x_BWD + _changed(mlp(weights, spec, layer, x_BWD), run, 0, "mlp")
    return x_BWD[mx.array(row), mx.array(column)]


def attention(
    weights: Weights,
    spec: Spec,
    layer: int,
    x_BTD: mx.array,
    slot: Slot | None = None,
    mask: mx.array | None = None,
    rotary: Rotary | None = None,
    columns_BT: mx.array | None = None,
) -> mx.array:
    """What attention adds to the stream, causal over the slot's positions and these.

    ``mask``, bool ``[B, 1, T, S]``, says which keys a position sees; without it all up to its own. ``rotary`` says where positions
    are that do not follow each other. ``columns_BT`` asks for these positions only, with a mask for them.
    """
    at = f"model.layers.{layer}.self_attn."
    x_BTD = mx.fast.rms_norm(x_BTD, weights[f"model.layers.{layer}.input_layernorm.weight"], spec.rms_norm_eps)
    q_BHTK = heads(weights, spec, at + "q", x_BTD)
    k_BGTK = heads(weights, spec, at + "k", x_BTD)
    v_BGTK = _split_heads(spec, linear(weights, at + "v_proj", x_BTD))
    start = slot.offset if slot else 0
    q_BHTK, k_BGTK = (rotate(spec, each, start) if rotary is None else rotate_by(each, *rotary) for each in (q_BHTK, k_BGTK))
    k_BGSK, v_BGSK = slot.update_and_fetch(k_BGTK, v_BGTK) if slot else (k_BGTK, v_BGTK)
    if columns_BT is not None:
        q_BHTK = mx.take_along_axis(q_BHTK, columns_BT[:, None, :, None], 2)
    out = attend(q_BHTK, k_BGSK, v_BGSK, mask, picked=columns_BT is not None)
    return linear(weights, at + "o_proj", out.swapaxes(1, 2).flatten(2))


def heads(weights: Weights, spec: Spec, name: str, x_BTD: mx.array) -> mx.array:
    """Queries or keys, normed where the family does that, ``[B, H or G, T, K]``."""
    split = _split_heads(spec, linear(weights, name + "_proj", x_BTD))
    return mx.fast.rms_norm(split, weights[name + "_norm.weight"], spec.rms_norm_eps) if spec.qk_norm else split


def mlp(weights: Weights, spec: Spec, layer: int, x_BTD: mx.array) -> mx.array:
    """What the SwiGLU MLP adds to the stream."""
    at = f"model.layers.{layer}."
    x_BTD = mx.fast.rms_norm(x_BTD, weights[at + "post_attention_layernorm.weight"], spec.rms_norm_eps)
    gate = linear(weights, at + "mlp.gate_proj", x_BTD)
    return linear(weights, at + "mlp.down_proj", gate * sigmoid(gate) * linear(weights, at + "mlp.up_proj", x_BTD))


def rotate(spec: Spec, x_BHTK: mx.array, start: int) -> mx.array:
    """Rotary positions from ``start`` on, halves paired."""
    return mx.fast.rope(x_BHTK, spec.head_dim, traditional=False, base=None, scale=1.0, offset=start, freqs=_periods(spec))


def rotate_by(x_BHTK: mx.array, cos_BTK: mx.array, sin_BTK: mx.array) -> mx.array:
    """Rotary positions by the cosines and sines of each position, ``[B, 1, T, K / 2]``."""
    low, high = mx.split(x_BHTK.astype(mx.float32), 2, -1)
    turned = mx.concatenate([low * cos_BTK - high * sin_BTK, high * cos_BTK + low * sin_BTK], -1)
    return turned.astype(x_BHTK.dtype)


def linear(weights: Weights, name: str, x: mx.array) -> mx.array:
    """``x @ weight.T + bias``, the weight packed or not."""
    weight, scales, bias = weights[name + ".weight"], weights.get(name + ".scales"), weights.get(name + ".bias")
    if scales is not None:
        group_size, bits = packing(weight, scales, x.shape[-1])
        y = mx.quantized_matmul(x, weight, scales, weights[name + ".biases"], group_size=group_size, bits=bits)
        return y if bias is None else y + bias
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


def packing(weight: mx.array, scales: mx.array, width: int) -> tuple[int, int]:
    """Group size and bits of a packed matrix with rows of ``width`` numbers: its shapes say both."""
    return width // scales.shape[-1], 32 * weight.shape[-1] // width


@lru_cache(maxsize=16)
def _periods(spec: Spec) -> mx.array:
    """Positions a radian, one for each pair of dimensions, ``[K / 2]``; from numpy, so any thread may use it."""
    return mx.array(1.0 / spec.rope_frequencies())


def _split_heads(spec: Spec, x_BTD: mx.array) -> mx.array:
    return mx.unflatten(x_BTD, -1, (-1, spec.head_dim)).swapaxes(1, 2)


def _placed(x_BTD: mx.array, run: Run, visit: int) -> mx.array:
    """The stream that enters a visit, or what the run puts in its place."""
    return mx.broadcast_to(_like(run.overwrite[visit], x_BTD), x_BTD.shape) if visit in run.overwrite else x_BTD


def _changed(x_BTD: mx.array, run: Run, visit: int, sublayer: Sublayer) -> mx.array:
    """What a sublayer added, after the run's gate and scale."""
    gate, scale = run.gate.get((visit, sublayer)), run.scale.get(visit)
    x_BTD = x_BTD if gate is None else x_BTD * _like(np.asarray(gate), x_BTD)[..., :, None]
    return x_BTD if scale is None else x_BTD * scale


def _keeper(kept: Kept | None) -> Callable[[str, mx.array], mx.array]:
    """Passes arrays through and appends float32 copies of them to ``kept``, if there is one."""

    def keep(name: str, x_BTD: mx.array) -> mx.array:
        if kept is not None:
            kept[name].append(to_numpy(x_BTD.astype(mx.float32)))
        return x_BTD

    return keep


def _like(array: np.ndarray, x: mx.array) -> mx.array:
    return mx.array(np.asarray(array, dtype=np.float32)).astype(x.dtype)
