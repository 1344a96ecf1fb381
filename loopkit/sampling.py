"""How the next token is drawn: the same tokens on every backend for the same seed."""

from dataclasses import dataclass

import numpy as np

from loopkit.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """``temperature`` 0 takes the likeliest token; above 0, tokens are drawn from softmax(logits / temperature)."""

    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"temperature must be 0 or more, got {self.temperature}")

    def noise(self, step: int, vocab_size: int) -> np.ndarray:
        """What to add to the logits of new token number ``step`` before taking the largest, float32 ``[V]``.

        Gumbel-max: argmax(logits + temperature * Gumbel) is a draw from softmax(logits / temperature). The noise depends on
        seed and step alone, so every backend draws the same tokens.
        """
        gumbel = np.random.default_rng((self.seed, step)).gumbel(size=vocab_size)
        return (self.temperature * gumbel).astype(np.float32)
