"""A sweep as pictures and one HTML page."""

from collections.abc import Iterator, Sequence

import numpy as np

from loopkit.evaluation.sweep import Results, Row, Settings, best, candidates, distinct, ranked, rows
from loopkit.report import plots
from loopkit.report.page import Block, Page, Picture, Table, picture
from loopkit.session import Model

SHOWN = 15  # plans in the table of the best


def page(model: Model, settings: Settings, results: Results, command: str) -> Page:
    """Heat maps of every task, block size and mode over start and times, and the best plans with how sure they are."""
    found = rows(model, results)
    overall = [row for row in found if row.task == found[-1].task]
    tasks = list(dict.fromkeys(row.task for row in found))
    sections: list[tuple[str, Sequence[Block]]] = [("", [_summary(overall, settings), _table(overall)])]
    sections += [(task, [_tasks_words(found, task), *_maps(model, settings, found, task)]) for task in reversed(tasks)]
    return Page(f"Loops of {model.checkpoint.path.name}", sections, command)


def heatmaps(model: Model, settings: Settings, found: Sequence[Row], task: str) -> Iterator[tuple[str, np.ndarray, list[str], list[str]]]:
    """For each block size and mode: a name, the change in accuracy against the base plan in points ``[times, starts]``, and the names
    of rows and columns."""
    by_plan = {row.plan: row for row in found if row.task == task}
    times = sorted({times for times in settings.times if times > 1})
    every = candidates(len(model.plan), settings)
    for mode in settings.modes:
        for block in settings.blocks:
            mine = [each for each in every if each.mode == mode and each.repeat.stop - each.repeat.start == block]
            starts = sorted({each.repeat.start for each in mine})
            matrix = np.full((len(times), len(starts)), np.nan)
            for each in mine:
                matrix[times.index(each.repeat.times), starts.index(each.repeat.start)] = 100 * by_plan[each.plan].difference
            yield f"block of {block}, {mode}", matrix, [f"x{k}" for k in times], list(map(str, starts))


def _maps(model: Model, settings: Settings, found: Sequence[Row], task: str) -> Iterator[Picture]:
    for name, matrix, times, starts in heatmaps(model, settings, found, task):
        figure = plots.heatmap(
            matrix, title=f"{task}: {name}", x="first visit of the block", y="times", x_labels=starts, y_labels=times, centre=0, digits=0
        )
        yield picture(figure, "change in accuracy against the base plan, points")


def _tasks_words(found: Sequence[Row], task: str) -> str:
    base = next(row for row in found if row.task == task)
    return f"Base plan: {base.correct} of {base.questions} right, {_percent(base.share)} (95% interval {_interval(base.interval)})."


def _summary(overall: Sequence[Row], settings: Settings) -> str:
    top, base = best(overall), overall[0]
    others = distinct(overall)[1:]
    sure = sum(row.p_holm < 0.05 and row.difference > 0 for row in others)
    worse = sum(row.p_holm < 0.05 and row.difference < 0 for row in others)
    return (
        f"{len(others)} plans beside the base plan {base.plan}, {base.questions} questions with {settings.shots} worked examples "
        f"each, seed {settings.seed}. Best: {top.plan}, {_percent(top.share)} against {_percent(base.share)}. After Holm's correction "
        f"for all plans {sure} of them are better than the base plan and {worse} worse at the 5% level (McNemar's exact test)."
    )


def _table(overall: Sequence[Row]) -> Table:
    shown = ranked(overall)[:SHOWN]
    shown += [] if overall[0] in shown else [overall[0]]
    return Table(
        ["plan", "accuracy", "95% interval", "change", "95% interval", "gained", "lost", "p", "p (Holm)", "FLOPs"],
        [
            [row.plan, _percent(row.share), _interval(row.interval), _points(row.difference), _interval(row.difference_interval),
             row.gained, row.lost, row.p, row.p_holm, f"{row.flops:.2f}x"]
            for row in shown
        ],
        "The best plans and the base plan, all tasks together. The best of many looks better than it is; --search asks it new questions.",
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _interval(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
