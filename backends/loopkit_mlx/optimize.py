"""AdamW and Muon in MLX, as a function from old weights and moments to new ones.

Shapes: N matrices of R rows and C columns.
"""

import math

import mlx.core as mx

from loopkit.optimizer import ITERATIONS, MOMENTUM, NEWTON_SCHULZ, Optimizer, muon_scale
from loopkit_mlx.memory import Weights

Parts = dict[str, Weights]  # weights, first and second moments
Scalars = tuple[mx.array, ...]


def update(settings: Optimizer, parts: Parts, gradients: Weights, scalars: Scalars) -> tuple[Parts, mx.array]:
    """New weights and moments, and the gradient's norm before clipping; the order of operations is that of torch's fused AdamW."""
    norm = mx.sqrt(sum((g.square().sum() for g in gradients.values()), mx.array(0.0)))
    scale = mx.minimum((settings.clip or math.inf) / (norm + 1e-6), 1.0)
    gradients = {name: gradient * scale for name, gradient in gradients.items()}
    matrices = {name: g for name, g in gradients.items() if settings.by_muon(name, g.ndim)}
    new = {name: _adam(settings, _of(parts, name), g, scalars) for name, g in gradients.items() if name not in matrices}
    for names in _by_shape(matrices):
        new |= _muon({name: _of(parts, name) for name in names}, [matrices[name] for name in names], scalars)
    return {part: {name: new[name][i] for name in gradients} for i, part in enumerate(parts)}, norm


def scalars(settings: Optimizer, rate: float, updates: int) -> Scalars:
    """What of the update depends on rate and step: the weights' decay, the rate, AdamW's step, and the root of its second correction."""
    step_size = rate / (1 - settings.beta1**updates)
    root = math.sqrt(1 - settings.beta2**updates)
    return tuple(mx.array(each) for each in (1 - rate * settings.weight_decay, rate, step_size, root))


def _adam(settings: Optimizer, old: list[mx.array], g: mx.array, scalars: Scalars) -> list[mx.array]:
    (w, first, second), (decay, _, step_size, root) = old, scalars
    first = first + (1 - settings.beta1) * (g - first)
    second = settings.beta2 * second + (1 - settings.beta2) * g * g
    w = w * decay if w.ndim > 1 else w
    return [w - step_size * first / (mx.sqrt(second) / root + settings.eps), first, second]


def _muon(old: dict[str, list[mx.array]], gradients: list[mx.array], scalars: Scalars) -> dict[str, list[mx.array]]:
    """Matrices of one shape, whose products go together."""
    decay, rate, *_ = scalars
    momenta = [m + (1 - MOMENTUM) * (g - m) for (_, m, _), g in zip(old.values(), gradients, strict=True)]
    nesterov = [g + MOMENTUM * (m - g) for m, g in zip(momenta, gradients, strict=True)]
    updates = orthogonalized(mx.stack(nesterov)) * (rate * muon_scale(*gradients[0].shape))
    return {name: [w * decay - u, m, second] for (name, (w, _, second)), m, u in zip(old.items(), momenta, updates, strict=True)}


def orthogonalized(x_NRC: mx.array) -> mx.array:
    """Each matrix with its singular values brought to about 1 (Jordan et al. 2024, Muon)."""
    if x_NRC.shape[1] > x_NRC.shape[2]:
        return orthogonalized(x_NRC.swapaxes(1, 2)).swapaxes(1, 2)
    a, b, c = NEWTON_SCHULZ
    x_NRC = x_NRC / (mx.linalg.norm(x_NRC, axis=(1, 2), keepdims=True) + 1e-12)
    for _ in range(ITERATIONS):
        gram_NRR = x_NRC @ x_NRC.swapaxes(1, 2)
        x_NRC = a * x_NRC + (b * gram_NRR + c * gram_NRR @ gram_NRR) @ x_NRC
    return x_NRC


def _of(parts: Parts, name: str) -> list[mx.array]:
    return [arrays[name] for arrays in parts.values()]


def _by_shape(matrices: Weights) -> list[list[str]]:
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, matrix in matrices.items():
        groups.setdefault(matrix.shape, []).append(name)
    return list(groups.values())
