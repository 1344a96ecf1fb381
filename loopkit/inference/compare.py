"""What another plan changes: the next token, the likelihood of a text, the continuation."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """A next token and its probability under both plans."""

    token: int
    text: str
    base: float
    looped: float


@dataclass(frozen=True)
class Comparison:
    """Base plan beside another one, after the same text.

    ``kl`` is KL(base || looped) of the next-token distributions and ``entropy_*`` theirs, in nats; ``nll_*`` the mean
    negative log-likelihood a token of the text, nats, None for a single token.
    """

    base_plan: str
    looped_plan: str
    tokens: int
    candidates: tuple[Candidate, ...]
    kl: float
    entropy_base: float
    entropy_looped: float
    nll_base: float | None
    nll_looped: float | None


def candidates(base_log: np.ndarray, looped_log: np.ndarray, decode: Callable[[list[int]], str], top: int) -> tuple[Candidate, ...]:
    """The ``top`` tokens of either distribution, likeliest under the base first, from log-probabilities ``[V]``."""
    likely = sorted({*_top(base_log, top), *_top(looped_log, top)}, key=lambda token: -base_log[token])
    return tuple(Candidate(t, decode([t]), float(np.exp(base_log[t])), float(np.exp(looped_log[t]))) for t in likely)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last dimension, float64, nats."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))  # type: ignore[no-any-return]


def kl_divergence(p_log: np.ndarray, q_log: np.ndarray) -> float:
    """KL(p || q) in nats, from log-probabilities ``[V]``."""
    return float((np.exp(p_log) * (p_log - q_log)).sum())


def entropy(p_log: np.ndarray) -> float:
    """Entropy in nats, from log-probabilities ``[V]``."""
    return float(-(np.exp(p_log) * p_log).sum())


def _top(log: np.ndarray, count: int) -> list[int]:
    count = min(count, len(log))
    likely = np.flatnonzero(log >= np.partition(log, -count)[-count])  # a sort of the whole vocabulary takes thirty times as long
    return [int(token) for token in likely[np.argsort(-log[likely], kind="stable")][:count]]
