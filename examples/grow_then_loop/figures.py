"""The paper's figures and tables from the story's values: lines with their 95% interval over seeds, scatter plots, matrices."""

from collections.abc import Sequence

import numpy as np
import summaries
from draw import PERCENT, accuracy_picture, bounds, cell, grid, in_percent, line_picture, number, over_last, percent, percents, probed
from jobs import LOOP, SOURCED, SWEPT
from summaries import Table, main_source

from loopkit.report import Block, Point, Row, heatmap, picture, scatter
from loopkit.report import Table as Rows

SIDE = 4.6  # inches of a matrix that stands beside others
VISITS = "visits done"
SEEDS = "Mean and 95% interval over seeds; of accuracies only the part between 0 and 100% is drawn"


def figure_1(table: Table) -> list[Block]:
    """Accuracy on the primitives against each cost."""
    costs = {"unique": "unique parameters", "inference": "inference FLOPs a token", "training": "training FLOPs"}
    drawn = []
    for what, name in costs.items():
        points = []
        for model in table.size.models:
            cost, found = table.mean(what, model), summaries.primitives(table, model)
            if cost and found:
                mean, low, high = bounds(percents(found), PERCENT)
                kind, error = table.size.models[model].kind, (mean - low, high - mean)
                points.append(Point(table.size.label(model), next(iter(cost.values())), mean, y_error=error, group=kind))
        if points:
            drawn.append(picture(scatter(points, title=f"Primitives against {name}", x=name, y="accuracy, %")))
    return [tuple(drawn)] if drawn else []


def table_1(table: Table) -> list[Block]:
    """What each model scores and costs."""
    rows = []
    for model in table.size.models:
        found = summaries.primitives(table, model)
        if found:
            words = table.mean("accuracy", model, table.size.word_problems)
            tasks = [percent(table.mean("accuracy", model, [task])) for task in table.size.primitives]
            costs = [number(table.mean("unique", model), 1e-6), number(table.mean("inference", model), 1e-6)]
            share = number(summaries.training_flops(table, model))
            rows.append(
                (
                    table.size.label(model),
                    len(found),
                    percent(found),
                    *tasks,
                    percent(words),
                    cell(summaries.nll(table, model)),
                    *costs,
                    share,
                )
            )
    columns = (
        "model",
        "seeds",
        "primitives, %",
        *table.size.primitives,
        "word problems, %",
        "NLL",
        "parameters, M",
        "MFLOPs a token",
        "training",
    )
    caption = f"{SEEDS}; NLL in nats a token of held-out text; training FLOPs over the baseline's."
    return [Rows(columns, rows, caption)] if rows else []


def figure_2(table: Table) -> list[Block]:
    """Depth score, top-5 overlap, early-exit accuracy."""
    scores = [(table.size.label(m), cell(found)) for m in probed(table) if (found := summaries.depth_score(table, m))]
    row = (
        *line_picture(
            table, "depth-change", probed(table), "Change of the output when a visit is removed", "visit removed", "max L2 change"
        ),
        *line_picture(table, "overlap", probed(table), "Top-5 overlap of the early exit", VISITS, "share of the final top 5"),
        *line_picture(table, "early-exit", probed(table), "Early-exit accuracy, tuned lens", VISITS, "over the final accuracy", over_last),
    )
    return [Rows(("model", "depth score"), scores, "Expected visit, from 0, and 95% interval over seeds."), row] if scores or row else []


def figure_3(table: Table) -> list[Block]:
    """Norm of the stream, attention's contribution."""
    row = (
        *line_picture(table, "norm", probed(table), "Norm of the residual stream, median over positions", VISITS, "norm"),
        *line_picture(table, "attention", probed(table), "Attention output over the stream", "visit", "|a| / |h|"),
    )
    return [row] if row else []


def figure_4(table: Table) -> list[Block]:
    """Local effects, the mean over seeds."""
    grids = {model: found for model in probed(table) if (found := grid(table, model)) is not None}
    if not grids:
        return []
    cells = np.concatenate([each[np.isfinite(each)] for each in grids.values()])
    limits = (float(cells.min()), float(np.percentile(cells, 99)))  # one giant cell leaves the others their colours
    return [
        tuple(
            picture(heatmap(each, title=table.size.label(model), x="visit changed", y="visit removed", limits=limits, width=SIDE))
            for model, each in grids.items()
        )
    ]


def figure_5(table: Table) -> list[Block]:
    """Accuracy and likelihood after swapping neighbours."""
    first = "first visit of the two"
    row = (
        *accuracy_picture(table, "swap", probed(table), "Accuracy after swapping two visits", first),
        *line_picture(table, "swap-nll", probed(table), "Likelihood after swapping two visits", first, "NLL, nats a token"),
    )
    return [row] if row else []


def figure_6(table: Table) -> list[Block]:
    """Change in accuracy with a block run again, by its start."""
    models = [model for model in SWEPT if model in table.size.models]
    row: Row = ()
    for times in (2, 3):
        title = f"A block of {table.size.block} run {times} times"
        row += line_picture(table, "sweep", models, title, "first visit of the block", "change in accuracy, points", in_percent, y=times)
    return [row] if row else []


def figure_7(table: Table) -> list[Block]:
    """Accuracy against worked examples, a figure a task."""
    row: Row = ()
    for task in table.size.primitives:
        row += accuracy_picture(table, "context", probed(table), task, "worked examples in the prompt", (task,))
    return [row[first : first + 2] for first in range(0, len(row), 2)]


def figure_8(table: Table) -> list[Block]:
    """Accuracy against questions fine-tuned on, a figure a task."""
    row: Row = ()
    for task in table.size.tuned_tasks:
        row += accuracy_picture(table, "finetune", probed(table), task, "questions fine-tuned on", (task,))
    return [row] if row else []


def figure_9(table: Table) -> list[Block]:
    """Accuracy against repeats of the third block, before and after the cooldown that adapts to it."""
    row: Row = ()
    for model in table.size.retrofits:
        names = [model, f"{model}+{main_source(table)}", f"{model}+{main_source(table)}{LOOP}"]
        times = "times the block runs" if model != "middle" else "times the block runs, from its own number as 1"
        title = f"{table.size.models[model].label}, primitives"
        row += accuracy_picture(table, "repeats", names, title, times, table.size.primitives)
    return [row] if row else []


def table_2(table: Table) -> list[Block]:
    """Cooldowns with each source of maths text."""
    names = [name for model in SOURCED for name in (model, *(f"{model}+{source}" for source in table.size.maths))]
    return _cooled(table, names)


def table_3(table: Table) -> list[Block]:
    """Cooldowns with the main source, with and without one repeat more."""
    source = main_source(table)
    return _cooled(table, [name for m in table.size.retrofits for name in (m, f"{m}+{source}", f"{m}+{source}{LOOP}")])


def _cooled(table: Table, names: Sequence[str]) -> list[Block]:
    rows = []
    for name in names:
        if found := summaries.reasoning(table, name):
            words = table.mean("repeats" if name.endswith(LOOP) else "accuracy", name, table.size.word_problems, x=lambda x: x in (0, 2))
            rows.append((table.size.label(name), len(found), percent(words), percent(summaries.primitives(table, name)), percent(found)))
    columns = ("run", "seeds", "word problems, %", "primitives, %", "reasoning (mean of both), %")
    return [Rows(columns, rows, f"{SEEDS}; looped runs are asked with their loop.")] if rows else []
