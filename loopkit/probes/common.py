"""What the probes share: plans, prompts one at a time, runs of a layer on streams of any kind, intervals."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from loopkit.errors import UsageError
from loopkit.evaluation.statistics import student_t
from loopkit.plan import Plan
from loopkit.progress import Progress
from loopkit.run import Run
from loopkit.session import Depth, Model

TOKENS = 4096  # that go through a layer at a time
BOOTSTRAPS = 1000
Array = np.ndarray[Any, np.dtype[Any]]


def order(model: Model, plan: Depth) -> Plan:
    """The visits of ``plan``. Raises UsageError where it says more than an order."""
    run = model.run(plan)
    if run.scale or run.blend or run.gate or run.overwrite:
        raise UsageError(f"probes take plain plans, e.g. {model.text(run.plan)}, without a mode")
    return run.plan


def prompts(ids: np.ndarray, least: int = 1) -> np.ndarray:
    """Token ids ``[B, T]``, a single sequence as a batch of one. Raises UsageError where they are shorter than ``least`` tokens."""
    ids = np.atleast_2d(np.asarray(ids))
    if ids.shape[-1] < least:
        raise UsageError(f"this probe needs prompts of {least} tokens or more, got {ids.shape[-1]}")
    return ids


def watched(rows: np.ndarray, progress: Progress) -> Iterator[np.ndarray]:
    """The rows ``[T]`` of ids one after the other, so that memory stays that of one prompt."""
    for number, row in enumerate(rows):
        progress(number, len(rows))
        yield row
    progress(len(rows), len(rows))


def traced(model: Model, row: np.ndarray, plan: Plan) -> tuple[Array, Array, Array]:
    """One prompt's stream before each visit and after the last ``[visits + 1, T, D]``, and what attention and MLP added
    ``[visits, T, D]``."""
    _, kept = model.advance(model.enter(row), Run(plan, capture=True))
    return kept["resid"][:, 0], kept["attn"][:, 0], kept["mlp"][:, 0]


def visit(model: Model, row: np.ndarray, x_NTD: Array, layer: int) -> tuple[Array, Array]:
    """One layer on many streams of the same prompt: what it adds, and the stream after it, ``[N, T, D]`` each."""
    size = max(1, TOKENS // len(row))
    parts = []
    for start in range(0, len(x_NTD), size):
        x = x_NTD[start : start + size]
        stream = model.enter(np.tile(row, (len(x), 1)))
        _, kept = model.advance(stream, Run((layer,), overwrite={0: x}, capture=True))
        parts.append((kept["attn"][0] + kept["mlp"][0], kept["resid"][1]))
    return np.concatenate([update for update, _ in parts]), np.concatenate([after for _, after in parts])


def unembed(model: Model, row: np.ndarray, x_NTD: Array, places: Array) -> Array:
    """Logits float32 ``[N, places, V]`` of any streams of a prompt."""
    stream, _ = model.advance(model.enter(np.tile(row, (len(x_NTD), 1))), Run((), overwrite={0: x_NTD}))
    where = (np.arange(len(x_NTD))[:, None] * len(row) + places).reshape(-1)
    return model.unembed(stream, where).reshape(len(x_NTD), len(places), -1)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last dimension, nats, in the logits' own type."""
    shifted: Array = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def interval(values: Array) -> tuple[Array, Array]:
    """Student's 95% interval of the mean over the first axis; the mean itself below three values, which say nothing of their spread."""
    mean, freedom = values.mean(0), len(values) - 1
    if freedom < 2:
        return mean, mean
    half = student_t(freedom) * values.std(0, ddof=1) / np.sqrt(len(values))
    return mean - half, mean + half


def bootstrap(values: Array, statistic: Callable[[Array], float], seed: int) -> tuple[float, float]:
    """The 95% interval of a statistic of ``values`` over the first axis by the percentile bootstrap (Efron 1979)."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
