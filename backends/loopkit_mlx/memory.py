"""Devices, types and weights in MLX."""

from collections.abc import Mapping

import ml_dtypes
import mlx.core as mx
import numpy as np

from loopkit.errors import LoopkitError, UsageError

Weights = dict[str, mx.array]
DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
FLOATS = (*DTYPES.values(), mx.float64)
_MANY = 2**18  # numbers in a matrix from which a second core pays


def devices() -> list[str]:
    """Devices that work here, best first."""
    found = ["cuda"] if mx.cuda.is_available() else []
    if mx.metal.is_available():
        found.append("metal")
    return [*found, "cpu"]


def default_dtype(device: str) -> str:
    """``float32`` on a CPU, where only it is fast, else ``bfloat16``."""
    return "float32" if device == "cpu" else "bfloat16"


def use(device: str) -> mx.Device:
    """Make this the device of all that follows: MLX's arrays belong to none, so the device is one setting for the process."""
    chosen = mx.Device(mx.cpu if device == "cpu" else mx.gpu)
    if mx.default_device() != chosen:
        mx.set_default_device(chosen)
    return chosen


def put(arrays: Mapping[str, np.ndarray], device: str, dtype: str) -> Weights:
    """Weights in ``dtype``, packed integers as they are; from here on everything in this process runs on ``device``."""
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    _check_packing(arrays)
    use(device)
    weights = {}
    for name, array in arrays.items():
        value = to_mlx(array)
        value = value.astype(DTYPES[dtype]) if value.dtype in FLOATS else value
        weights[name] = _by_columns(value) if device == "cpu" else value
        mx.eval(weights[name])  # a lazy array cannot be evaluated in another thread
    return weights


def get(weights: Weights, names: list[str]) -> dict[str, np.ndarray]:
    """The named weights as numpy."""
    return {name: to_numpy(weights[name]) for name in names}


def to_mlx(array: np.ndarray) -> mx.array:
    """An array with the same values and type."""
    if array.dtype == ml_dtypes.bfloat16:
        return mx.array(array.view(np.uint16)).view(mx.bfloat16)
    return mx.array(array)


def to_numpy(array: mx.array) -> np.ndarray:
    """An array with the same values and type, bfloat16 as ml_dtypes' bfloat16."""
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(ml_dtypes.bfloat16)
    return np.array(array)


def _by_columns(value: mx.array) -> mx.array:
    """The same matrix laid out by columns where it is tall, large and float32: then a BLAS uses all cores to multiply it by one row."""
    tall = value.ndim == 2 and value.dtype == mx.float32 and value.shape[0] >= value.shape[1]
    return mx.contiguous(value.T).T if tall and value.size >= _MANY else value


def _check_packing(arrays: Mapping[str, np.ndarray]) -> None:
    for name in arrays:
        if name.endswith(".scales") and name.removesuffix("scales") + "biases" not in arrays:
            raise LoopkitError(
                f"{name} ({arrays[name].dtype}) has no biases beside it; of MLX's quantized kinds only 'affine' is supported"
            )
