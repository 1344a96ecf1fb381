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
from loopkit.plan import format_plan
from loopkit.session import load
from loopkit.spec import preset

TOLERANCE = 1e-4  # largest float32 logit difference that counts as agreement
POSITIONS = 64


def examine(checkpoint: Path | None = None, plan: str | None = None) -> dict[str, Any]:
    """System, backends and parity as plain data; parity is None where fewer than two backends work.

    Parity compares float32 logits on the CPU or the backend's own device, on seeded random ids. Raises LoopkitError where the
    checkpoint does not open.
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
            ids = np.random.default_rng(0).integers(0, model.spec.vocab_size, (1, min(POSITIONS, model.spec.max_position_embeddings)))
            resolved = model.resolve(plan)
            logits.append(model.logits(ids, resolved))
            shown = format_plan(resolved, model.plan)
            del model
    difference = float(np.abs(logits[0] - logits[1]).max())
    return {
        "model": str(checkpoint or "a random looped model"),
        "plan": shown,
        "positions": int(ids.size),
        "difference": difference,
        "same_top": float((logits[0].argmax(-1) == logits[1].argmax(-1)).mean()),
        "tolerance": TOLERANCE,
        "agree": difference <= TOLERANCE,
    }


def _random_model(path: Path) -> Path:
    spec = replace(preset("nano"), layout="2-2x2-2")
    return write_folder(path, spec, initialize(spec))
