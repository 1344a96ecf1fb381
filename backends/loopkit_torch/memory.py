"""Devices, types and weights in torch."""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from loopkit.errors import LoopkitError, UsageError

Weights = dict[str, Tensor]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NESTED = ("model", "state_dict", "model_state_dict", "module")  # where trainers keep the model in their checkpoints
FUSED = {  # one matrix product instead of several; the parts stay in the dictionary as views of it
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


def devices() -> list[str]:
    """Devices that work here, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def default_dtype(device: str) -> str:
    """``bfloat16`` on an accelerator that has it, else ``float32``."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if device == "mps" else "float32"


def put(arrays: Mapping[str, np.ndarray], device: str, dtype: str) -> Weights:
    """Weights on the device, projections that read the same input stored as one matrix with views under their own names."""
    if any(name.endswith(".scales") for name in arrays):
        raise LoopkitError(
            "this checkpoint is quantized for MLX; run it with --backend mlx, or convert the original again without --quantize"
        )
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    weights: Weights = {}
    for name, parts in _groups(arrays).items():
        rows = [arrays[part] for part in parts]
        whole = weights[name] = to_tensor(rows).to(device, DTYPES[dtype])
        if len(parts) > 1:
            weights.update(zip(parts, whole.split([len(each) for each in rows]), strict=True))
    return weights


def get(weights: Weights, names: list[str]) -> dict[str, np.ndarray]:
    """The named weights as numpy."""
    return {name: to_numpy(weights[name]) for name in names}


def to_tensor(rows: Sequence[np.ndarray]) -> Tensor:
    """A tensor of the arrays one below the other, with their type (float32 where they differ), in memory of torch's own.

    numpy's may start at any multiple of 16 bytes, and matrix products round by how their operands are aligned: a resumed run
    would differ in the last bit.
    """
    if len({each.dtype for each in rows}) > 1:
        rows = [each.astype(np.float32) for each in rows]
    numbers = rows[0].dtype
    plain = [each.view(np.uint16) if numbers == ml_dtypes.bfloat16 else each for each in rows]
    shape = (sum(map(len, rows)), *rows[0].shape[1:])
    whole = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, plain[0].dtype)).dtype)
    np.concatenate(plain, out=whole.numpy())
    return whole.view(torch.bfloat16) if numbers == ml_dtypes.bfloat16 else whole


def to_numpy(tensor: Tensor) -> np.ndarray:
    """An array with the tensor's values and type."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def read_state_dict(path: Any) -> dict[str, np.ndarray]:
    """The tensors of a ``.pt`` or ``.bin`` file by name, without running any code that it may hold.

    A trainer's checkpoint is searched for its model. Raises LoopkitError naming the file where it is torn, holds Python
    objects, or holds no tensors.
    """
    state = _named_tensors(_load(path))
    if not state:
        raise LoopkitError(f"{path} holds no state dict; save one with: torch.save(model.state_dict(), path)")
    return {name: _readable(tensor, name, path) for name, tensor in state.items()}


def _readable(tensor: Tensor, name: str, path: Any) -> np.ndarray:
    try:
        return to_numpy(tensor)
    except (TypeError, RuntimeError):
        raise LoopkitError(f"{path}: tensor {name} has type {tensor.dtype}, which is not supported; save it as float32") from None


def _load(path: Any) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise LoopkitError(f"{path} does not exist") from None
    except pickle.UnpicklingError as error:  # its text tells people to load the file unsafely
        held = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds a Python object ({held[1]}), which might run code" if held else "is torn, or holds more than tensors"
        raise LoopkitError(f"{path} {what}; save it again with: torch.save(model.state_dict(), path)") from error
    except Exception as error:  # torn files end in errors of any kind
        first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        raise LoopkitError(f"{path} is not a whole torch checkpoint ({first}); copy or save it again") from error


def _named_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, or of the one a trainer put inside its checkpoint; empty where there is none."""
    if not isinstance(state, Mapping):
        return {}
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    inside = (_named_tensors(state[key]) for key in NESTED if key in state and not isinstance(state[key], Tensor))
    return next((found for found in inside if found), tensors)


def _groups(arrays: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Stored name -> the names it holds, in the order of the arrays."""
    groups: dict[str, list[str]] = {}
    for name in arrays:
        stored = name
        for whole, parts in FUSED.items():
            for part in parts:
                stored = stored.replace(f".{part}.", f".{whole}.")
        groups.setdefault(stored, []).append(name)
    return groups
