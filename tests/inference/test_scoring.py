"""The engine against the obvious way: every plan alone, every option a text of its own."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import plans, random_arrays, repeat_texts, specs

from loopkit.backend import Backend
from loopkit.inference.modes import MODES, parse_run, with_mode
from loopkit.inference.passes import forward
from loopkit.inference.scoring import Request, Score, batch_tokens, batches, score
from loopkit.inference.trie import build, run_all
from loopkit.plan import Plan, repeat
from loopkit.run import Rows, Run, Stream
from loopkit.spec import Spec

SPEC = Spec(64, 96, 4, 2, 16, 101, "5")


@st.composite
def runs(draw: st.DrawFn, base: Plan) -> Run:
    """Any plan, or a block that repeats in any mode."""
    if draw(st.booleans()):
        return Run(draw(plans(base)))
    return parse_run(with_mode(draw(repeat_texts(base)), draw(st.sampled_from(MODES))), base)


@st.composite
def requests(draw: st.DrawFn, vocabulary: int) -> Request:
    """A prompt of up to 12 tokens with up to four options of up to four."""
    tokens = st.integers(0, vocabulary - 1)
    prompt = draw(st.lists(tokens, min_size=1, max_size=12))
    options = draw(st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=4))
    return Request(tuple(prompt), tuple(tuple(option) for option in options))


def alone(backend: Backend, weights: dict[str, np.ndarray], spec: Spec, request: Request, run: Run) -> tuple[list[float], list[bool]]:
    """Log-likelihood of each option and whether it is greedy, by one pass over prompt and option for each."""
    sums, greedy = [], []
    for option in request.options:
        ids = np.array([[*request.prompt, *option]])
        logits = forward(backend, weights, spec, ids, run)[0][0].astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        before = range(len(request.prompt) - 1, ids.shape[1] - 1)
        sums.append(sum(logs[at, token] for at, token in zip(before, option, strict=True)))
        greedy.append(all(logs[at].argmax() == token for at, token in zip(before, option, strict=True)))
    return sums, greedy


def assert_alone(
    backend: Backend, weights: dict[str, np.ndarray], spec: Spec, request: Request, wanted: Sequence[Run], found: Score
) -> None:
    for index, run in enumerate(wanted):
        sums, greedy = alone(backend, weights, spec, request, run)
        np.testing.assert_allclose(found.log_likelihood[index], sums, rtol=1e-5, atol=2e-5)
        assert found.greedy[index].tolist() == greedy


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_scores_are_those_of_every_plan_and_option_alone(backend: Backend, device: str, data: st.DataObject) -> None:
    spec = data.draw(specs())
    asked = data.draw(st.lists(requests(spec.vocab_size), min_size=1, max_size=4))
    wanted = data.draw(st.lists(runs(spec.plan), min_size=1, max_size=5))
    weights = backend.put(random_arrays(spec), device, "float32")
    scores = [each for batch in score(backend, weights, spec, asked, wanted) for each in batch]
    assert sorted(each.request for each in scores) == list(range(len(asked)))
    for each in scores:
        assert_alone(backend, weights, spec, asked[each.request], wanted, each)


def test_long_options_of_several_lengths(backend: Backend, device: str) -> None:
    """Rows of which one scores more positions than another, and more than attention takes at a time."""
    rng = np.random.default_rng(0)
    sizes = ((1, (96,)), (9, (88,)), (5, (40, 50)), (2, (30, 35, 25)), (60, (30,)))
    asked = [Request(tuple(rng.integers(0, 101, n)), tuple(tuple(rng.integers(0, 101, size)) for size in options)) for n, options in sizes]
    wanted = [Run(SPEC.plan), Run(repeat(SPEC.plan, 1, 3, 2))]
    weights = backend.put(random_arrays(SPEC), device, "float32")
    (batch,) = score(backend, weights, SPEC, asked, wanted)
    for each in batch:
        assert_alone(backend, weights, SPEC, asked[each.request], wanted, each)


def test_little_memory_gives_the_same_scores(backend: Backend, device: str) -> None:
    rng = np.random.default_rng(0)
    asked = [Request(tuple(rng.integers(0, 101, length)), ((1, 2), (3,))) for length in (30, 5, 29, 6, 28)]
    wanted = [Run(SPEC.plan), Run(repeat(SPEC.plan, 1, 3, 2)), Run(repeat(SPEC.plan, 1, 3, 3))]
    weights = backend.put(random_arrays(SPEC), device, "float32")
    large, small = (list(score(backend, weights, SPEC, asked, wanted, memory)) for memory in (1 << 30, 1))
    assert len(large) < len(small) == len(asked)
    for few in itertools.chain.from_iterable(small):
        many = next(each for batch in large for each in batch if each.request == few.request)
        np.testing.assert_allclose(few.log_likelihood, many.log_likelihood, rtol=1e-5, atol=1e-5)


class Counting:
    """Numbers for streams: counts visits, and how many streams are alive at once."""

    def __init__(self) -> None:
        self.visits = 0

    def advance(self, stream: Stream, run: Run) -> Stream:
        """The stream as the list of visits behind it."""
        self.visits += 1
        return Stream((*stream.x, (run.plan[0], run.scale.get(0, 1.0))), None)


def sweep(layers: int, block: int, times: Sequence[int]) -> list[Run]:
    """The base plan and every block of one size run so many times."""
    base = tuple(range(layers))
    return [Run(base), *(Run(repeat(base, start, start + block, k)) for start in range(layers - block + 1) for k in times)]


def test_a_sweep_runs_less_than_half_of_its_visits() -> None:
    wanted, counting = sweep(30, 4, (2, 3)), Counting()
    ends = dict(run_all(counting.advance, Stream((), None), wanted))
    assert [tuple(layer for layer, _ in ends[i].x) for i in range(len(wanted))] == [run.plan for run in wanted]
    assert counting.visits == build(wanted).size < sum(len(run.plan) for run in wanted) / 2


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=12))
def test_few_streams_wait(drawn: list[list[int]]) -> None:
    wanted, alive, most = [Run(tuple(plan)) for plan in drawn], set(), [0]

    class Counted(tuple):
        def __del__(self) -> None:
            alive.discard(id(self))

    def advance(stream: Stream, run: Run) -> Stream:
        made = Counted((*stream.x, run.plan[0]))
        alive.add(id(made))
        most[0] = max(most[0], len(alive))
        return Stream(made, None)

    found = {index: tuple(stream.x) for index, stream in run_all(advance, Stream((), None), wanted)}
    assert found == {index: run.plan for index, run in enumerate(wanted)}
    assert most[0] <= math.log2(len(wanted)) + 4


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 2000))
def test_batches_hold_everything_once_and_no_more_than_fits(lengths: list[int], tokens: int) -> None:
    found = batches(lengths, tokens)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= tokens for batch in found)


def test_batches_follow_memory() -> None:
    assert batch_tokens(SPEC, 1, 1) == 1
    assert batch_tokens(SPEC, 1, 1 << 30) > batch_tokens(SPEC, 64, 1 << 30) > batch_tokens(SPEC, 64, 1 << 29)


def test_rows_that_fork_know_their_places() -> None:
    rows = Rows(np.zeros((1, 6), int), np.array([[0, 0, 1, 1, 2, -1]]))
    assert rows.places().tolist() == [[0, 1, 2, 3, 2, 2]]
    seen = rows.seen()
    assert seen is not None
    assert seen[0, 4].tolist() == [True, True, False, False, True, False]


def test_an_intervention_is_not_shared() -> None:
    with pytest.raises(AssertionError):
        build([Run((0,), gate={(0, "mlp"): np.zeros(3, np.float32)})])
