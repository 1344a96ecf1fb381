import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import layouts, plans

from loopkit.errors import UsageError
from loopkit.plan import (
    Repeat,
    apply_repeats,
    format_layout,
    format_plan,
    listing,
    n_layers,
    parse_layout,
    parse_plan,
    parse_repeats,
    repeat,
    runs,
    skip,
    swap,
    truncate,
)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("3", (0, 1, 2)),
        ("2x3", (0, 1, 0, 1, 0, 1)),
        ("1-2x2-1", (0, 1, 2, 1, 2, 3)),
        ("1x2-1-2x2", (0, 0, 1, 2, 3, 2, 3)),
        ("layers:0,2,1,2", (0, 2, 1, 2)),
    ],
)
def test_layouts_are_the_papers(text: str, plan: tuple[int, ...]) -> None:
    assert parse_layout(text) == plan
    assert format_layout(plan) == text


def test_the_papers_looped_models() -> None:
    assert parse_layout("4x6") == tuple(range(4)) * 6
    assert parse_layout("4-4x4-4") == (*range(4), *(tuple(range(4, 8)) * 4), *range(8, 12))


@given(layouts())
def test_layouts_round_trip(text: str) -> None:
    assert format_layout(parse_layout(text)) == text


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_any_plan_that_uses_all_layers_is_a_layout(visits: list[int]) -> None:
    names = sorted(set(visits))
    plan = tuple(names.index(layer) for layer in visits)
    assert parse_layout(format_layout(plan)) == plan


@given(st.data())
def test_plan_text_reads_back_as_the_same_plan(data: st.DataObject) -> None:
    base = parse_layout(data.draw(layouts()))
    plan = data.draw(plans(base))
    assert parse_plan(format_plan(plan, base), base) == plan
    assert parse_plan(listing(plan), base) == plan


@st.composite
def repeats(draw: st.DrawFn, length: int) -> str:
    cuts = draw(st.lists(st.integers(0, length), min_size=2, max_size=6, unique=True).filter(lambda c: len(c) % 2 == 0))
    pairs = zip(sorted(cuts)[::2], sorted(cuts)[1::2], strict=True)
    return ",".join(str(Repeat(start, stop, draw(st.integers(2, 4)))) for start, stop in pairs)


@given(repeats(length=12))
def test_repeats_of_a_plain_model_round_trip_as_text(text: str) -> None:
    base = tuple(range(12))
    assert ",".join(map(str, parse_repeats(text))) == text
    assert format_plan(parse_plan(text, base), base) == text


@given(st.data())
def test_repeats_count_positions_of_the_base(data: st.DataObject) -> None:
    base = parse_layout(data.draw(layouts()))
    start = data.draw(st.integers(0, len(base) - 1))
    stop = data.draw(st.integers(start + 1, len(base)))
    times = data.draw(st.integers(1, 4))
    expected = list(base[:start]) + list(base[start:stop]) * times + list(base[stop:])
    assert parse_plan(f"{start}:{stop}x{times}", base) == tuple(expected)
    assert repeat(base, start, stop, 1) == base


def test_two_repeats_do_not_shift_each_other() -> None:
    assert apply_repeats(tuple(range(6)), parse_repeats("4:5x2, 0:2x2")) == (0, 1, 0, 1, 2, 3, 4, 4, 5)


def test_a_looped_model_can_be_looped_further() -> None:
    base = parse_layout("4-4x4-4")
    assert parse_plan("4:8x3", base) == parse_layout("4-4x6-4") == parse_plan("4-4x6-4", base)


def test_edits() -> None:
    plan = tuple(range(6))
    assert skip(plan, 2) == (0, 1, 3, 4, 5)
    assert skip(plan, 1, 4) == (0, 4, 5)
    assert swap(plan, 2) == (0, 1, 3, 2, 4, 5)
    assert swap(plan, 1, 2) == (0, 3, 4, 1, 2, 5)
    assert swap(swap(plan, 1, 2), 1, 2) == plan
    assert truncate(plan, 2) == (0, 1)
    assert n_layers(plan) == 6


@given(st.lists(st.integers(0, 5), min_size=1, max_size=14))
def test_runs_say_the_whole_plan(visits: list[int]) -> None:
    plan = tuple(visits)
    assert sum((block * times for block, times in runs(plan)), ()) == plan


def test_runs_find_the_loop() -> None:
    assert runs(parse_plan("8:12x2", tuple(range(16)))) == [(tuple(range(8)), 1), ((8, 9, 10, 11), 2), ((12, 13, 14, 15), 1)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8:12", "bad part '8:12'"),
        ("8:12x", "bad part '8:12x'"),
        ("12:8x2", "empty range in '12:8x2'"),
        ("8:8x2", "empty range"),
        ("8:12x0", "times must be 1 or more"),
        ("8:40x2", "range 8:40 is outside this plan of 24 visits"),
        ("8:12x2,10:14x2", "ranges 8:12x2 and 10:14x2 overlap"),
        ("8:12x2,", "bad part ''"),
        ("layers:0,1,99", "runs layer 99, the model has layers 0 to 23"),
        ("layers:0,-1", "bad part '-1'"),
        ("layers:", "bad part ''"),
        ("4-0x4", "bad part '0x4'"),
        ("30", "runs layer 24"),
        ("4-4x4-4", "layout '4-4x4-4' leaves out layers 12 to 23 of this model; for less than all list what runs: layers:0,1,..."),
        ("", "bad part ''"),
        ("twice", "bad part 'twice'"),
    ],
)
def test_bad_plans_are_one_line_that_names_the_bad_part(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_plan(text, tuple(range(24)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layout_must_run_every_layer() -> None:
    with pytest.raises(UsageError, match="never runs layer 1"):
        parse_layout("layers:0,2")


@pytest.mark.parametrize("edit", [lambda p: skip(p, 0, 3), lambda p: swap(p, 2), lambda p: truncate(p, 0), lambda p: repeat(p, 0, 1, 0)])
def test_edits_that_make_no_sense_are_refused(edit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        edit((0, 1, 2))
