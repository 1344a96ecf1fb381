"""Whole passes of plain sequences, made of a backend's steps."""

import numpy as np

from loopkit.backend import Backend, Weights
from loopkit.run import Rows, Run
from loopkit.spec import Spec


def forward(backend: Backend, weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits float32 ``[B, T, V]`` of ids ``[B, T]``, and resid, attn and mlp if the run captures (see Trace)."""
    stream, kept = backend.advance(weights, spec, backend.enter(weights, spec, Rows(ids)), run)
    return backend.logits(weights, spec, stream, np.arange(ids.size)).reshape(*ids.shape, -1), kept


def nll(backend: Backend, weights: Weights, spec: Spec, ids: np.ndarray, run: Run, documents: np.ndarray | None = None) -> np.ndarray:
    """Negative log-likelihood in nats of each id after the first, float32 ``[B, T - 1]``; ``documents`` are branches without a trunk."""
    rows = Rows(ids, None if documents is None else documents + 1)
    stream, _ = backend.advance(weights, spec, backend.enter(weights, spec, rows), run)
    where = np.arange(ids.size).reshape(ids.shape)[:, :-1].reshape(-1)
    found, _ = backend.log_probs(weights, spec, stream, where, ids[:, 1:].reshape(-1))
    return -found.reshape(len(ids), -1)
