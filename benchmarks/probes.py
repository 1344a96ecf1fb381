"""What the probes save, as ratios of wall time measured in turn within one run: ``python benchmarks/probes.py``.

A random model of 24 small layers on torch and the CPU; medians of interleaved rounds. The peers are the probes' definitions done one pass
at a time with the same backend and the same Runs: local effects with one pass for each pair of visits, or as the original authors' code
does it, one pass for each removed visit with the stream put right before every later one; depth score with one pass for each removed visit;
skip with one likelihood for each plan.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loopkit import plan as plans
from loopkit.run import Run
from loopkit.session import Model

ROUNDS, VISITS, LENGTH = 5, 24, 128


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, all of them in turn every round, after one unmeasured round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def small_model(folder: Path, hidden: int, vocabulary: int) -> Model:
    """24 random layers."""
    import loopkit
    from loopkit.checkpoint.folder import write_folder
    from loopkit.checkpoint.initial import initialize
    from loopkit.spec import Spec

    heads = hidden // 32
    spec = Spec(hidden, 3 * hidden - hidden % 2, heads, max(1, heads // 2), 32, vocabulary, str(VISITS))
    return loopkit.load(write_folder(folder / "model", spec, initialize(spec)), "torch", "cpu")


def captured(model: Model, row: np.ndarray, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Updates ``[visits, T, D]`` and softmax ``[T, V]`` of one pass with everything kept."""
    stream, kept = model.advance(model.enter(row), run)
    logits = model.unembed(stream, np.arange(len(row)))
    return (kept["attn"] + kept["mlp"])[:, 0], np.exp(logits - logits.max(-1, keepdims=True))


def local_by_pairs(model: Model, row: np.ndarray, t: int, removed: range) -> None:
    """A whole pass for each pair of a removed visit and a later one."""
    _, kept = model.advance(model.enter(row), Run(model.plan, capture=True))
    updates, mask = kept["attn"] + kept["mlp"], _mask(row, t)
    for s in removed:
        for later in range(s + 1, VISITS):
            captured(model, row, Run(model.plan, overwrite={later: kept["resid"][later] - mask * updates[s]}, capture=True))


def local_by_removed(model: Model, row: np.ndarray, t: int) -> None:
    """A whole pass for each removed visit, the stream put right before every later one."""
    _, kept = model.advance(model.enter(row), Run(model.plan, capture=True))
    updates, mask = kept["attn"] + kept["mlp"], _mask(row, t)
    for s in range(VISITS):
        overwrite = {later: kept["resid"][later] - mask * updates[s] for later in range(s + 1, VISITS)}
        captured(model, row, Run(model.plan, overwrite=overwrite, capture=True))


def depth_by_removed(model: Model, row: np.ndarray, t: int) -> None:
    """A whole pass for each removed visit."""
    gate = np.ones(len(row), np.float32)
    gate[1:t] = 0
    for s in range(VISITS):
        stream, _ = model.advance(model.enter(row), Run(model.plan, gate={(s, "attention"): gate, (s, "mlp"): gate}))
        logits = model.unembed(stream, np.arange(t, len(row)))
        np.exp(logits - logits.max(-1, keepdims=True))


def skip_by_plan(model: Model, row: np.ndarray) -> None:
    """A whole likelihood for each plan."""
    for plan in (model.plan, *(plans.skip(model.plan, start) for start in range(VISITS))):
        model.nll(row, plan)


def _mask(row: np.ndarray, t: int) -> np.ndarray:
    places = np.arange(len(row))
    return ((places >= 1) & (places < t))[:, None]


def ratios(model: Model, rounds: int, sample: int) -> dict[str, float]:
    """Peers' time over ours. Of the pairs only every ``sample``-th removed visit is run, its time scaled to all pairs."""
    from loopkit.probes import depth_score, local_effects, skip
    from loopkit.probes.effects import draw_cuts

    row = np.random.default_rng(0).integers(0, model.spec.vocab_size, LENGTH)
    t = int(draw_cuts(LENGTH, 1, np.random.default_rng(0))[0])
    removed = range(sample // 2, VISITS, sample)
    times = medians(
        {
            "local": lambda: local_effects(model, row),
            "local, pairs": lambda: local_by_pairs(model, row, t, removed),
            "local, removed": lambda: local_by_removed(model, row, t),
            "depth": lambda: depth_score(model, row),
            "depth, removed": lambda: depth_by_removed(model, row, t),
            "skip": lambda: skip(model, row),
            "skip, plans": lambda: skip_by_plan(model, row),
        },
        rounds,
    )
    pairs = VISITS * (VISITS - 1) / 2 / sum(VISITS - 1 - s for s in removed)
    return {
        "local-effects seconds": times["local"],
        "local-effects over a pass for each pair": pairs * times["local, pairs"] / times["local"],
        "local-effects over a pass for each removed visit": times["local, removed"] / times["local"],
        "depth-score over a pass for each removed visit": times["depth, removed"] / times["depth"],
        "skip over a likelihood for each plan": times["skip, plans"] / times["skip"],
    }


def main() -> None:
    """Print every figure, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--vocabulary", type=int, default=2048)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = ratios(small_model(Path(scratch), arguments.hidden, arguments.vocabulary), arguments.rounds, 8)
    for name, value in found.items():
        print(f"{name:<55} {value:10.3f}")


if __name__ == "__main__":
    main()
