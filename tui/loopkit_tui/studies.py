"""Sweeps and probes for the screen: loopkit's own, their results as the engine's frozen values."""

import hashlib
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, cast

from loopkit.plan import parse_repeats
from loopkit_tui import places
from loopkit_tui.engine import Drawing, ProbeAsk, Probed, Progress, SweepAsk, SweepCell, SweepState
from loopkit_tui.worker import Emit

TRAINED = "tuned-lens"  # takes long, and is shown by the Lens screen

if TYPE_CHECKING:
    from loopkit.evaluation.sweep import Row
    from loopkit.probes.result import Chart
    from loopkit.session import Model


def probes() -> list[tuple[str, str]]:
    """All probes that need no training, and what they show."""
    from loopkit.probes.registry import PROBES

    return [(name, probe.about) for name, probe in PROBES.items() if name != TRAINED]


def sweep(model: "Model", ask: SweepAsk, emit: Emit, memory: int) -> None:
    """SweepState after every few questions; answers are kept on disk, so that the same sweep goes on where it was."""
    from loopkit.evaluation import sweep as sweeps
    from loopkit.inference.modes import Mode

    settings = sweeps.Settings((ask.task,), ask.blocks, ask.times, (cast(Mode, ask.mode),), ask.count, ask.shots, ask.seed)
    for results in sweeps.sweep(model, settings, folder(model, ask), memory):
        rows = sweeps.rows(model, results)
        if rows:
            base = _cell(rows[0], (0, len(model.plan), 1))
            cells = tuple(_cell(row, parse_repeats(row.plan.partition("@")[0])[0]) for row in rows[1:])
            emit(SweepState(results.share_done, base, cells))


def folder(model: "Model", ask: SweepAsk) -> Path:
    """Where a sweep's answers are kept, by the model's weights: another one at the same path has its own."""
    from platformdirs import user_cache_path

    key = hashlib.sha256(f"{model.checkpoint.fingerprint} {ask}".encode()).hexdigest()[:16]
    return user_cache_path("loopkit", appauthor=False) / "sweeps" / key


def probe(open_model: Callable[[str], "Model"], ask: ProbeAsk, emit: Emit) -> None:
    """A probe on each checkpoint in turn."""
    from loopkit.probes.prompts import read_prompts
    from loopkit.probes.registry import find_probe
    from loopkit.probes.result import to_json

    found = find_probe(ask.name)
    for path in ask.paths:
        emit(Progress(f"{places.name(path)}: {ask.name}", 0, 1))
        model = open_model(path)
        length = min(ask.length, model.spec.max_position_embeddings)
        given = read_prompts(model, ask.data, ask.examples, length, asks=found.asks)
        options = {"questions": given.questions, "seed": 0, "progress": _progress(f"{places.name(path)}: {ask.name}", emit)}
        taken = signature(found.run).parameters
        result = found.run(model, given.ids, ask.plan or None, **{name: value for name, value in options.items() if name in taken})
        drawings = tuple(map(_drawing, result.charts))
        emit(Probed(ask.name, found.about, places.name(path), result.plan, result.headline, drawings, to_json(result)))


def _progress(what: str, emit: Emit) -> Callable[[int, int], None]:
    return lambda done, total: emit(Progress(what, done, total))


def _cell(row: "Row", block: tuple[int, int, int]) -> SweepCell:
    return SweepCell(
        row.plan,
        *block,
        row.correct,
        row.questions,
        row.share,
        row.interval,
        row.gained,
        row.lost,
        row.p_holm,
        row.probability,
        row.flops,
    )


def _drawing(chart: "Chart") -> Drawing:
    from loopkit.probes.result import Curve

    if isinstance(chart, Curve):
        return Drawing(chart.title, chart.x, chart.y, chart.values, chart.low, chart.high)
    return Drawing(chart.title, chart.x, chart.y, chart.values, centre=chart.centre)
