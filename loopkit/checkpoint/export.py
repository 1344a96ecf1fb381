"""A checkpoint with another plan made its own: unrolled into a plain deeper model, or tied into a looped one; quantized for MLX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from loopkit import backend as backends
from loopkit.checkpoint.atomic import new_folder, refuse_existing
from loopkit.checkpoint.folder import Checkpoint, copy_portable, copy_tokenizer, kept_keys, open_folder, write_folder
from loopkit.errors import LoopkitError, UsageError
from loopkit.plan import Plan, check_plan
from loopkit.spec import Spec

BITS = (4, 8)


def unroll(checkpoint: Checkpoint, plan: Plan) -> tuple[Spec, dict[str, np.ndarray]]:
    """A standard model with one layer for each visit of ``plan``: its Spec and arrays, which share memory.

    Raises UsageError where the plan runs a layer there is not, LoopkitError for a quantized checkpoint.
    """
    plan = check_plan(plan, checkpoint.spec.n_layers)
    return checkpoint.spec.with_layout(str(len(plan))), _renumbered(checkpoint, plan)


def tie(checkpoint: Checkpoint, plan: Plan) -> tuple[Spec, dict[str, np.ndarray]]:
    """A model whose own plan is ``plan``: its Spec and arrays, which share memory.

    Layers that the plan never runs are left out and the others numbered from 0 in the same order. Raises as ``unroll`` does.
    """
    used = sorted(set(check_plan(plan, checkpoint.spec.n_layers)))
    layout = tuple(used.index(layer) for layer in plan)
    return checkpoint.spec.with_layout(layout), _renumbered(checkpoint, used)


def export(
    checkpoint: Checkpoint, destination: Path | str, *, plan: Plan, unrolled: bool, dtype: str | None = None, force: bool = False
) -> Path:
    """Write the checkpoint with ``plan`` as its own, unrolled or tied, with its tokenizer and token ids. Its growth history stays where
    its layers do.

    ``dtype`` and ``force`` are those of ``write_folder``. Raises LoopkitError.
    """
    spec, arrays = (unroll if unrolled else tie)(checkpoint, plan)
    config = kept_keys(checkpoint.config)
    if spec.n_layers != checkpoint.spec.n_layers or (unrolled and plan != tuple(range(len(plan)))):
        config.pop("history", None)
    return write_folder(destination, spec, arrays, dtype=dtype, tokenizer=checkpoint.path, config=config, force=force)


def quantize(source: Path | str, destination: Path | str, bits: int, force: bool = False) -> Path:
    """Write a checkpoint folder packed to ``bits`` (4 or 8) a weight by mlx-lm's quantizer, for MLX alone. Raises LoopkitError."""
    if bits not in BITS:
        raise UsageError(f"cannot quantize to {bits} bits; choose 4 or 8")
    checkpoint, destination = open_folder(source), Path(destination)
    _refuse_quantized(checkpoint)
    mlx = cast(Any, backends.load("mlx"))  # packing is MLX's own, so it is no part of the protocol
    refuse_existing(destination, force)
    with new_folder(destination, force) as folder:
        copy_tokenizer(checkpoint.path, folder)
        if checkpoint.spec.looped:
            copy_portable(folder)
        mlx.quantize_folder(checkpoint.path, folder, bits)
    return destination


def _renumbered(checkpoint: Checkpoint, layers: Sequence[int]) -> dict[str, np.ndarray]:
    """The arrays with layer ``i`` taken from ``layers[i]`` of the checkpoint."""
    _refuse_quantized(checkpoint)
    names = checkpoint.spec.layer_shapes()
    arrays: Mapping[str, np.ndarray] = checkpoint.arrays
    outside = {name: array for name, array in arrays.items() if not name.startswith("model.layers.")}
    return outside | {
        f"model.layers.{new}.{name}": arrays[f"model.layers.{old}.{name}"] for new, old in enumerate(layers) for name in names
    }


def _refuse_quantized(checkpoint: Checkpoint) -> None:
    if checkpoint.quantized:
        raise LoopkitError(f"{checkpoint.path} is quantized, so its layers cannot be rearranged; start from the original checkpoint")
