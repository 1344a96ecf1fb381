"""loopkit eval"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopkit.cli import options

if TYPE_CHECKING:
    from loopkit.evaluation.choice import Accuracy


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Checkpoint folders or runs.")],
    tasks: Annotated[str, typer.Option(help="Generated tasks, e.g. copy-words,var-math-1.")] = "copy-words",
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Also under this plan, e.g. 8:12x2; repeatable.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 100,
    shots: Annotated[int, typer.Option(help="Worked examples before each question.", min=0)] = 5,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.", min=0)] = 0,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Score checkpoints on multiple-choice reasoning primitives, under their own plan and others.

    Examples:

    - loopkit eval smol --tasks copy-words,var-math-0 --plan 8:12x2
    - loopkit eval runs/base runs/lidas --tasks copy-words-32 --shots 0 --plan 2:6x2 --plan 2:6x3
    """
    from loopkit.evaluation.choice import accuracy
    from loopkit.session import load

    results = []
    for path in checkpoints:
        with options.status(f"scoring {path}", quiet=as_json):
            model = load(path, backend, device, dtype)
            found = [
                accuracy(model, task.strip(), which, count, shots, seed) for task in tasks.split(",") for which in (None, *(plan or []))
            ]
        results += [(str(path), each) for each in found]
    if as_json:
        options.print_json(
            [{"checkpoint": path, **asdict(each), "accuracy": each.share, "interval": each.interval} for path, each in results]
        )
    else:
        _print(results)


def _print(results: "list[tuple[str, Accuracy]]") -> None:
    from rich.table import Table

    table = Table(title="accuracy, with its 95% interval")
    for name in ("checkpoint", "task", "plan"):
        table.add_column(name)
    for name in ("accuracy", "interval", "chance"):
        table.add_column(name, justify="right")
    for path, each in results:
        low, high = each.interval
        table.add_row(path, each.task, each.plan, f"{each.share:.1%}", f"{low:.1%} to {high:.1%}", f"{each.chance:.1%}")
    options.console().print(table)
