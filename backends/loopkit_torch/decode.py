"""Decoding on a CPU near the rate of its memory: one row through one visit as a single compiled loop nest.

Eager, a visit's four products wait for small operations and each other's threads. Compiled, products are multiply-and-sum loops in one
parallel region with all that lies between them (docs/speed).
"""

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from loopkit.spec import Spec
from loopkit_torch import compiling, model

_PAYS_AFTER = 500  # tokens: compiling takes 3 to 11 s, and each token of SmolLM2-135M then saves 0.012 s


class Decoder:
    """What runs the visits of one row after another: the eager form for ``eager_tokens`` tokens, then compiled code where that works."""

    def __init__(self, eager_tokens: float) -> None:
        self.eager_tokens = eager_tokens

    def next_token(self) -> model.Visit | None:
        """What runs the visits of one more token, whose cache is not empty; None for the eager form."""
        if self.eager_tokens > 0:
            self.eager_tokens -= 1
            return None
        return self._visit

    def _visit(self, x_BTD: Tensor, w: model.Layer, spec: Spec, rotary: model.Pair, slot: model.Pair) -> Tensor:
        if self.eager_tokens > 0:  # compiling failed at an earlier visit of this token
            return _plain_visit(x_BTD, w, spec, rotary, slot)
        from torch._dynamo import mark_dynamic  # a second of imports

        for part_BGSK in slot:
            mark_dynamic(part_BGSK, 2)
        try:
            return _compiled()(x_BTD, w, spec, rotary, slot)
        except compiling.failures() as error:
            self.eager_tokens = float("inf")
            warnings.warn(f"decoding stays eager, which is slower: compiling failed ({compiling.reason(error)})", stacklevel=2)
            return _plain_visit(x_BTD, w, spec, rotary, slot)


@lru_cache(maxsize=32)
def decoder(spec: Spec, device: torch.device, dtype: torch.dtype) -> Decoder:
    """This process's decoder for models of one spec, compiling only where one row is bound by a CPU's float32."""
    return Decoder(_PAYS_AFTER) if device.type == "cpu" and dtype == torch.float32 else Decoder(float("inf"))


@lru_cache(maxsize=1)
def _compiled() -> model.Visit:
    return torch.compile(_plain_visit, fullgraph=True, dynamic=False)


def _plain_visit(x_BTD: Tensor, w: model.Layer, spec: Spec, rotary: model.Pair, slot: model.Pair) -> Tensor:
    x_BTD = x_BTD + model.attention(x_BTD, w, spec, rotary, slot)
    return x_BTD + model.mlp(x_BTD, w, spec)
