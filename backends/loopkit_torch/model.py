"""The torch interpreter: one loop over a plan.

Shapes: B batch, T length, S keys, D hidden, H query heads, G key-value heads, K head dim, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loopkit.run import Rows, Run, Sublayer, by_row
from loopkit.spec import Spec
from loopkit_torch.memory import Weights

Kept = dict[str, list[np.ndarray]]
Pair = tuple[Tensor, Tensor]
Visit = Callable[[Tensor, "Layer", Spec, Pair, Pair], Tensor]  # stream, weights, sizes, rotary tables, keys and values up to its row
_FEW_ROWS = 64  # below this oneDNN's product is up to twice as fast as MKL's on a CPU, above it MKL's is (docs/speed)


class Layer(NamedTuple):
    """One layer's weights."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class View(NamedTuple):
    """What attention must know of the rows: the rotary tables of their places, and what each position sees (None: all up to its own)."""

    rotary: tuple[Tensor, Tensor]
    mask: Tensor | None = None


@dataclass
class Cache:
    """Keys and values by slot, ``[slots, B, G, capacity, K]`` each, the slot of each visit, and how many positions are filled."""

    keys: Tensor
    values: Tensor
    slots: tuple[int, ...]
    length: int = 0

    def slot(self, visit: int, total: int) -> Pair:
        """Keys and values of the first ``total`` positions, which a visit reads and whose last ones it writes."""
        slot = self.slots[visit]
        return self.keys[slot, :, :, :total], self.values[slot, :, :, :total]


def new_cache(weights: Weights, spec: Spec, slots: tuple[int, ...], batch: int, capacity: int) -> Cache:
    """An empty cache; ``slots`` gives the slot of each visit."""
    like = weights["model.norm.weight"]
    shape = (max(slots) + 1, batch, spec.num_key_value_heads, capacity, spec.head_dim)
    return Cache(like.new_empty(shape), like.new_empty(shape), slots)


def layer_weights(weights: Weights, layer: int) -> Layer:
    """The weights of one layer, by position."""
    at = f"model.layers.{layer}."
    return Layer(
        weights[at + "input_layernorm.weight"],
        weights[at + "self_attn.qkv_proj.weight"],
        weights.get(at + "self_attn.qkv_proj.bias"),
        weights.get(at + "self_attn.q_norm.weight"),
        weights.get(at + "self_attn.k_norm.weight"),
        weights[at + "self_attn.o_proj.weight"],
        weights.get(at + "self_attn.o_proj.bias"),
        weights[at + "post_attention_layernorm.weight"],
        weights[at + "mlp.gate_up_proj.weight"],
        weights[at + "mlp.down_proj.weight"],
    )


def embed(weights: Weights, ids_BT: Tensor) -> Tensor:
    """The stream before the first visit, ``[B, T, D]``."""
    return F.embedding(ids_BT, weights["model.embed_tokens.weight"])


def unembed(weights: Weights, spec: Spec, x_BTD: Tensor) -> Tensor:
    """Final norm and head: logits float32 ``[B, T, V]``."""
    x_BTD = norm(x_BTD, weights["model.norm.weight"], spec.rms_norm_eps)
    return linear(x_BTD, weights.get("lm_head.weight", weights["model.embed_tokens.weight"])).float()


def view(spec: Spec, rows: Rows, like: Tensor) -> View:
    """The view of rows that are whole from their beginning on."""
    seen, length = rows.seen(), rows.ids.shape[1]
    rotary = rotary_tables(spec, 0, length, like.device, like.dtype)
    if seen is None:
        return View(rotary)
    places = torch.from_numpy(rows.places()).to(like.device)
    return View((rotary[0][places], rotary[1][places]), torch.from_numpy(seen).to(like.device)[:, None])


