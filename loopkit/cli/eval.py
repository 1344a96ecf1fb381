"""loopkit eval"""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopkit.cli import options
from loopkit.cli.progress import bars

if TYPE_CHECKING:
    from loopkit.evaluation.choice import Accuracy
    from loopkit.evaluation.groups import Asked
    from loopkit.evaluation.harness import Measure, Tasks
    from loopkit.session import Model

Plans = tuple[str | None, ...]


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Checkpoint folders or runs.")],
    tasks: Annotated[
        str, typer.Option(help="Generated tasks (copy-words), tasks of lm-eval (lambada_openai) and the paper's groups, with commas.")
    ] = "copy-words",
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Also under this plan, e.g. 8:12x2 or 8:12x2@damped; repeatable.", show_default=False)
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "--limit", help="Questions of each task; 100 generated ones, all that lm-eval has.", min=1, show_default=False
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(help="Worked examples before each question; 5, or as the paper or lm-eval's task has it.", min=0, show_default=False),
    ] = None,
    include_path: Annotated[Path | None, typer.Option(help="A folder with more lm-eval task files (.yaml).", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.", min=0)] = 0,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Score checkpoints on reasoning primitives and on lm-eval's benchmarks, under their own plan and others.

    The paper's groups: paper/closed-book, paper/open-book, paper/completion, paper/math-word, paper/primitives.

    Examples:

    - loopkit eval smol --tasks copy-words,var-math-0 --plan 8:12x2
    - loopkit eval runs/standard runs/lidas --tasks copy-words-32 --shots 0 --plan 2:6x2 --plan 2:6x3
    - loopkit eval smol --tasks paper/completion,gsm8k --plan 8:12x2 --limit 200
    - loopkit eval smol --tasks my_task --include-path tasks
    """
    from loopkit.evaluation import groups, harness
    from loopkit.session import load

    asked = groups.expand(tasks, shots)
    for note in groups.notes(tasks):
        print(f"note: {note}", file=sys.stderr)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # what the harness and the hub draw with; read when first imported
    loaded = harness.load_tasks([each.name for each in asked if not each.own], include_path)
    found: list[tuple[str, Accuracy | Measure]] = []
    try:
        for path in checkpoints:
            model = load(path, backend, device, dtype)
            found += ((str(path), each) for each in _score(model, asked, loaded, (None, *(plan or [])), count, seed, str(path)))
    finally:  # what is done is shown, whatever happens to the rest
        if found:
            (_print_json if as_json else _print)(found)


def _score(
    model: "Model", asked: "list[Asked]", loaded: "dict[str, Tasks]", plans: Plans, count: int | None, seed: int, name: str
) -> "Iterator[Accuracy | Measure]":
    from loopkit.evaluation.choice import accuracies
    from loopkit.evaluation.groups import OWN_SHOTS
    from loopkit.evaluation.harness import measure

    with bars() as of:
        for number, each in enumerate(asked, 1):
            show = of(f"{each.name} ({number} of {len(asked)}) of {name}")
            if each.own:
                shots = OWN_SHOTS if each.shots is None else each.shots
                yield from accuracies(model, each.name, plans, count or 100, shots, seed, progress=show)
            else:
                yield from measure(model, loaded[each.name], plans, count, each.shots, seed, progress=show)


def _print_json(found: "list[tuple[str, Accuracy | Measure]]") -> None:
    options.print_json([{"checkpoint": path, **asdict(each), **_derived(each)} for path, each in found])


def _derived(each: "Accuracy | Measure") -> dict[str, Any]:
    from loopkit.evaluation.choice import Accuracy

    return {"accuracy": each.share, "interval": each.interval} if isinstance(each, Accuracy) else {"interval": each.interval}


def _print(found: "list[tuple[str, Accuracy | Measure]]") -> None:
    from rich.table import Table

    from loopkit.evaluation.harness import Measure

    for checkpoint, of_it in groupby(found, itemgetter(0)):
        table = Table()
        for name in ("task", "plan", "metric"):
            table.add_column(name, overflow="fold")
        for name in ("value", "interval", "chance", "asked"):
            table.add_column(name, justify="right", no_wrap=True)
        for _, each in of_it:
            table.add_row(each.task, each.plan, *_cells(each))
        options.console().print(f"{checkpoint}, with 95% intervals", soft_wrap=True, highlight=False, markup=False)
        options.console().print(table)
    for path, task, count in dict.fromkeys((path, each.task, each.truncated) for path, each in found if isinstance(each, Measure)):
        if count:
            print(f"note: {task}: {count} prompts were longer than the positions of {path} and lost their beginning", file=sys.stderr)


def _cells(each: "Accuracy | Measure") -> tuple[str, ...]:
    """Metric, value, interval, chance and number of questions."""
    from loopkit.evaluation.choice import Accuracy

    if isinstance(each, Accuracy):
        low, high = each.interval
        return "accuracy", f"{each.share:.1%}", f"{low:.1%} to {high:.1%}", f"{each.chance:.1%}", str(each.questions)
    metric = each.metric if each.filter == "none" else f"{each.metric} ({each.filter})"
    interval = "" if each.interval is None else f"{each.interval[0]:.4g} to {each.interval[1]:.4g}"
    return metric, f"{each.value:.4g}", interval, "", str(each.questions or "")
