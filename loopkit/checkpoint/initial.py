"""Random initial weights, made in numpy so that every backend starts from the same ones."""

import zlib

import numpy as np

from loopkit.spec import Spec


def initialize(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 arrays by name: norms 1, biases 0, matrices normal with std 1/sqrt(hidden size), as SmolLM trained.

    Each array depends on seed and its own name alone.
    """
    return {name: _initial(name, shape, spec.hidden_size**-0.5, seed) for name, shape in spec.shapes().items()}


def _initial(name: str, shape: tuple[int, ...], std: float, seed: int) -> np.ndarray:
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    generator = np.random.default_rng((seed, zlib.crc32(name.encode())))
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(std)