def visits(
    weights: Weights,
    spec: Spec,
    x_BTD: Tensor,
    run: Run,
    rows: View,
    cache: Cache | None = None,
    kept: Kept | None = None,
    one_row: Visit | None = None,
) -> Tensor:
    """The stream after the visits of ``run``; with a cache, as the continuation of what it holds.

    What the run captures is appended to ``kept``'s lists resid, attn and mlp. ``one_row`` does the visits that the run leaves as
    they are.
    """
    keep = _keeper(kept if run.capture else None)
    entry = x_BTD
    for visit, layer in enumerate(run.plan):
        w = layer_weights(weights, layer)
        x_BTD = _placed(x_BTD, run, visit)
        entry = x_BTD if any(span.start == visit for span in run.blend) else entry
        keep("resid", x_BTD)
        slot = cache.slot(visit, cache.length + x_BTD.shape[1]) if cache else None
        if one_row and slot and not (run.gate or run.capture or visit in run.scale):
            x_BTD = one_row(x_BTD, w, spec, rows.rotary, slot)
        else:
            added = attention(x_BTD, w, spec, rows.rotary, slot, rows.mask)
            x_BTD = x_BTD + keep("attn", _changed(added, run, visit, "attention"))
            x_BTD = x_BTD + keep("mlp", _changed(mlp(x_BTD, w, spec), run, visit, "mlp"))
        for span in run.blend:
            x_BTD = torch.lerp(entry, x_BTD, span.weight) if span.stop == visit + 1 else x_BTD
    x_BTD = keep("resid", _placed(x_BTD, run, len(run.plan)))
    if cache:
        cache.length += x_BTD.shape[1]
    return x_BTD


def visit_at(weights: Weights, spec: Spec, x_BTD: Tensor, run: Run, rows: View, places: np.ndarray) -> Tensor:
    """The stream after a run's only visit, at flat positions alone (in order): ``[N, D]``."""
    row, column, columns = by_row(places, x_BTD.shape[:2])
    columns_BW = torch.from_numpy(columns).to(x_BTD.device)
    at = columns_BW[..., None].expand(-1, -1, x_BTD.shape[1])
    mask = torch.arange(x_BTD.shape[1], device=at.device) <= at if rows.mask is None else rows.mask[:, 0].gather(1, at)
    w = layer_weights(weights, run.plan[0])
    x_BWD = x_BTD.take_along_dim(columns_BW[..., None], 1)
    added = attention(x_BTD, w, spec, rows.rotary, mask=mask[:, None], columns_BT=columns_BW)
    x_BWD = x_BWD + _changed(added, run, 0, "attention")
    x_BWD = x_BWD + _changed(mlp(x_BWD, w, spec), run, 0, "mlp")
    return x_BWD[torch.from_numpy(row), torch.from_numpy(column)]


def attention(
    x_BTD: Tensor,
    w: Layer,
    spec: Spec,
    rotary: Pair,
    slot: Pair | None = None,
    mask: Tensor | None = None,
    columns_BT: Tensor | None = None,
) -> Tensor:
    """What attention adds to the stream. New keys and values become the last positions of ``slot``, and all of it is attended to.

    ``mask``, bool ``[B, 1, T, S]``, says which keys a position sees; without it all up to its own. ``columns_BT`` asks for these
    positions only, with a mask for them.
    """
    batch, length, _ = x_BTD.shape
    heads, groups = spec.num_attention_heads, spec.num_key_value_heads
    qkv = linear(norm(x_BTD, w.attention_norm, spec.rms_norm_eps), w.qkv, w.qkv_bias)
    qkv = qkv.view(batch, length, heads + 2 * groups, spec.head_dim)
    if w.q_norm is not None and w.k_norm is not None:
        q, k, v = qkv.split([heads, groups, groups], 2)
        qk = torch.cat([norm(q, w.q_norm, spec.rms_norm_eps), norm(k, w.k_norm, spec.rms_norm_eps)], 2)
    else:
        qk, v = qkv.split([heads + groups, groups], 2)
    q_BHTK, k_BGTK = rotate(qk, *rotary).transpose(1, 2).split([heads, groups], 1)
    v_BGTK = v.transpose(1, 2)
    if slot is not None:
        keys, values = slot
        keys[:, :, -length:] = k_BGTK
        values[:, :, -length:] = v_BGTK
        k_BGTK, v_BGTK = keys, values
    if columns_BT is not None:
        q_BHTK = q_BHTK.take_along_dim(columns_BT[:, None, :, None], 2)
    out = attend(q_BHTK, k_BGTK, v_BGTK, mask)
    return linear(out.transpose(1, 2).reshape(batch, -1, heads * spec.head_dim), w.output, w.output_bias)


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of the last T of S positions, causal unless ``mask`` says what is seen."""
    length, total = q_BHTK.shape[2], k_BGSK.shape[2]
    if _fusing(q_BHTK) and length == 1 and mask is None:
        scores_BGRS = (q_BHTK.unflatten(1, (k_BGSK.shape[1], -1)) * k_BGSK[:, :, None]).sum(-1) * q_BHTK.shape[-1] ** -0.5
        return (scores_BGRS.softmax(-1)[..., None] * v_BGSK[:, :, None]).sum(-2).flatten(1, 2)[:, :, None]
    if mask is None and 1 < length < total:
        mask = torch.ones(length, total, dtype=torch.bool, device=q_BHTK.device).tril(total - length)
    causal = length > 1 and mask is None
    return F.scaled_dot_product_attention(q_BHTK, k_BGSK, v_BGSK, mask, is_causal=causal, enable_gqa=True)


def mlp(x_BTD: Tensor, w: Layer, spec: Spec) -> Tensor:
    """What the SwiGLU MLP adds to the stream."""
    gate, up = linear(norm(x_BTD, w.mlp_norm, spec.rms_norm_eps), w.gate_up).chunk(2, -1)
    return linear(F.silu(gate) * up, w.down)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension."""
    return F.rms_norm(x, weight.shape, weight, eps)


