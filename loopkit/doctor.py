"""A look at the machine: versions, devices, matmul rates, and whether both backends compute the same numbers."""

import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loopkit import __version__
from loopkit import backend as backends
from loopkit.checkpoint.folder import write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.errors import LoopkitError
from loopkit.session import Model, load
from loopkit.spec import preset

TOLERANCE = 1e-5  # of the largest logit, and never less than 1e-4: float32 rounding grows with the numbers
POSITIONS = 64
TEXT = (
    "A looped transformer runs the same block of layers several times; a grown one begins shallow and deepens by copying its middle."
    " Both spend more of their computation late, and both get better at copying, counting and following a chain of assignments."
)


def examine(checkpoint: Path | None = None, plan: str | None = None) -> dict[str, Any]:
    """System, backends and parity as plain data; parity is None where fewer than two backends work.

    Parity compares float32 logits on the CPU or the backend's own device, on a text, or seeded random ids where it has no
    tokenizer. Raises LoopkitError where the checkpoint does not open.
    """
    system = {
        "loopkit": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    found = {name: _examine_backend(name) for name in backends.PACKAGES}
    working = [name for name, facts in found.items() if "error" not in facts]
    return {"system": system, "backends": found, "parity": _parity(working, checkpoint, plan) if len(working) > 1 else None}


def _examine_backend(name: str) -> dict[str, Any]:
    try:
        backend = backends.load(name)
    except LoopkitError as error:
        return {"error": str(error)}
    devices = backend.devices()
    return {"devices": devices, "gflops": backend.matmul_rate(devices[0]), "versions": backend.versions()}


def _parity(names: list[str], checkpoint: Path | None, plan: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        path = checkpoint or _random_model(Path(scratch) / "random")
        logits = []
        for name in names:
            model = load(path, name, dtype="float32")
            ids = _probe_ids(model)
            logits.append(model.logits(ids, plan))
            shown = model.text(plan)
            del model
    tolerance = max(1e-4, TOLERANCE * float(np.abs(logits[0]).max()))
    difference = float(np.abs(logits[0] - logits[1]).max())
    return {
        "model": str(checkpoint or "a random looped model"),
        "plan": shown,
        "positions": int(ids.size),
        "difference": difference,
        "same_top": float((logits[0].argmax(-1) == logits[1].argmax(-1)).mean()),
        "tolerance": tolerance,
        "agree": difference <= tolerance,
    }


def _probe_ids(model: Model) -> np.ndarray:
    """A text where the model can read one: on random ids a trained model's rounding errors are several times larger."""
    positions = min(POSITIONS, model.spec.max_position_embeddings)
    if (model.checkpoint.path / "tokenizer.json").exists():
        return np.array([model.prompt_ids(TEXT)[:positions]])
    return np.random.default_rng(0).integers(0, model.spec.vocab_size, (1, positions))


def _random_model(path: Path) -> Path:
    spec = replace(preset("nano"), layout="2-2x2-2")
    return write_folder(path, spec, initialize(spec))
