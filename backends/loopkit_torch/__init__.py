"""loopkit's backend on PyTorch: CUDA, Apple's MPS, and CPUs. The functions of loopkit.backend.Backend."""

import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from loopkit.plan import Plan
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec
from loopkit_torch import model
from loopkit_torch.memory import Weights, default_dtype, devices, get, put, read_state_dict

__all__ = ["default_dtype", "devices", "forward", "get", "matmul_rate", "name", "nll", "put", "read_state_dict", "stream", "versions"]

name = "torch"
_CHUNK_ROWS = 256  # positions whose logits are held at a time


@torch.inference_mode()
def forward(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """See loopkit.backend.Backend.forward."""
    x_BTD = model.embed(weights, _ids(ids, weights))
    if not (run.capture or run.gate or run.overwrite):
        return model.unembed(weights, spec, model.visits(weights, spec, x_BTD, run.plan)).cpu().numpy(), {}
    resid, attn, mlp = [], [], []
    for x_BTD, attn_BTD, mlp_BTD in model.traced(weights, spec, x_BTD, run):
        if run.capture:
            resid.append(x_BTD.float().cpu().numpy())
            attn.append(attn_BTD.float().cpu().numpy())
            mlp.append(mlp_BTD.float().cpu().numpy())
    logits = model.unembed(weights, spec, x_BTD).cpu().numpy()
    kept = {"resid": np.stack(resid), "attn": np.stack(attn[:-1]), "mlp": np.stack(mlp[:-1])} if run.capture else {}
    return logits, kept


@torch.inference_mode()
def nll(weights: Weights, spec: Spec, ids: np.ndarray, run: Run) -> np.ndarray:
    """See loopkit.backend.Backend.nll."""
    tokens = _ids(ids, weights)
    x_BTD = model.embed(weights, tokens)
    for x_BTD, *_ in model.traced(weights, spec, x_BTD, run) if run.gate or run.overwrite else ():
        pass
    if not (run.gate or run.overwrite):
        x_BTD = model.visits(weights, spec, x_BTD, run.plan)
    rows, targets = x_BTD[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    losses = [
        F.cross_entropy(model.unembed(weights, spec, rows[i : i + _CHUNK_ROWS]), targets[i : i + _CHUNK_ROWS], reduction="none")
        for i in range(0, len(rows), _CHUNK_ROWS)
    ]
    return torch.cat(losses).view(len(ids), -1).cpu().numpy()


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
