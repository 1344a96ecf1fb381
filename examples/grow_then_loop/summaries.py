"""From many values to the few numbers that claims compare: each a number for every seed that has it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jobs import LOOP
from measures import Value
from sizes import Size

Numbers = dict[int, float]  # by seed
Curves = dict[int, np.ndarray]


def always(_: float) -> bool:
    """Any place will do."""
    return True


@dataclass(frozen=True)
class Table:
    """The values of a story and its size."""

    size: Size
    values: Sequence[Value]

    def mean(
        self, what: str, model: str, tasks: Collection[str] = (), x: Callable[[float], bool] = always, y: float | None = None
    ) -> Numbers:
        """The mean of what fits, by seed; of all tasks where none is named."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for each in self.values:
            if each.what == what and each.model == model and (not tasks or each.task in tasks) and x(each.x) and y in (None, each.y):
                by_seed[each.seed].append(each.value)
        return {seed: float(np.mean(found)) for seed, found in sorted(by_seed.items())}

    def curve(self, what: str, model: str, tasks: Collection[str] = (), y: float | None = None) -> tuple[list[float], Curves]:
        """The places ``x`` that have values, and for each seed its values there, tasks averaged."""
        places = sorted({each.x for each in self.values if each.what == what and each.model == model})
        columns = [self.mean(what, model, tasks, place.__eq__, y) for place in places]
        seeds = sorted(set.intersection(*map(set, columns))) if columns else []
        return places, {seed: np.array([column[seed] for column in columns]) for seed in seeds}


def primitives(table: Table, model: str) -> Numbers:
    """Accuracy on the primitives; of a run that loops in its cooldown, with that loop."""
    return _accuracy(table, model, table.size.primitives)


def reasoning(table: Table, model: str) -> Numbers:
    """The mean of the primitives' and the word problems' accuracy."""
    return combine(np.mean, primitives(table, model), _accuracy(table, model, table.size.word_problems))


def nll(table: Table, model: str) -> Numbers:
    """Held-out negative log-likelihood, nats a token."""
    return table.mean("nll", model)


def training_flops(table: Table, model: str) -> Numbers:
    """Training FLOPs over the baseline's."""
    return combine(lambda pair: pair[0] / pair[1], table.mean("training", model), table.mean("training", "baseline"))


def depth_score(table: Table, model: str) -> Numbers:
    """The expected visit that the output depends on (appendix E)."""
    return table.mean("depth-score", model)


def late_overlap(table: Table, model: str) -> Numbers:
    """Top-5 overlap of the exits in the upper half with the final layer, the last visit left out."""
    return table.mean("overlap", model, x=lambda x: table.size.depth / 2 <= x < table.size.depth)


