"""Settings of the optimizer, as both backends read them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdamW:
    """AdamW with bias correction and decoupled weight decay on matrices alone (Loshchilov & Hutter 2019), after clipping.

    Defaults are SmolLM's. ``clip`` bounds the global norm of the gradient; 0 leaves it alone.
    """

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
