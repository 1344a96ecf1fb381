"""loopkit's backend on PyTorch: CUDA, Apple's MPS, and CPUs. The functions of loopkit.backend.Backend."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # threads that spin for each other longer stall a busy machine tens of times over
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages on Linux: decoding reads weights up to a quarter faster

import torch

from loopkit.run import Rows, Run, Stream
from loopkit.sampling import Sampling
from loopkit.spec import Spec
from loopkit_torch import model
from loopkit_torch.decode import decoder
from loopkit_torch.decoding import Decoding
from loopkit_torch.learn import Learner, barrier, processes
from loopkit_torch.memory import Weights, default_dtype, devices, get, put, read_state_dict

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
    "read_state_dict",
    "stream",
    "versions",
]

name = "torch"
learner = Learner
decoding = Decoding
_CHUNK_ROWS = 256  # positions whose logits are held at a time


@torch.inference_mode()
def enter(weights: Weights, spec: Spec, rows: Rows) -> Stream:
    """See loopkit.backend.Backend.enter."""
    x_BTD = model.embed(weights, _ids(rows.ids, weights))
    return Stream(x_BTD, model.view(spec, rows, x_BTD))


@torch.inference_mode()
def advance(weights: Weights, spec: Spec, stream: Stream, run: Run) -> tuple[Stream, dict[str, np.ndarray]]:
    """See loopkit.backend.Backend.advance."""
    kept: model.Kept = {"resid": [], "attn": [], "mlp": []}
    x_BTD = model.visits(weights, spec, stream.x, run, stream.context, kept=kept)
    return replace(stream, x=x_BTD), {name: np.stack(parts) for name, parts in kept.items() if parts}


@torch.inference_mode()
def hidden(stream: Stream) -> np.ndarray:
    """See loopkit.backend.Backend.hidden."""
    return stream.x.float().cpu().numpy()


@torch.inference_mode()
def logits(weights: Weights, spec: Spec, stream: Stream, where: np.ndarray) -> np.ndarray:
    """See loopkit.backend.Backend.logits."""
    return model.unembed(weights, spec, _picked(stream, where)).cpu().numpy()


@torch.inference_mode()
def log_probs(
    weights: Weights, spec: Spec, stream: Stream, where: np.ndarray, targets: np.ndarray, last: Run | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See loopkit.backend.Backend.log_probs."""
    places, row = np.unique(where, return_inverse=True)
    x_ND = model.visit_at(weights, spec, stream.x, last, stream.context, places) if last else _picked(stream, places)
    found, top = np.empty(len(where), np.float32), np.empty(len(where), bool)
    for start in range(0, len(places), _CHUNK_ROWS):
        mine = np.flatnonzero((row >= start) & (row < start + _CHUNK_ROWS))
        logs_NV = model.unembed(weights, spec, x_ND[start : start + _CHUNK_ROWS]).log_softmax(-1)
        found[mine] = logs_NV.cpu().numpy()[row[mine] - start, targets[mine]]
        top[mine] = logs_NV.argmax(-1).cpu().numpy()[row[mine] - start] == targets[mine]
    return found, top


def stream(
    weights: Weights, spec: Spec, prompt: list[int], run: Run, slots: tuple[int, ...], limit: int, sampling: Sampling
) -> Iterator[int]:
    """See loopkit.backend.Backend.stream."""
    cache = model.new_cache(weights, spec, slots, 1, len(prompt) + limit)
    ids = _ids(np.array([prompt]), weights)
    if len(set(slots)) < len(slots) and len(prompt) > 1:  # what is shared holds the last visit's: from here on token by token
        _next(weights, spec, ids[:, :-1], run, cache, sampling, 0)
        ids = ids[:, -1:]
    for step in range(limit):
        ids = _next(weights, spec, ids, run, cache, sampling, step)
        yield int(ids)


@torch.inference_mode()
def _next(weights: Weights, spec: Spec, ids: torch.Tensor, run: Run, cache: model.Cache, sampling: Sampling, step: int) -> torch.Tensor:
    x_BTD = model.embed(weights, ids)
    rows = model.View(model.rotary_tables(spec, cache.length, x_BTD.shape[1], x_BTD.device, x_BTD.dtype))
    one_row = decoder(spec, x_BTD.device, x_BTD.dtype).next_token() if cache.length else None
    x_BTD = model.visits(weights, spec, x_BTD, run, rows, cache, one_row=one_row)
    logits_BTV = model.unembed(weights, spec, x_BTD[:, -1:])
    if sampling.temperature > 0:
        logits_BTV = logits_BTV + torch.from_numpy(sampling.noise(step, logits_BTV.shape[-1])).to(logits_BTV.device)
    return logits_BTV.argmax(-1)


def matmul_rate(device: str) -> float:
    """See loopkit.backend.Backend.matmul_rate."""
    size = 1024 if device == "cpu" else 4096
    a = torch.randn(size, size, device=device)
    synchronize = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)
    times = []
    for _ in range(5):
        synchronize()
        start = time.perf_counter()
        _ = a @ a.T
        synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def versions() -> dict[str, str]:
    """See loopkit.backend.Backend.versions."""
    found = {"torch": torch.__version__, "torch threads": str(torch.get_num_threads())}
    if torch.cuda.is_available():
        found |= {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name()}
    return found


def _ids(ids: np.ndarray, weights: Weights) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(weights["model.norm.weight"].device)


def _picked(stream: Stream, where: np.ndarray) -> torch.Tensor:
    """The stream at flat positions, ``[N, D]``."""
    return stream.x.flatten(0, 1)[torch.from_numpy(np.ascontiguousarray(where, dtype=np.int64)).to(stream.x.device)]
