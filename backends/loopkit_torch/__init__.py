"""loopkit's backend on PyTorch: CUDA, Apple's MPS, and CPUs. The functions of loopkit.backend.Backend."""

import os
import time
from collections.abc import Iterator

import numpy as np

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # threads that spin for each other longer stall a busy machine tens of times over
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages on Linux: decoding reads weights up to a quarter faster

import torch
import torch.nn.functional as F

from loopkit.plan import Plan
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec
from loopkit_torch import model
from loopkit_torch.learn import Learner, barrier, processes
from loopkit_torch.memory import Weights, default_dtype, devices, get, put, read_state_dict

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
    "read_state_dict",
    "stream",
    "versions",
]

name = "torch"
learner = Learner
_CHUNK_ROWS = 256  # positions whose logits are held at a time


@torch.inference_mode()
def forward(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """See loopkit.backend.Backend.forward."""
    x_BTD, kept = _run(weights, spec, _ids(ids, weights), run)
    return model.unembed(weights, spec, x_BTD).cpu().numpy(), kept


@torch.inference_mode()
def nll(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> np.ndarray:
    """See loopkit.backend.Backend.nll."""
    tokens = _ids(ids, weights)
    x_BTD, _ = _run(weights, spec, tokens, run)
    rows, targets = x_BTD[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    losses = [
        F.cross_entropy(model.unembed(weights, spec, rows[i : i + _CHUNK_ROWS]), targets[i : i + _CHUNK_ROWS], reduction="none")
        for i in range(0, len(rows), _CHUNK_ROWS)
    ]
    return torch.cat(losses).view(len(ids), -1).cpu().numpy()


def _run(weights: Weights, spec: Spec, ids: torch.Tensor, run: Run) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """The stream after all visits and what was captured on the way; without interventions by the short way."""
    x_BTD = model.embed(weights, ids)
    if not (run.capture or run.gate or run.overwrite):
        return model.visits(weights, spec, x_BTD, run.plan), {}
    x_BTD, kept = model.traced(weights, spec, x_BTD, run)
    return x_BTD, {name: np.stack(parts) for name, parts in kept.items() if parts}


def stream(weights: Weights, spec: Spec, prompt: list[int], plan: Plan, limit: int, sampling: Sampling) -> Iterator[int]:
    """See loopkit.backend.Backend.stream."""
    cache = model.new_cache(weights, spec, len(plan), 1, len(prompt) + limit)
    ids = _ids(np.array([prompt]), weights)
    for step in range(limit):
        ids = _next(weights, spec, ids, plan, cache, sampling, step)
        yield int(ids)


@torch.inference_mode()
def _next(weights: Weights, spec: Spec, ids: torch.Tensor, plan: Plan, cache: model.Cache, sampling: Sampling, step: int) -> torch.Tensor:
    x_BTD = model.visits(weights, spec, model.embed(weights, ids), plan, cache)
    logits = model.unembed(weights, spec, x_BTD[:, -1:])
    if sampling.temperature > 0:
        logits = logits + torch.from_numpy(sampling.noise(step, logits.shape[-1])).to(logits.device)
    return logits.argmax(-1)


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
