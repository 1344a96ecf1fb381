"""loopkit probe"""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopkit.cli import options
from loopkit.cli.progress import bars
from loopkit.errors import UsageError

if TYPE_CHECKING:
    from loopkit.probes.study import Results

NAMES = (
    "depth-score, logit-lens, tuned-lens, top5-overlap, residual-norms, sublayers, local-effects, future-effects, swap, skip, repeat, "
    "block-similarity, fixed-point; all: every one but tuned-lens, which trains."
)


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAMES)],
    checkpoint: options.Checkpoint,
    plan: options.Plan = None,
    data: Annotated[
        str, typer.Option(help="What to run on: primitives:TASK, stdlib, file:PATH or hf:NAME; tasks also give accuracies.")
    ] = "primitives:var-math-1",
    examples: Annotated[int, typer.Option(help="Prompts, and questions of a task.", min=1)] = 8,
    length: Annotated[
        int | None, typer.Option(help="Tokens a prompt; 128 by default, or all that the model has room for.", min=4, show_default=False)
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Worked examples before each question; 5 by default, or as many as fit.", min=0, show_default=False)
    ] = None,
    against: Annotated[list[Path] | None, typer.Option(help="Another checkpoint beside it; repeatable.", show_default=False)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A probe's own setting, e.g. size=2, cuts=4, positions=65536.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for JSON, npz, figures and a page.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of prompts, positions and intervals.", min=0)] = 0,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Look inside checkpoints with one of the paper's analyses, by visit, so for looped plans too.

    With --out a stopped command goes on where it was when it is given again.

    Examples:

    - loopkit probe depth-score smol --out probes/depth
    - loopkit probe all runs/standard --against runs/lidas --against runs/looped --data primitives:copy-words-32 --shots 0 --out probes/all
    - loopkit probe fixed-point smol --plan 8:12x8 --data stdlib
    """
    from loopkit.probes import study as studies

    checkpoints, own = studies.labels([checkpoint, *(against or [])]), tuple(map(_pair, settings or []))
    asked = studies.Study(name, checkpoints, plan, data, examples, length, shots, seed, backend, device, dtype, own)
    _ = asked.probes  # a wrong name shows before any work
    if out:
        studies.check(asked)  # before --force takes an old folder away
        studies.open_folder(asked, out, force)
    with bars() as of:
        try:
            results, skipped = studies.run(asked, out, of)
            page = studies.finish(asked, results, skipped, out, shlex.join(["loopkit", *sys.argv[1:]])) if out else None
        except KeyboardInterrupt:
            typer.echo("stopped; give the same command again to go on" if out else "stopped", err=True)
            raise typer.Exit(130) from None
    for each in skipped:
        typer.echo(f"skipped {each}", err=True)
    if as_json:
        _print_json(results, asdict(asked))
    else:
        _print(results)
        if page:
            typer.echo(str(page))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"bad setting {text!r}; write key=value, e.g. size=2")
    return key.strip(), value.strip()


def _print_json(results: "Results", asked: dict[str, object]) -> None:
    from loopkit.probes.result import to_json

    found = {name: {label: to_json(result) for label, result in each.items()} for name, each in results.items()}
    options.print_json({"study": asked, "results": found})


def _print(results: "Results") -> None:
    from rich.table import Table

    from loopkit.probes.draw import headlines

    for name, by_label in results.items():
        numbers = headlines(by_label)
        table = Table(title=name)
        for column in numbers.columns:
            table.add_column(column)
        for row in numbers.rows:
            table.add_row(*("" if each is None else each if isinstance(each, str) else f"{each:.4g}" for each in row))
        options.console().print(table)
