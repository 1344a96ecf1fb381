"""What long work shows on a terminal's stderr: a training run as it goes, and a bar of what is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loopkit.cli import options
from loopkit.progress import Bars, Progress

if TYPE_CHECKING:
    from rich.table import Table

    from loopkit.training.events import Event, Step
    from loopkit.training.start import Ready


def watch(events: Iterator["Event"], ready: "Ready", quiet: bool) -> Iterator["Event"]:
    """The same events, drawn as they pass unless ``quiet`` or without a terminal."""
    terminal = options.console(stderr=True)
    if quiet or not terminal.is_terminal:
        yield from events
        return
    from rich.live import Live

    from loopkit.training.events import Evaluated, Grown, Step

    job, start = ready[0], time.perf_counter()
    heldout, first = None, ready[2].tokens
    with Live(console=terminal, refresh_per_second=8) as live:
        for event in events:
            if isinstance(event, Evaluated):
                heldout = event.loss
            elif isinstance(event, Grown):
                live.console.print(f"step {event.step}: grown to {event.layers} layers in {event.seconds:.2f} s")
            elif isinstance(event, Step):
                rate = (event.tokens - first) / (time.perf_counter() - start)
                live.update(_table(event, job.recipe.schedule.steps, len(job.stages), job.growths(event.step) + 1, rate, heldout))
            yield event


@contextmanager
def bars() -> Iterator[Bars]:
    """What draws a bar for one part of the work after the other: how much is done, of how much, the time left; silent without a terminal.

    A bar is there from the first call of its progress until all is done: other output comes between.
    """
    import rich.progress
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    terminal = options.console(stderr=True)
    cut = Column(no_wrap=True, overflow="ellipsis", max_width=max(20, terminal.width - 45))  # the numbers keep their room
    columns = (
        TextColumn("{task.description}", table_column=cut),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    shown = rich.progress.Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal)
    task = shown.add_task("")

    def of(text: str) -> Progress:
        def show(done: int, total: int) -> None:
            if shown.tasks[0].description != text or shown.finished:
                shown.reset(task, description=text)
            shown.update(task, completed=done, total=total)
            shown.start()
            if done == total:
                shown.stop()

        return show

    try:
        yield of
    finally:
        shown.stop()


def _table(step: "Step", total: int, stages: int, stage: int, tokens_a_second: float, heldout: float | None) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("step", f"{step.step + 1:,} of {total:,}", ProgressBar(total=total, completed=step.step + 1, width=40))
    left = (total - step.step - 1) * (step.tokens / (step.step + 1)) / tokens_a_second
    table.add_row("loss", f"{step.loss:.4f}", f"held out {heldout:.4f}" if heldout is not None else "")
    table.add_row("speed", f"{tokens_a_second:,.0f} tokens/s", f"about {left / 60:.0f} min left, {step.flops:.2e} FLOPs spent")
    table.add_row(
        "depth",
        f"{step.layers} layers",
        "▮" * step.layers + f" {step.visits} visits" + (f", stage {stage} of {stages}" if stages > 1 else ""),
    )
    table.add_row("rate", f"{step.rate:.2e}", f"gradient {step.gradient_norm:.3f}")
    return table
