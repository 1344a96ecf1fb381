"""loopkit's backend on MLX: Apple's GPUs, CUDA, and CPUs. The functions of loopkit.backend.Backend.

The device is a setting of the process: the one of the weights that were put last.
"""

from loopkit_mlx import blas  # isort: skip # acts only before mlx.core is imported

import time
from importlib import metadata

import mlx.core as mx
import numpy as np

from loopkit.run import Run
from loopkit.spec import Spec
from loopkit_mlx import model
from loopkit_mlx.generate import stream
from loopkit_mlx.learn import Learner, barrier, processes
from loopkit_mlx.memory import Weights, default_dtype, devices, get, put, to_numpy
from loopkit_mlx.quantize import quantize_folder

__all__ = [
    "barrier",
    "default_dtype",
    "devices",
    "forward",
    "get",
    "learner",
    "matmul_rate",
    "name",
    "nll",
    "processes",
    "put",
    "quantize_folder",
    "stream",
    "versions",
]

name = "mlx"
learner = Learner
_CHUNK_ROWS = 256  # positions whose logits are held at a time


def forward(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """See loopkit.backend.Backend.forward."""
    x_BTD, kept = _run(weights, spec, mx.array(ids), run)
    return to_numpy(model.unembed(weights, spec, x_BTD)), kept


def nll(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> np.ndarray:
    """See loopkit.backend.Backend.nll."""
    tokens = mx.array(ids)
    x_BTD, _ = _run(weights, spec, tokens, run)
    rows, targets = x_BTD[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    chunks = [slice(start, start + _CHUNK_ROWS) for start in range(0, len(rows), _CHUNK_ROWS)]
    losses = [to_numpy(_losses(model.unembed(weights, spec, rows[chunk]), targets[chunk])) for chunk in chunks]
    return np.concatenate(losses).reshape(len(ids), -1)


def _run(weights: Weights, spec: Spec, ids_BT: mx.array, run: Run) -> tuple[mx.array, dict[str, np.ndarray]]:
    """The stream after all visits and what was captured on the way; without interventions by the short way."""
    x_BTD = model.embed(weights, spec, ids_BT)
    if not (run.capture or run.gate or run.overwrite):
        return model.visits(weights, spec, x_BTD, run.plan), {}
    x_BTD, kept = model.traced(weights, spec, x_BTD, run)
    return x_BTD, {name: np.stack(parts) for name, parts in kept.items() if parts}


def _losses(logits_NV: mx.array, targets_N: mx.array) -> mx.array:
    return mx.logsumexp(logits_NV, -1) - mx.take_along_axis(logits_NV, targets_N[:, None], -1)[:, 0]


def matmul_rate(device: str) -> float:
    """See loopkit.backend.Backend.matmul_rate."""
    size, where = (1024, mx.cpu) if device == "cpu" else (4096, mx.gpu)
    a = mx.random.normal((size, size), stream=where)
    mx.eval(a)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(mx.matmul(a, a.T, stream=where))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def versions() -> dict[str, str]:
    """See loopkit.backend.Backend.versions."""
    found = {name: metadata.version(name) for name in ("mlx", "mlx-lm") if _installed(name)}
    return found | {"BLAS": blas.IN_USE}


def _installed(package: str) -> bool:
    return any(metadata.distributions(name=package))
