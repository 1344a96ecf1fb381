"""Safetensors files as numpy arrays, bfloat16 included, memory-mapped on reading."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from loopkit.errors import LoopkitError

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
SHARD_BYTES = 5 * 2**30  # as transformers and mlx-lm split


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one file, mapped and read-only. Raises LoopkitError naming the file where it is torn or not safetensors."""
    try:
        with safetensors.safe_open(path, framework="np"):  # checks header, offsets and length
            pass
    except FileNotFoundError:
        raise LoopkitError(f"{path} does not exist") from None
    except Exception as error:  # safetensors raises its own exception for a torn file, OSError for others
        raise LoopkitError(f"{path} is not a whole safetensors file ({error}); copy or convert it again") from error
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size) if path.stat().st_size > 8 + size else np.empty(0, np.uint8)
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise LoopkitError(f"{path}: tensor {name} has type {entry['dtype']}, which is not supported")
        start, stop = entry["data_offsets"]
        arrays[name] = data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One safetensors file; metadata says format pt, as transformers writes it."""
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path, metadata={"format": "pt"})
    path.chmod(0o644)  # the library leaves it readable by its owner alone


def write_sharded(folder: Path, arrays: Mapping[str, np.ndarray], dtype: np.dtype[Any] | None = None, limit: int = SHARD_BYTES) -> None:
    """``model.safetensors``, or shards of at most ``limit`` bytes with the usual index. Floats are cast to ``dtype``."""
    itemsizes = {name: array.size * (dtype or array.dtype).itemsize for name, array in arrays.items()}
    shards = _split(itemsizes, limit)
    names = ["model.safetensors"] if len(shards) == 1 else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for file, shard in zip(names, shards, strict=True):
        write(folder / file, {name: _cast(name, arrays[name], dtype) for name in shard})
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(itemsizes.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a folder's ``model.safetensors``, or of its shards, by their index where there is one."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if whole.exists():  # an index beside it is of an earlier model
        return read(whole)
    if not index.exists():
        files: Iterable[Path] = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise LoopkitError(f"{folder} has no model.safetensors; convert it first: loopkit convert SRC DST")
        return {name: array for file in files for name, array in read(file).items()}
    try:
        where: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError) as error:
        raise LoopkitError(f"{index} is not a safetensors index ({error}); copy the folder again") from error
    shards = {file: read(folder / file) for file in sorted(set(where.values()))}
    for name, file in where.items():
        if name not in shards[file]:
            raise LoopkitError(f"{folder / file} lacks tensor {name}, which the index places there; copy the folder again")
    return {name: shards[file][name] for name, file in where.items()}


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _cast(name: str, array: np.ndarray, dtype: np.dtype[Any] | None) -> np.ndarray:
    floating = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    if dtype is None or not floating or array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype == np.float16 and (np.isinf(cast) & np.isfinite(array.astype(np.float32))).any():
        raise LoopkitError(f"tensor {name} holds numbers too large for float16; choose --dtype bfloat16")
    return cast