def late_gain(table: Table, model: str) -> Numbers:
    """Share of the final accuracy that exits in the upper half still lack, on average."""
    curves = {seed: curve for seed, curve in table.curve("early-exit", model)[1].items() if curve[-1] > 0}
    return {seed: float(1 - curve[len(curve) // 2 : -1].mean() / curve[-1]) for seed, curve in curves.items()}


def norm_growth(table: Table, model: str) -> Numbers:
    """Logarithm of how many times larger the stream is at the end than at the embedding."""
    return {seed: float(np.log(curve[-1] / curve[0])) for seed, curve in table.curve("norm", model)[1].items()}


def attention_cycle(table: Table, model: str) -> Numbers:
    """Autocorrelation, one block of visits apart, of the steps of attention's contribution."""
    return {seed: cycle(curve, table.size.block) for seed, curve in table.curve("attention", model)[1].items()}


def aggregation(table: Table, model: str) -> Numbers:
    """The same of how strongly each visit depends on those before it."""
    return {seed: cycle(curve, table.size.block) for seed, curve in table.curve("local-effect", model)[1].items()}


def swap_loss(table: Table, model: str) -> Numbers:
    """Accuracy lost by swapping neighbours, mean over the middle half of the visits."""
    low, high = table.size.depth / 4, 3 * table.size.depth / 4
    swapped = table.mean("swap", model, x=lambda x: low <= x and x + 2 <= high)
    return less(table.mean("unswapped", model), swapped)


def repeat_gain(table: Table, model: str) -> Numbers:
    """Change in accuracy when a block runs twice, mean over all starts in the middle half of the visits."""
    low, high = table.size.depth / 4, 3 * table.size.depth / 4
    return table.mean("sweep", model, x=lambda x: low <= x and x + table.size.block <= high, y=2)


def once(table: Table, model: str) -> Numbers:
    """Accuracy on the primitives with the third block run once."""
    return _repeats(table, model, 1)


def two_or_three(table: Table, model: str) -> Numbers:
    """The same with the block run two and three times, the mean of both."""
    return _repeats(table, model, 2, 3)


def four(table: Table, model: str) -> Numbers:
    """The same with the block run four times."""
    return _repeats(table, model, 4)


def two_to_four(table: Table, model: str) -> Numbers:
    """The same with the block run two, three and four times, the mean of all."""
    return _repeats(table, model, 2, 3, 4)


def repeat_loss(table: Table, model: str) -> Numbers:
    """Accuracy lost by four runs of the block against as many as the model was trained with."""
    return less(_repeats(table, model, 2 if model.endswith(LOOP) else 1), _repeats(table, model, 4))


def context_gain(table: Table, model: str) -> Numbers:
    """Accuracy gained from the fewest to the most worked examples in the prompt."""
    return _gain(table, "context", model, table.size.context_shots, 1)


def tuning_gain(table: Table, model: str) -> Numbers:
    """Accuracy gained by fine-tuning, mean over the numbers of examples."""
    return _gain(table, "finetune", model, table.size.tuned_examples, len(table.size.tuned_examples) - 1)


def maths_gain(table: Table, model: str) -> Numbers:
    """Reasoning gained by the cooldown with the first source of maths against the plain one."""
    return less(reasoning(table, f"{model}+{main_source(table)}"), reasoning(table, model))


def loop_gain(table: Table, model: str) -> Numbers:
    """Reasoning gained by one repeat more in that cooldown."""
    cooled = f"{model}+{main_source(table)}"
    return less(reasoning(table, cooled + LOOP), reasoning(table, cooled))


def main_source(table: Table) -> str:
    """The source of maths text of table 3."""
    return next(iter(table.size.maths))


def combine(function: Callable[[list[float]], float], *parts: Numbers) -> Numbers:
    """A function of several numbers of each seed that has them all."""
    seeds = sorted(set.intersection(*(set(part) for part in parts)))
    return {seed: float(function([part[seed] for part in parts])) for seed in seeds}


def less(left: Numbers, right: Numbers) -> Numbers:
    """The difference in each seed that has both."""
    return combine(lambda pair: pair[0] - pair[1], left, right)


def cycle(curve: np.ndarray, lag: int) -> float:
    """Autocorrelation at ``lag`` of the steps of ``curve [n]`` around their mean; 0 where it is flat."""
    steps = np.diff(curve) - np.diff(curve).mean()
    power = float((steps**2).sum())
    return float((steps[:-lag] * steps[lag:]).sum()) / power if power else 0.0


def _accuracy(table: Table, model: str, tasks: Sequence[str]) -> Numbers:
    if model.endswith(LOOP):
        return table.mean("repeats", model, tasks, x=lambda x: x == 2)
    return table.mean("accuracy", model, tasks)


def _repeats(table: Table, model: str, *times: int) -> Numbers:
    return table.mean("repeats", model, table.size.primitives, x=lambda x: x in times)


def _gain(table: Table, what: str, model: str, places: Sequence[int], last: int) -> Numbers:
    """The mean over the ``last`` places less the value at the first."""
    after = table.mean(what, model, x=lambda x: x in places[-last:])
    return less(after, table.mean(what, model, x=lambda x: x == places[0]))
