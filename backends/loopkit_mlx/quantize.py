"""Packing a checkpoint folder's weights with mlx-lm's quantizer."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from loopkit.errors import LoopkitError

GROUP_SIZES = (64, 32)  # weights that share a scale, best first as mlx-lm has it


def quantize_folder(source: Path, destination: Path, bits: int) -> None:
    """Write config.json and packed weights of the model in ``source`` into the existing folder ``destination``.

    Model code runs only from ``destination``, where the caller has put it if the model needs any; code in ``source`` never
    runs. Raises LoopkitError where the model's sizes do not divide into groups.
    """
    from mlx_lm import utils  # takes seconds: it loads transformers

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    model_file = config.get("model_file")
    code = destination.resolve() / model_file if model_file else None
    trusted = code is not None and code.parent == destination.resolve() and code.exists()
    model, _ = utils.load_model(source, lazy=True, model_config={"model_file": str(code) if trusted else None}, trust_remote_code=trusted)
    with redirect_stdout(sys.stderr):  # it reports with print
        model, config = utils.quantize_model(model, config, group_size(config), bits)
    utils.save_model(destination, model, donate_model=True)
    utils.save_config(config, destination / "config.json")


def group_size(config: dict[str, Any]) -> int:
    """The largest group that divides the rows of every weight matrix. Raises LoopkitError where none does."""
    heads = config["num_attention_heads"]
    attention = heads * (config.get("head_dim") or config["hidden_size"] // heads)
    rows = (config["hidden_size"], config["intermediate_size"], attention)
    for size in GROUP_SIZES:
        if all(row % size == 0 for row in rows):
            return size
    raise LoopkitError(f"sizes {rows} do not divide into groups of {GROUP_SIZES[-1]}, as the quantizer needs; keep this model unquantized")
