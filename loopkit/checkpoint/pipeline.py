"""Conversion with everything that may follow it: another plan made the checkpoint's own, and MLX's quantizer."""

import tempfile
from pathlib import Path

from loopkit.checkpoint.atomic import refuse_existing
from loopkit.checkpoint.convert import Say, convert
from loopkit.checkpoint.export import export, quantize
from loopkit.checkpoint.folder import Checkpoint, open_folder
from loopkit.plan import parse_plan


def convert_to(
    source: str,
    destination: Path,
    *,
    dtype: str | None = None,
    config: Path | None = None,
    plan: str | None = None,
    unrolled: bool = False,
    bits: int | None = None,
    force: bool = False,
    progress: Say | None = None,
) -> Checkpoint:
    """Convert ``source``, give it ``plan`` unrolled or tied, quantize it to ``bits``; write only the last result.

    ``progress`` hears what is going on. Raises what convert, export and quantize raise.
    """
    refuse_existing(destination, force)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as scratch:
        steps = 1 + (plan is not None) + (bits is not None)
        targets = [*(Path(scratch) / str(step) for step in range(steps - 1)), destination]
        convert(source, targets[0], dtype=dtype, config=config, force=force, progress=progress)
        if plan is not None:
            opened = open_folder(targets[0])
            export(opened, targets[1], plan=parse_plan(plan, opened.spec.plan), unrolled=unrolled, force=force)
        if bits is not None:
            quantize(targets[-2], destination, bits, force=force)
    return open_folder(destination)
