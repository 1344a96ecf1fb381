"""AdamW and Muon in torch, on weights and moments in place.

Shapes: N matrices of R rows and C columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from loopkit.optimizer import ITERATIONS, MOMENTUM, NEWTON_SCHULZ, Optimizer, muon_scale
from loopkit.spec import Spec
from loopkit_torch.memory import Weights


class Update:
    """The step from gradients to new weights and moments.

    ``parts`` holds weights, first and second moments; ``leaves`` those of the weights that have gradients: matrices fused in
    memory, whose parts Muon takes one by one.
    """

    def __init__(self, settings: Optimizer, spec: Spec, parts: Mapping[str, Weights], leaves: Weights, updates: int) -> None:
        self.settings, self.parts, self.leaves = settings, parts, leaves
        adams = {name: leaf for name, leaf in leaves.items() if not settings.by_muon(name, leaf.ndim)}
        groups = [
            {"params": [t for t in adams.values() if t.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [t for t in adams.values() if t.ndim == 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True)
        for name, leaf in adams.items():
            moments = {"exp_avg": parts["first"][name], "exp_avg_sq": parts["second"][name]}
            self.adam.state[leaf] = {"step": torch.tensor(float(updates), device=leaf.device), **moments}
        self.matrices: dict[tuple[int, ...], list[str]] = {}
        for name, shape in spec.shapes().items():
            if settings.by_muon(name, len(shape)):
                self.matrices.setdefault(shape, []).append(name)

    @torch.no_grad()
    def __call__(self, rate: float) -> Tensor:
        """One update, after which the gradients are gone; their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.leaves.values(), self.settings.clip or float("inf"))
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        for names in self.matrices.values():
            self._muon(names, rate)
        for leaf in self.leaves.values():
            leaf.grad = None
        return norm

    def _muon(self, names: list[str], rate: float) -> None:
        """Matrices of one shape, whose products go together."""
        weights, momenta = ([self.parts[part][name] for name in names] for part in ("weights", "first"))
        gradients = [_gradient(w) for w in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = orthogonalized(torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM))).unbind()
        torch._foreach_mul_(weights, 1 - rate * self.settings.weight_decay)
        torch._foreach_add_(weights, updates, alpha=-rate * muon_scale(*weights[0].shape))


def orthogonalized(x_NRC: Tensor) -> Tensor:
    """Each matrix with its singular values brought to about 1 (Jordan et al. 2024, Muon)."""
    if x_NRC.shape[1] > x_NRC.shape[2]:
        return orthogonalized(x_NRC.mT).mT
    a, b, c = NEWTON_SCHULZ
    x_NRC = x_NRC / (x_NRC.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(ITERATIONS):
        gram_NRR = x_NRC @ x_NRC.mT
        x_NRC = a * x_NRC + (b * gram_NRR + c * gram_NRR @ gram_NRR) @ x_NRC
    return x_NRC


def _gradient(weight: Tensor) -> Tensor:
    """Of a leaf, or of the rows of one that a view shows."""
    leaf = weight if weight._base is None else weight._base
    assert leaf.grad is not None
    start = weight.storage_offset() // weight.shape[1]
    return leaf.grad[start : start + len(weight)]