def rotate(x_BTHK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Rotary positions, halves paired; the sign of the rotation lies in ``sin``."""
    return torch.addcmul(x_BTHK * cos_TK, x_BTHK.roll(x_BTHK.shape[-1] // 2, -1), sin_TK)


def rotary_tables(spec: Spec, start: int, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine for positions ``start`` on, ``[T, 1, K]``."""
    cos, sin = _all_rotary(spec, 256 * ((start + length + 255) // 256), device, dtype)
    return cos[start : start + length], sin[start : start + length]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must do for training too
def _all_rotary(spec: Spec, length: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angles = torch.arange(length, dtype=torch.float32)[:, None] * torch.from_numpy(spec.rope_frequencies())
    cos, sin = angles.cos(), angles.sin()
    tables = torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]
    return tables[0].to(device, dtype), tables[1].to(device, dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``."""
    if _fusing(x) and x.numel() == x.shape[-1]:
        product = (x[..., None, :] * weight).sum(-1)
        return product if bias is None else product + bias
    few = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() < _FEW_ROWS * x.shape[-1]
    if few and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return F.linear(x, weight, bias)


def _fusing(x: Tensor) -> bool:
    """Whether a compiler for the CPU is at work, without gradients: it makes one loop nest of what is written as multiply and sum."""
    return torch.compiler.is_compiling() and not torch.is_grad_enabled() and x.device.type == "cpu"


def _placed(x_BTD: Tensor, run: Run, visit: int) -> Tensor:
    """The stream that enters a visit, or what the run puts in its place."""
    return _like(run.overwrite[visit], x_BTD).expand_as(x_BTD) if visit in run.overwrite else x_BTD


def _changed(x_BTD: Tensor, run: Run, visit: int, sublayer: Sublayer) -> Tensor:
    """What a sublayer added, after the run's gate and scale."""
    gate, scale = run.gate.get((visit, sublayer)), run.scale.get(visit)
    x_BTD = x_BTD if gate is None else x_BTD * _like(np.asarray(gate), x_BTD)[..., :, None]
    return x_BTD if scale is None else x_BTD * scale


def _keeper(kept: Kept | None) -> Callable[[str, Tensor], Tensor]:
    """Passes tensors through and appends float32 copies of them to ``kept``, if there is one."""

    def keep(name: str, x_BTD: Tensor) -> Tensor:
        if kept is not None:
            kept[name].append(x_BTD.float().cpu().numpy())
        return x_BTD

    return keep


def _like(array: np.ndarray, x: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(x.device, x.dtype)
