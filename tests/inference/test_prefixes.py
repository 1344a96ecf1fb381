"""Going on from kept streams gives what a whole pass gives, and runs only what is new."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TOLERANCE, plans, random_arrays, random_ids, repeat_texts

from loopkit.backend import Backend
from loopkit.inference.modes import parse_run
from loopkit.inference.prefixes import Prefixes
from loopkit.run import Rows, Run, Stream
from loopkit.spec import Spec

SPEC = Spec(48, 64, 4, 2, 12, 97, "6")
BASE = SPEC.plan


class Counted:
    """A small model whose visits are counted."""

    def __init__(self, backend: Backend, device: str, capacity: int) -> None:
        self.backend, self.visits = backend, 0
        self.weights = backend.put(random_arrays(SPEC), device, "float32")
        self.start = backend.enter(self.weights, SPEC, Rows(random_ids(SPEC, 1, 7)))
        self.prefixes = Prefixes(self.advance, self.start, capacity)

    def advance(self, stream: Stream, run: Run) -> Stream:
        self.visits += len(run.plan)
        return self.backend.advance(self.weights, SPEC, stream, run)[0]

    def whole(self, run: Run) -> np.ndarray:
        return self.backend.hidden(self.backend.advance(self.weights, SPEC, self.start, run)[0])


@st.composite
def runs(draw: st.DrawFn) -> Run:
    if draw(st.booleans()):
        return Run(draw(plans(BASE)))
    return parse_run(draw(repeat_texts(BASE)) + draw(st.sampled_from(["", "@damped", "@residual"])), BASE)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("capacity", [256, 4])
def test_any_plans_one_after_the_other_end_as_alone(backend: Backend, device: str, capacity: int, data: st.DataObject) -> None:
    model = Counted(backend, device, capacity)
    for run in data.draw(st.lists(runs(), min_size=1, max_size=5)):
        before = model.visits
        stream, ran = model.prefixes.end(run)
        np.testing.assert_allclose(backend.hidden(stream), model.whole(run), atol=TOLERANCE["float32"], rtol=1e-4)
        assert model.visits - before == ran <= len(run.plan)


def test_one_more_repeat_costs_the_block_and_what_follows(backend: Backend, device: str) -> None:
    model = Counted(backend, device, 256)
    assert [model.prefixes.end(parse_run(text, BASE))[1] for text in ("1:3x1", "1:3x2", "1:3x3", "1:3x2", "1:3x4")] == [6, 5, 5, 0, 5]


def test_a_damped_block_begins_where_the_plain_one_stands(backend: Backend, device: str) -> None:
    model = Counted(backend, device, 256)
    model.prefixes.end(parse_run("1:3x2", BASE))
    assert model.prefixes.end(parse_run("1:3x2@damped", BASE))[1] == 2 + 3  # the first pass is there


def test_with_little_room_the_beginnings_of_the_newest_plan_stay(backend: Backend, device: str) -> None:
    model = Counted(backend, device, 4)
    model.prefixes.end(Run((5, 4, 3, 2, 1)))
    model.prefixes.end(Run(BASE))
    assert model.prefixes.end(Run((*BASE[:4], 0)))[1] == 1
    assert model.prefixes.end(Run(BASE))[1] == len(BASE) - 4
    assert model.prefixes.end(Run((5, 4)))[1] == 2


def test_each_gives_the_stream_after_every_visit(backend: Backend, device: str) -> None:
    model = Counted(backend, device, 256)
    for text in ("1:3x2", "1:3x2@damped", "1:3x2@residual"):
        run = parse_run(text, BASE)
        streams = list(model.prefixes.each(run))
        assert len(streams) == len(run.plan) + 1
        np.testing.assert_allclose(backend.hidden(streams[-1]), model.whole(run), atol=TOLERANCE["float32"], rtol=1e-4)
        np.testing.assert_array_equal(backend.hidden(streams[0]), backend.hidden(model.start))
