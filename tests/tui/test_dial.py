from hypothesis import given
from hypothesis import strategies as st
from loopkit_tui import dial as dials
from loopkit_tui.dial import MODES, MOST, Dial

from loopkit.inference.modes import MODES as CORE_MODES
from loopkit.inference.modes import parse_run

TURNS = {
    "moved": lambda dial, by: dial.moved(by),
    "starting": lambda dial, by: dial.starting(dial.start + by),
    "stopping": lambda dial, by: dial.stopping(dial.stop + by),
    "repeated": lambda dial, by: dial.repeated(dial.times + by),
    "mode": lambda dial, by: dial.next_mode(),
}


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from(sorted(TURNS)), st.integers(-50, 50)), max_size=12))
def test_any_turns_leave_a_block_inside_of_the_plan_that_runs(visits: int, turns: list[tuple[str, int]]) -> None:
    dial = dials.default(visits)
    for name, by in turns:
        size = dial.stop - dial.start
        dial = TURNS[name](dial, by)
        assert 0 <= dial.start < dial.stop <= visits
        assert 1 <= dial.times <= MOST
        assert name != "moved" or dial.stop - dial.start == size
    base = tuple(range(visits))
    plan = parse_run(dial.plan, base).plan if dial.plan else base
    assert len(plan) == visits + (dial.stop - dial.start) * (dial.times - 1)
    assert dial.times == 1 or dials.read(dial.plan, visits) == dial


def test_plans_of_another_kind_are_no_dial() -> None:
    for plan in ("8:12x2,20:22x3", "4x6", "layers:0,1,2", "8:40x2", "8:12x2@strange", "8:12"):
        assert dials.read(plan, 30) is None


def test_no_plan_is_a_block_run_once() -> None:
    assert dials.read("", 30) == Dial(30, 8, 12)


def test_the_modes_are_those_of_the_engine() -> None:
    assert MODES == CORE_MODES
