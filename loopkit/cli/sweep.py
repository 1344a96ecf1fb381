"""What ``loopkit loop`` does with --sweep and --search."""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopkit.cli import options
from loopkit.cli.progress import bars
from loopkit.errors import UsageError
from loopkit.progress import Progress

if TYPE_CHECKING:
    from loopkit.evaluation.search import Found
    from loopkit.evaluation.sweep import Results, Row, Settings
    from loopkit.session import Model


@dataclass(frozen=True)
class Wanted:
    """What to do with the plans: where to keep the answers, how many to try, and what to write of the best."""

    search: bool
    budget: int
    out: Path | None
    export: Path | None
    tie: bool
    memory: int
    as_json: bool


def run(model: "Model", settings: "Settings", wanted: Wanted) -> None:
    """Sweep or search, print, write the page and the best checkpoint."""
    from loopkit.checkpoint.atomic import refuse_existing
    from loopkit.report.plots import require_matplotlib

    if wanted.export:
        refuse_existing(wanted.export, force=False)
    if wanted.out and not wanted.search:
        require_matplotlib()
    winner = _search(model, settings, wanted) if wanted.search else _sweep(model, settings, wanted)
    if wanted.export:
        _export(model, winner, wanted)


def _sweep(model: "Model", settings: "Settings", wanted: Wanted) -> str:
    from loopkit.evaluation.sweep import best, rows, sweep

    for results in _watched(sweep(model, settings, wanted.out, wanted.memory)):
        last = results
    found = rows(model, last)
    if wanted.out:
        _write_page(model, settings, last, wanted.out)
    if wanted.as_json:
        options.print_json({"settings": asdict(settings), "rows": [asdict(row) for row in found]})
    else:
        _print(model, settings, found)
    return best(found).plan


def _search(model: "Model", settings: "Settings", wanted: Wanted) -> str:
    from loopkit.evaluation.search import Found, search

    found = None
    with bars() as of:
        for event in search(model, settings, wanted.budget, wanted.out, wanted.memory):
            if isinstance(event, Found):
                found = event
            else:
                where = f"round {event.round}" if event.round else "held-out questions"
                _show(of(f"{where}: {event.asked} of {wanted.budget} plans"), event.results)
    assert found is not None
    if wanted.as_json:
        options.print_json({"settings": asdict(settings), "budget": wanted.budget, **asdict(found)})
    else:
        _print_search(found)
    return found.winner.plan


def _watched(steps: "Iterator[Results]") -> "Iterator[Results]":
    """The same, with a bar of the questions asked and the time left on a terminal's stderr."""
    with bars() as of:
        for results in steps:
            _show(of("questions"), results)
            yield results


def _show(progress: Progress, results: "Results") -> None:
    total = sum(map(len, results.done.values()))
    progress(round(results.share_done * total), total)


def _write_page(model: "Model", settings: "Settings", results: "Results", out: Path) -> None:
    from loopkit.evaluation.sweep_page import page
    from loopkit.report.page import write_page

    command = shlex.join(["loopkit", *sys.argv[1:]])
    options.console(stderr=True).print(f"wrote {write_page(out / 'sweep.html', page(model, settings, results, command))}")


def _print(model: "Model", settings: "Settings", found: "list[Row]") -> None:
    from loopkit.evaluation.sweep import ranked
    from loopkit.evaluation.sweep_page import heatmaps

    out = options.console()
    task = found[-1].task
    overall = [row for row in found if row.task == task]
    for name, matrix, times, starts in heatmaps(model, settings, found, task):
        out.print(_grid(f"{task}: change against the base plan in points, {name}", matrix, times, starts))
    out.print(_rows_table("best plans", [overall[0], *[row for row in ranked(overall) if row is not overall[0]][:10]]))
    out.print("The best of many looks better than it is; --search scores a winner on new questions.")


def _grid(title: str, matrix: Any, times: list[str], starts: list[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, show_lines=False)
    table.add_column("start")
    for name in times:
        table.add_column(name, justify="right")
    for start, column in zip(starts, matrix.T, strict=True):
        table.add_row(start, *(f"[{'green' if value > 0 else 'red' if value < 0 else 'dim'}]{value:+.1f}[/]" for value in column))
    return table


def _rows_table(title: str, found: "list[Row]") -> Any:
    from rich.table import Table

    table = Table(title=title)
    table.add_column("plan", no_wrap=True)
    for name in ("accuracy", "95% interval", "change", "95% interval", "p", "p (Holm)", "FLOPs"):
        table.add_column(name, justify="right")
    for row in found:
        low, high = row.interval
        worse, better = row.difference_interval
        table.add_row(
            row.plan, f"{row.share:.1%}", f"{low:.0%} to {high:.0%}", f"{100 * row.difference:+.1f}",
            f"{100 * worse:+.0f} to {100 * better:+.0f}", f"{row.p:.2g}", f"{row.p_holm:.2g}", f"{row.flops:.2f}x",
        )  # fmt: skip
    return table


def _print_search(found: "Found") -> None:
    out = options.console()
    out.print(_rows_table("best plans on the search questions", list(found.tried[:10])))
    out.print(_rows_table("the winner on new questions", [found.heldout]))


def _export(model: "Model", plan: str, wanted: Wanted) -> None:
    from loopkit.checkpoint.export import export
    from loopkit.inference.modes import split_mode

    assert wanted.export is not None
    if split_mode(plan)[1] != "plain":
        raise UsageError(f"the best plan is {plan}; checkpoints hold plain plans only: sweep with --mode plain to export one")
    export(model.checkpoint, wanted.export, plan=model.resolve(plan), unrolled=not wanted.tie)
    options.console(stderr=True).print(f"wrote {wanted.export}: {plan}, {'tied' if wanted.tie else 'unrolled'}")
