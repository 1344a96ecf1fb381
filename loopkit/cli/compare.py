"""loopkit compare"""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopkit.cli import options
from loopkit.cli.progress import bars

if TYPE_CHECKING:
    from loopkit.evaluation.tradeoffs import Entry


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN_OR_CKPT...", help="Runs, folders of runs by seed, checkpoints.")],
    tasks: Annotated[str, typer.Option(help="Generated tasks, e.g. copy-words,var-math-1, or primitives for all of the paper's.")],
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Also under this plan, e.g. 8:12x2; repeatable.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 200,
    shots: Annotated[int, typer.Option(help="Worked examples before each question.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.", min=0)] = 0,
    data: Annotated[
        str | None,
        typer.Option(help="Mixture whose held-out part NLL is measured on; the runs' own where it is the same.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option(help="Held-out sequences.", min=1)] = 64,
    length: Annotated[int, typer.Option(help="Their length in tokens; FLOPs a token are for it, too.", min=2)] = 256,
    out: Annotated[Path | None, typer.Option(help="Folder for the page and its plots.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page in --out if it exists.")] = False,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Set models side by side: accuracy and held-out NLL against parameters, inference FLOPs and training FLOPs.

    Runs that a list of seeds made (folders seed_0, seed_1, ...) count as one model with an interval.

    Examples:

    - loopkit compare runs/standard runs/lidas runs/looped --tasks copy-words-32 --out runs/page
    - loopkit compare smol --tasks primitives --shots 5 --plan 8:12x2 --data stdlib --json
    """
    from loopkit.data.tasks import named
    from loopkit.evaluation.tradeoffs import groups, held_out, measure
    from loopkit.report.plots import require_matplotlib

    if out:
        require_matplotlib()
        options.refuse_file(out / "compare.html", force)
    found = groups(paths)
    text = held_out(found, data, rows, length)
    mixture = str(text.mixture) if text else None
    names = named(tasks)
    entries: list[Entry] = []
    with bars() as of:
        for group in found:
            entries += measure(
                group, (None, *(plan or [])), names, count=count, shots=shots, seed=seed, text=text, length=length,
                backend=backend, device=device, dtype=dtype, bars=of,
            )  # fmt: skip
    if out:
        _write(entries, out)
    if as_json:
        options.print_json({"data": mixture, "entries": [_plain(each) for each in entries]})
    else:
        _print(entries, mixture)


def _plain(each: "Entry") -> dict[str, object]:
    return {**asdict(each), "accuracy": each.accuracy, "interval": each.interval}


def _write(entries: "list[Entry]", out: Path) -> None:
    from loopkit.evaluation.tradeoffs_page import figures, page, short_names
    from loopkit.report.page import save_figure, write_page

    out.mkdir(parents=True, exist_ok=True)
    names = short_names(entries)
    drawn = figures(entries, names)
    for name, figure in drawn.items():
        save_figure(out / f"{name}.png", figure)
        save_figure(out / f"{name}.svg", figure)
    written = write_page(out / "compare.html", page(entries, names, drawn, shlex.join(["loopkit", *sys.argv[1:]])))
    options.console(stderr=True).print(f"wrote {written}")


def _print(entries: "list[Entry]", data: str | None) -> None:
    from rich import box
    from rich.table import Table

    from loopkit.evaluation.tradeoffs_page import short_names, table

    made = table(entries, short_names(entries), tasks=False)
    left_out = {"layout", "seeds", "bits/byte"}
    kept = [i for i, name in enumerate(made.columns) if name not in left_out and any(row[i] not in ("", None) for row in made.rows)]
    shown = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        title=f"NLL on the held-out part of {data}" if data else "no held-out text: name one with --data",
    )
    for i in kept:
        shown.add_column(made.columns[i], justify="left" if made.columns[i] == "model" else "right", overflow="fold")
    for row in made.rows:
        shown.add_row(*(f"{row[i]:.3f}" if isinstance(row[i], float) else "" if row[i] is None else str(row[i]) for i in kept))
    options.console().print(shown)
