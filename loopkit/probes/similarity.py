"""How alike layers are in their weights and visits in their updates: the block structure of grown models (paper, appendix B)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from loopkit.errors import UsageError
from loopkit.probes.common import Array, order, prompts, traced, watched
from loopkit.probes.result import Chart, Grid, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model

CHUNK = 1 << 18  # weights of a layer that are read at a time
FLOOR = 1e-12


@dataclass(frozen=True, eq=False)
class BlockSimilarity(Result):
    """Cosines. ``weights [layers, layers]``: of blocks of ``size`` layers that begin at each layer, the mean over the weight matrices
    ``modules``; ``by_module [modules, layers, layers]``; ``updates [visits, visits]``: of what visits add, the mean over positions."""

    probe: ClassVar[str] = "block-similarity"
    size: int
    modules: tuple[str, ...]
    weights: np.ndarray
    by_module: np.ndarray
    updates: np.ndarray

    @property
    def headline(self) -> Headline:
        """The mean off the diagonal, and the distance between blocks at which weights are most alike."""
        found: Headline = {"weights, mean": _off_diagonal(self.weights), "updates, mean": _off_diagonal(self.updates)}
        distances = [float(np.diagonal(self.weights, k).mean()) for k in range(self.size, len(self.weights))]
        if distances:
            found["most alike at distance"] = float(self.size + int(np.argmax(distances)))
        return found

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Both matrices."""
        what = "layers" if self.size == 1 else f"blocks of {self.size} layers"
        return (
            Grid(f"Cosine of the weights of {what}", "first layer", "first layer", self.weights, 0.0),
            Grid("Cosine of the updates of visits", "visit", "visit", self.updates, 0.0),
        )


def block_similarity(model: Model, ids: np.ndarray, plan: Depth = None, *, size: int = 1, progress: Progress = quiet) -> BlockSimilarity:
    """Cosine similarity of weights between layers (or blocks of ``size`` of them) and of updates between visits.

    ids ``[B, T]``. Raises UsageError on a quantized checkpoint, whose weights are packed.
    """
    visits, layers = order(model, plan), model.spec.n_layers
    if not 1 <= size <= layers:
        raise UsageError(f"size must be 1 to {layers}, the model's layers, got {size}")
    modules = tuple(name for name, shape in model.spec.layer_shapes().items() if len(shape) == 2)
    by_module = np.array([_block_cosines(_gram(model, name), size) for name in modules])
    found = [_update_cosines(*traced(model, row, visits)[1:]) for row in watched(prompts(ids), progress)]
    return BlockSimilarity(model.text(visits), size, modules, by_module.mean(0), by_module, np.mean(found, 0))


def _gram(model: Model, name: str) -> Array:
    """Inner products of one matrix between all layers, ``[layers, layers]``."""
    arrays = [model.checkpoint.arrays[f"model.layers.{layer}.{name}"] for layer in range(model.spec.n_layers)]
    if arrays[0].dtype.kind == "u":
        raise UsageError("block-similarity needs weights that are not packed; use the checkpoint as it was before --quantize")
    flat = [np.asarray(array).reshape(-1) for array in arrays]
    gram = np.zeros((len(flat), len(flat)))
    for start in range(0, flat[0].size, CHUNK):
        part = np.stack([each[start : start + CHUNK].astype(np.float32) for each in flat])
        gram += part @ part.T
    return gram


def _block_cosines(gram: Array, size: int) -> Array:
    """Cosines of blocks of ``size`` consecutive layers from their layers' inner products."""
    starts = len(gram) - size + 1
    dots = np.sum([gram[k : k + starts, k : k + starts] for k in range(size)], 0)
    norms = np.sqrt(np.diagonal(dots))
    return dots / np.maximum(np.outer(norms, norms), FLOOR)  # type: ignore[no-any-return]


def _update_cosines(attn: Array, mlp: Array) -> Array:
    """Mean over positions of the cosine between what two visits add, ``[visits, visits]``."""
    update = attn + mlp
    unit = update / np.maximum(np.linalg.norm(update, axis=-1, keepdims=True), FLOOR)
    return np.einsum("itd,jtd->ij", unit, unit, optimize=True) / unit.shape[1]  # type: ignore[no-any-return]


def _off_diagonal(matrix: Array) -> float:
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(others.mean()) if others.size else 1.0
