"""Checkpoint folders the ecosystem knows: config.json, model.safetensors, tokenizer.json and friends <-> Spec and arrays."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from loopkit.checkpoint import tensors
from loopkit.checkpoint.atomic import new_folder, refuse_existing
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
)
KEPT_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "history")  # of config.json, beside what a Spec writes
PORTABLE = ("modeling_looped.py", "mlx_looped.py")  # the files that run a looped checkpoint in transformers and mlx-lm


@dataclass(frozen=True)
class Checkpoint:
    """An open folder: its Spec, its config.json as it stands, and its arrays, memory-mapped."""

    path: Path
    spec: Spec
    config: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def quantized(self) -> bool:
        """Whether the linear weights are packed by MLX's quantizer."""
        return "quantization" in self.config

    @property
    def dtype(self) -> str:
        """The stored type of the embedding, e.g. ``bfloat16``."""
        return self.arrays["model.norm.weight"].dtype.name

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the model's sizes and weights, all of which are read for it once."""
        digest = blake2b(repr(self.spec).encode(), digest_size=16)
        for name, array in sorted(self.arrays.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()


def open_folder(path: Path | str) -> Checkpoint:
    """Open a checkpoint folder, or a run's newest one.

    Raises LoopkitError naming the file, and the tensor where one is missing or misshapen.
    """
    path = newest(Path(path))
    config = read_config(path)
    spec = read_spec(config, path / "config.json")
    arrays = tensors.read_folder(path)
    quantized = "quantization" in config
    return Checkpoint(path, spec, config, check_arrays(spec, arrays, str(path), quantized))


def newest(path: Path) -> Path:
    """The checkpoint that a run folder's ``latest`` names; any other path as it is."""
    pointer = path / "latest"
    return path / pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else path


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a folder. Raises LoopkitError where there is none or it does not parse."""
    file = path / "config.json"
    if not path.exists():
        raise LoopkitError(f"{path} does not exist; make a checkpoint with: loopkit convert SRC DST")
    if not file.exists():
        raise LoopkitError(f"{path} has no config.json, so it is not a checkpoint folder; make one with: loopkit convert SRC DST")
    return read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises LoopkitError where it holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise LoopkitError(f"{file} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise LoopkitError(f"{file} is not a JSON object")
    return found


def read_spec(config: Mapping[str, Any], file: Path) -> Spec:
    """The Spec of a config. Raises LoopkitError naming ``file`` where the model is not one this project runs."""
    try:
        return Spec.from_config(config)
    except (TypeError, ValueError) as error:
        raise LoopkitError(f"{file}: {error}") from error


def kept_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of config.json that outlive a conversion: token ids and growth history."""
    return {key: config[key] for key in KEPT_KEYS if key in config}


def check_dtype(dtype: str | None) -> None:
    """Raises UsageError where ``dtype`` is neither None nor one that a checkpoint can have."""
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")


def common_dtype(arrays: Mapping[str, np.ndarray]) -> str:
    """The type all arrays have; float32 where they differ or have another one."""
    found = {array.dtype.name for array in arrays.values()}
    return found.pop() if len(found) == 1 and found <= set(DTYPES) else "float32"


def check_arrays(spec: Spec, arrays: Mapping[str, np.ndarray], where: str, quantized: bool = False) -> dict[str, np.ndarray]:
    """Exactly the arrays ``spec`` asks for, in its order. Raises LoopkitError naming the first that is missing or misshapen.

    Left out without a word are the rotary buffers of old checkpoints and a head that is tied anyway.
    """
    wanted = spec.shapes()
    for name, shape in wanted.items():
        if name not in arrays:
            raise LoopkitError(f"{where} lacks tensor {name}")
        if arrays[name].shape != shape and not quantized:
            raise LoopkitError(f"{where}: tensor {name} has shape {list(arrays[name].shape)}, its config asks for {list(shape)}")
    packed = (".scales", ".biases") if quantized else ()
    for name in arrays:
        ignored = name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and spec.tie_word_embeddings)
        if name not in wanted and not ignored and not name.endswith(packed or ("\0",)):
            raise LoopkitError(f"{where}: tensor {name} has no place in the model its config describes")
    extra = [name for name in arrays if name.endswith(packed or ("\0",))]
    return {name: arrays[name] for name in [*wanted, *extra]}


def write_folder(
    path: Path | str,
    spec: Spec,
    arrays: Mapping[str, np.ndarray],
    *,
    dtype: str | None = None,
    tokenizer: Path | None = None,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write a checkpoint folder, whole or not at all.

    ``dtype`` casts (float32, float16, bfloat16; None keeps the type the arrays have in common). ``tokenizer`` is a folder whose tokenizer
    and generation files are copied. ``config`` adds keys to config.json, such as token ids or the growth history. Looped
    layouts also get the two files that run them in transformers and mlx-lm.
    """
    path = Path(path)
    refuse_existing(path, force)
    with new_folder(path, force) as folder:
        fill_folder(folder, spec, arrays, dtype=dtype, tokenizer=tokenizer, config=config)
    return path


def fill_folder(
    folder: Path,
    spec: Spec,
    arrays: Mapping[str, np.ndarray],
    *,
    dtype: str | None = None,
    tokenizer: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """The files of ``write_folder`` put into a folder that the caller makes whole."""
    check_dtype(dtype)
    arrays = check_arrays(spec, arrays, "the model to write")
    stored = dtype or common_dtype(arrays)
    tensors.write_sharded(folder, arrays, DTYPES[stored])
    whole = {**(config or {}), **spec.to_config(stored)}
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        copy_tokenizer(tokenizer, folder)
    if spec.looped:
        copy_portable(folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer and generation files, those that exist."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def copy_portable(folder: Path) -> None:
    """Put the files beside a looped checkpoint that run it elsewhere."""
    for name in PORTABLE:
        (folder / name).write_bytes((resources.files("loopkit.checkpoint") / "portable" / name).read_bytes())
