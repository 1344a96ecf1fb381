"""From what others leave behind to a checkpoint folder: Hugging Face folders, the hub, GGUF files, torch state dicts."""

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from loopkit import backend
from loopkit.checkpoint import bundled, tensors
from loopkit.checkpoint.atomic import refuse_existing
from loopkit.checkpoint.folder import (
    DTYPES,
    check_arrays,
    check_dtype,
    common_dtype,
    kept_keys,
    newest,
    read_config,
    read_json,
    read_spec,
    write_folder,
)
from loopkit.checkpoint.gguf import read_gguf
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec

Say = Callable[[str], None]
SOURCES = f"{bundled.NAME}, a Hugging Face folder, a training run, a hub id org/name, a .gguf file, or a .pt, .pth or .bin state dict"
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt")


@dataclass(frozen=True)
class Source:
    """A model read: ``config`` are keys of config.json that a Spec does not know, ``tokenizer`` the folder of its files."""

    spec: Spec
    arrays: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    tokenizer: Path


def convert(
    source: str,
    destination: Path,
    *,
    dtype: str | None = None,
    config: Path | None = None,
    force: bool = False,
    progress: Say | None = None,
) -> Path:
    """Write the checkpoint folder ``destination`` from ``source``, whole or not at all.

    ``source`` is the name smollm2-135m-instruct, a GGUF file, a torch state dict (its config.json beside it, or ``config``),
    a Hugging Face folder, a training run or a hub id. ``dtype`` casts; by default the source's own type stays, float32 for quantized ones.
    ``progress`` hears what is going on. Raises LoopkitError naming the file and tensor, UsageError before any work is done.
    """
    refuse_existing(destination, force)
    check_dtype(dtype)
    say = progress or (lambda _: None)
    with tempfile.TemporaryDirectory() as scratch:
        model = _read(source, dtype, config, Path(scratch), say)
        say(f"writing {destination}")
        return write_folder(
            destination,
            model.spec,
            model.arrays,
            dtype=dtype or common_dtype(model.arrays),
            tokenizer=model.tokenizer,
            config=model.config,
            force=force,
        )


def _read(source: str, dtype: str | None, config: Path | None, scratch: Path, say: Say) -> Source:
    path = bundled.bundled_model(say) if source == bundled.NAME else Path(source).expanduser()
    kind = path.suffix.lower()
    if path.is_file() and kind in (".pt", ".pth", ".bin"):
        say(f"reading {path}")
        return _read_state_dict(path, config or path.parent / "config.json")
    if config is not None:
        raise UsageError("a config goes with a torch state dict (.pt, .pth, .bin); other sources bring their own")
    if path.is_file() and kind == ".gguf":
        say(f"reading {path}")
        return _read_gguf(path, dtype, scratch)
    if path.is_dir():
        say(f"reading {path}")
        return _read_folder(newest(path))
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        what = "is not a model this project reads" if path.exists() else "does not exist"
        raise UsageError(f"{source} {what}; a source is {SOURCES}")
    say(f"fetching {source} from the hub")
    return _read_folder(_fetch(source))


def _read_gguf(path: Path, dtype: str | None, scratch: Path) -> Source:
    model = read_gguf(path, dtype)
    for name, text in model.tokenizer.items():
        (scratch / name).write_text(text, encoding="utf-8")
    return Source(model.spec, model.arrays, model.token_ids, scratch)


def _read_state_dict(path: Path, config_file: Path) -> Source:
    config_file = config_file / "config.json" if config_file.is_dir() else config_file
    if not config_file.is_file():
        raise LoopkitError(f"{config_file} does not exist; put the model's config.json beside {path.name}, or name it with --config")
    config = read_json(config_file)
    spec = _spec(config, config_file)
    return _source(spec, _torch_arrays(path), config, path, config_file.parent)


def _read_folder(folder: Path) -> Source:
    config = read_config(folder)
    spec = _spec(config, folder / "config.json")
    return _source(spec, _folder_arrays(folder), config, folder, folder)


def _source(spec: Spec, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], where: Path, tokenizer: Path) -> Source:
    checked = check_arrays(spec, clean_names(arrays), str(where))
    for name, array in checked.items():
        if array.dtype.name not in (*DTYPES, "float64"):
            raise LoopkitError(f"{where}: tensor {name} has type {array.dtype.name}; convert a model of float weights")
    return Source(spec, checked, kept_keys(config), tokenizer)


def _spec(config: Mapping[str, Any], file: Path) -> Spec:
    """The config's Spec, so that what cannot be converted is refused before any weights are read."""
    if "quantization" in config:
        raise LoopkitError(f"{file}: the weights are quantized by MLX, and rounding cannot be undone; convert the original model")
    return read_spec(config, file)


def _folder_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of safetensors, or lacking those of ``pytorch_model.bin``, in one file or several."""
    index = folder / "pytorch_model.bin.index.json"
    whole = folder / "pytorch_model.bin"
    if any(folder.glob("model*.safetensors*")) or not (index.exists() or whole.exists()):
        return tensors.read_folder(folder)
    if whole.exists():
        return _torch_arrays(whole)
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoopkitError(f"{index} is not an index of shards ({error}); copy the folder again") from error
    return {name: array for shard in shards for name, array in _torch_arrays(folder / shard).items()}


def _torch_arrays(path: Path) -> dict[str, np.ndarray]:
    torch = cast(Any, backend.load("torch"))  # torch's own file format, so no part of what every backend can do
    return cast(dict[str, np.ndarray], torch.read_state_dict(path))


def clean_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's names: without what DDP, torch.compile and trainers put before them, with ``model.`` where it is missing."""
    return {_clean(name): array for name, array in arrays.items()}


def _clean(name: str) -> str:
    name = name.replace("_orig_mod.", "")
    while name.startswith(("module.", "model.model.", "model.lm_head.", "model.module.")):
        name = name.split(".", 1)[1]
    return f"model.{name}" if name.startswith(("embed_tokens.", "layers.", "norm.")) else name


def _fetch(repository: str) -> Path:
    """A snapshot of a hub model, with torch files only where it has no safetensors."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(HUB_FILES), ignore_patterns=["*/*", "consolidated*"]))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(repository, allow_patterns=["pytorch_model*.bin"], ignore_patterns=["*/*"])
    except Exception as error:  # the hub's errors, the network's, and the file system's
        said = str(error).strip().splitlines()
        raise LoopkitError(
            f"{repository} is no file or folder here and could not be fetched from the hub"
            f" ({type(error).__name__}: {said[0] if said else 'no reason given'}); check the name, the network and hf auth login"
        ) from error
    return folder
