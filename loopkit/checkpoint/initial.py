"""Random initial weights, made in numpy so that every backend starts from the same ones."""

import re
import zlib
from collections.abc import Mapping

import numpy as np

from loopkit.spec import Spec


def initialize(spec: Spec, seed: int = 0, layers: float = 1.0) -> dict[str, np.ndarray]:
    """Float32 arrays by name: norms 1, biases 0, matrices normal with std 1/sqrt(hidden size), as SmolLM trained.

    The std of the layers' matrices is multiplied by ``layers``. Each array depends on seed and its own name alone.
    """
    std = spec.hidden_size**-0.5
    return {
        name: _initial(name, shape, std * layers if name.startswith("model.layers.") else std, seed)
        for name, shape in spec.shapes().items()
    }


def _initial(name: str, shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    generator = np.random.default_rng((seed, zlib.crc32(name.encode())))
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(std)


def fold_norm_scaling(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of a model trained with LayerNorm scaling as a plain model's: both norms of layer l times 1/sqrt(l + 1).

    Sun et al. 2025, "The Curse of Depth in Large Language Models".
    """
    return {name: array * np.float32(_depth(name) ** -0.5) if _depth(name) else array for name, array in arrays.items()}


def _depth(name: str) -> int:
    """1-based depth of the layer whose pre-norm this is; 0 for every other parameter."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(input|post_attention)_layernorm\.weight", name)
    return int(match[1]) + 1 if match else 0
