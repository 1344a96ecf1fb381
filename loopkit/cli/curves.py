"""loopkit context and loopkit finetune: accuracy as curves."""

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
    from loopkit.evaluation.choice import Accuracy
    from loopkit.evaluation.curves import Curve

Checkpoints = Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Checkpoint folders or runs.")]


def context(
    checkpoints: Checkpoints,
    tasks: Annotated[
        str, typer.Option(help="Generated tasks, e.g. copy-words,var-math-1, or primitives for all of the paper's.")
    ] = "copy-words",
    shots: Annotated[
        str | None, typer.Option(help="Numbers of worked examples, e.g. 0,1,2,5; doubling while they fit by default.", show_default=False)
    ] = None,
    plan: Annotated[
        list[str] | None, typer.Option("--plan", help="Also under this plan, e.g. 8:12x2; repeatable.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed asks the same questions.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the page and its plots.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page in --out if it exists.")] = False,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """In-context scaling: accuracy against the number of worked examples in the prompt.

    Examples:

    - loopkit context smol --tasks copy-words --plan 8:12x2
    - loopkit context runs/standard runs/lidas --tasks var-basic-0,var-basic-1 --shots 0,1,2,5,10 --out runs/context
    """
    from loopkit.data.tasks import named
    from loopkit.evaluation.curves import fitting_shots, in_context
    from loopkit.report.plots import require_matplotlib
    from loopkit.session import load

    if out:
        require_matplotlib()
        options.refuse_file(out / "context.html", force)
    names, wanted = named(tasks), None if shots is None else options.numbers(shots, "--shots")
    curves: list[Curve] = []
    with bars() as of:
        for path in checkpoints:
            of(f"loading {path}")(0, 1)
            model = load(path, backend, device, dtype)
            for task in names:
                each = wanted or fitting_shots(model, task, count, seed)
                curves += in_context(model, str(path), task, (None, *(plan or [])), each, count, seed, of)
    _finish(curves, "In-context scaling", "worked examples in the prompt", out, "context.html", as_json)


def finetune(
    checkpoints: Checkpoints,
    out: Annotated[Path, typer.Option(help="Folder for the runs and the page; the same again goes on.")],
    tasks: Annotated[str, typer.Option(help="Generated tasks, each a curve of its own; primitives for all of the paper's.")] = "var-code-1",
    examples: Annotated[str, typer.Option(help="Numbers of training questions.")] = "0,16,64,256",
    seeds: Annotated[str, typer.Option(help="Seeds of the examples, a run each.")] = "0,1,2",
    steps: Annotated[int, typer.Option(help="Updates of each run.", min=1)] = 100,
    rows: Annotated[int, typer.Option(help="Sequences a step.", min=1)] = 8,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-4,
    untie: Annotated[bool, typer.Option("--untie", help="Give every visit of a looped checkpoint a layer of its own.")] = False,
    count: Annotated[int, typer.Option(help="Held-out questions.", min=1)] = 200,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Fine-tuning curves: accuracy on held-out questions against the number of questions fine-tuned on.

    Examples:

    - loopkit finetune runs/standard runs/lidas --tasks var-code-1 --examples 0,64,256 --out runs/tuned
    """
    from loopkit import backend as backends
    from loopkit.data.tasks import named
    from loopkit.evaluation.curves import Curve, Spot, Tuning, finetuning, keep_weights
    from loopkit.report.plots import require_matplotlib
    from loopkit.session import load
    from loopkit.training.loop import Hardware

    require_matplotlib()
    options.refuse_non_folder(out)
    chosen = backends.load(backend)
    where = backends.choose_device(chosen, device)
    hardware = Hardware(chosen, where, dtype or chosen.default_dtype(where))
    tuning = Tuning(steps, rows, rate, untie)
    names, sizes, numbers = named(tasks), options.numbers(examples, "--examples"), options.numbers(seeds, "--seeds")
    seeds_of = {size: numbers if size else numbers[:1] for size in sizes}
    by_folder = {str(path).strip("/").replace("/", "_"): path for path in checkpoints}  # a folder for each: its path, flat
    if len(by_folder) < len(checkpoints):
        raise UsageError(f"two of {', '.join(map(str, checkpoints))} would have the same folder in {out}; leave one out, or rename it")
    asked = [(path, name, task) for name, path in by_folder.items() for task in names]
    plans = {path: load(path, chosen.name, where).text() for path in checkpoints}
    keep_weights(out, by_folder)
    runs = [(*each, size, seed) for each in asked for size in sizes for seed in seeds_of[size]]
    found: dict[tuple[str, str, int, int], Accuracy] = {}
    with bars() as of:
        for done, (path, name, task, size, seed) in enumerate(runs):
            of("runs")(done, len(runs))
            folder = out / name / f"{task}_{size}_seed_{seed}"
            found[name, task, size, seed] = finetuning(path, task, size, seed, tuning, count, folder, hardware)
    curves = []
    for path, name, task in asked:
        spots = tuple(Spot(size, tuple(found[name, task, size, seed] for seed in seeds_of[size])) for size in sizes)
        curves.append(Curve(str(path), task, plans[path], spots))
    _finish(curves, "Fine-tuning", "questions fine-tuned on", out, "finetune.html", as_json)


def _finish(curves: "list[Curve]", title: str, axis: str, out: Path | None, name: str, as_json: bool) -> None:
    if out:
        _write(curves, title, axis, out, name)
    if as_json:
        options.print_json([asdict(curve) for curve in curves])
    else:
        _print(curves, axis)


def _write(curves: "list[Curve]", title: str, axis: str, out: Path, name: str) -> None:
    from loopkit.evaluation.curves_page import figures, page
    from loopkit.report.page import save_figure, write_page

    out.mkdir(parents=True, exist_ok=True)
    drawn = figures(curves, axis)
    for task, figure in drawn.items():
        save_figure(out / f"{task}.svg", figure)
    written = write_page(out / name, page(title, curves, drawn, shlex.join(["loopkit", *sys.argv[1:]])))
    options.console(stderr=True).print(f"wrote {written}")


def _print(curves: "list[Curve]", axis: str) -> None:
    from rich import box
    from rich.table import Table

    every = sorted({spot.examples for curve in curves for spot in curve.spots})
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), title=f"accuracy in % and its 95% interval, by {axis}")
    for name in ("model", "plan", "task"):
        table.add_column(name, overflow="fold")
    for n in every:
        table.add_column(str(n), justify="right")
    for curve in curves:
        cells = {spot.examples: f"{100 * spot.mean:.0f} {100 * spot.interval[0]:.0f}..{100 * spot.interval[1]:.0f}" for spot in curve.spots}
        table.add_row(curve.name, curve.plan, curve.task, *(cells.get(n, "") for n in every))
    options.console().print(table)
