"""Settings of the optimizer, as both backends read them."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from loopkit.errors import UsageError

Kind = Literal["adamw", "muon"]
MOMENTUM = 0.95  # Muon's
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x**3 and x**5: singular values go to about 1 in ``ITERATIONS``
ITERATIONS = 5


@dataclass(frozen=True)
class Optimizer:
    """AdamW with bias correction and decoupled weight decay on matrices alone (Loshchilov & Hutter 2019), after clipping.

    With ``kind`` muon the hidden matrices go by Muon instead (Jordan et al. 2024): Nesterov momentum, then orthogonalised by a
    Newton-Schulz iteration in float32, each projection on its own. The update is scaled by 0.2 * sqrt(max(rows, columns)), which
    gives it AdamW's usual size (Liu et al. 2025, Moonlight), so that both share rate and weight decay. The momentum is kept as
    the first moment, and the second stays 0.

    Defaults are SmolLM's. ``clip`` bounds the global norm of the gradient; 0 leaves it alone. Raises UsageError at another kind, and
    at numbers out of range.
    """

    kind: Kind = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f"no optimizer {self.kind!r}; optimizers are {', '.join(get_args(Kind))}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"optimizer.{name} must be from 0 to below 1, got {getattr(self, name)}")
        for name in ("eps", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"optimizer.{name} must be 0 or more, got {getattr(self, name)}")

    def by_muon(self, name: str, dimensions: int) -> bool:
        """Whether Muon updates this parameter: embeddings, head, norms and biases are AdamW's always."""
        return self.kind == "muon" and dimensions == 2 and name.startswith("model.layers.")


def muon_scale(rows: int, columns: int) -> float:
    """What an orthogonalised matrix is multiplied by to be as large as AdamW's updates (Liu et al. 2025, Moonlight, eq. 4)."""
    return 0.2 * math.sqrt(max(rows, columns))
