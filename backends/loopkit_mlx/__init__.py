"""loopkit's backend on MLX: Apple's GPUs, CUDA, and CPUs. The functions of loopkit.backend.Backend.

The device is a setting of the process: the one of the weights that were put last.
"""

from loopkit_mlx import blas  # isort: skip # acts only before mlx.core is imported

import time
from dataclasses import replace
from importlib import metadata

import mlx.core as mx
import numpy as np

from loopkit.run import Rows, Run, Stream
from loopkit.spec import Spec
from loopkit_mlx import model
from loopkit_mlx.decoding import Decoding
from loopkit_mlx.exponential import logsumexp
from loopkit_mlx.generate import stream
from loopkit_mlx.learn import Learner, barrier, processes
from loopkit_mlx.memory import Weights, default_dtype, devices, get, put, to_numpy
from loopkit_mlx.quantize import quantize_folder

__all__ = [
    "advance",
    "barrier",
    "decoding",
    "default_dtype",
    "devices",
    "enter",
    "get",
    "hidden",
    "learner",
    "log_probs",
    "logits",
    "matmul_rate",
    "name",
    "processes",
    "put",
    "quantize_folder",
    "stream",
    "versions",
]

name = "mlx"
learner = Learner
decoding = Decoding
_CHUNK_ROWS = 256  # positions whose logits are held at a time


def enter(weights: Weights, spec: Spec, rows: Rows) -> Stream:
    """See loopkit.backend.Backend.enter."""
    return Stream(model.embed(weights, spec, mx.array(rows.ids)), model.view(spec, rows))


def advance(weights: Weights, spec: Spec, stream: Stream, run: Run) -> tuple[Stream, dict[str, np.ndarray]]:
    """See loopkit.backend.Backend.advance."""
    kept: model.Kept = {"resid": [], "attn": [], "mlp": []}
    x_BTD = model.visits(weights, spec, stream.x, run, stream.context, kept=kept)
    mx.eval(x_BTD)
    return replace(stream, x=x_BTD), {name: np.stack(parts) for name, parts in kept.items() if parts}


def hidden(stream: Stream) -> np.ndarray:
    """See loopkit.backend.Backend.hidden."""
    return to_numpy(stream.x.astype(mx.float32))


def logits(weights: Weights, spec: Spec, stream: Stream, where: np.ndarray) -> np.ndarray:
    """See loopkit.backend.Backend.logits."""
    return to_numpy(model.unembed(weights, spec, _picked(stream, where)))


def log_probs(
    weights: Weights, spec: Spec, stream: Stream, where: np.ndarray, targets: np.ndarray, last: Run | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See loopkit.backend.Backend.log_probs."""
    places, row = np.unique(where, return_inverse=True)
    x_ND = model.visit_at(weights, spec, stream.x, last, stream.context, places) if last else _picked(stream, places)
    found, top = np.empty(len(where), np.float32), np.empty(len(where), bool)
    for start in range(0, len(places), _CHUNK_ROWS):
        mine = np.flatnonzero((row >= start) & (row < start + _CHUNK_ROWS))
        logits_NV = model.unembed(weights, spec, x_ND[start : start + _CHUNK_ROWS])
        rows, wanted = mx.array(row[mine] - start), mx.array(targets[mine])
        found[mine] = to_numpy(logits_NV[rows, wanted] - logsumexp(logits_NV)[rows])
        top[mine] = to_numpy(logits_NV.argmax(-1)[rows] == wanted)
    return found, top


def _picked(stream: Stream, where: np.ndarray) -> mx.array:
    """The stream at flat positions, ``[N, D]``."""
    return stream.x.flatten(0, 1)[mx.array(where)]


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
