"""Source maps, grown arrays and the stages of growth, against worked tables and properties."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_arrays, specs

from loopkit.errors import UsageError
from loopkit.plan import parse_layout
from loopkit.training.growth import (
    OPERATORS,
    Stage,
    grow_arrays,
    growth_plan,
    gstack,
    lidas,
    lidas_between,
    midas,
    solar,
    stack,
    stages,
)

BLOCKWISE = ("lidas", "midas", "stack", "between")
blocks = st.tuples(st.integers(1, 8), st.integers(1, 6))  # (number of blocks, layers of each)


def ranges(text: str) -> list[int]:
    """``0-3,2-5`` as the layers it means, both ends included."""
    bounds = [list(map(int, part.split("-"))) for part in text.split(",")]
    return [layer for first, last in bounds for layer in range(first, last + 1)]


@pytest.mark.parametrize(
    ("depth", "of_midas", "of_lidas"),
    [
        (4, "0-3,0-3", "0-3,0-3"),
        (8, "0-3,0-3,4-7", "0-5,2-5,6-7"),
        (12, "0-7,4-7,8-11", "0-7,4-7,8-11"),
        (16, "0-7,4-7,8-15", "0-9,6-9,10-15"),
        (20, "0-11,8-11,12-19", "0-11,8-11,12-19"),
    ],
)
def test_maps_of_a_24_layer_model(depth: int, of_midas: str, of_lidas: str) -> None:
    assert midas(depth, 4) == ranges(of_midas)
    assert lidas(depth, 4) == ranges(of_lidas)


def test_maps_of_the_other_operators() -> None:
    assert lidas_between(8, 4) == ranges("0-3,2-5,4-7")
    assert stack(8, 4) == ranges("0-7,4-7")
    assert gstack(6, 4) == ranges("0-5,0-5,0-5,0-5")
    assert solar(32, 8) == ranges("0-23,8-31")


@given(st.sampled_from(BLOCKWISE), blocks)
def test_a_block_more_of_old_layers_each_used_once_or_twice(operator: str, sizes: tuple[int, int]) -> None:
    n_layers, block = sizes[0] * sizes[1], sizes[1]
    source = OPERATORS[operator](n_layers, block)
    assert len(source) == n_layers + block
    assert set(source) == set(range(n_layers))
    inserted = [i for i in range(len(source) - block + 1) if source[:i] + source[i + block :] == list(range(n_layers))]
    assert inserted, "without the copy, the old layers are in order"
    assert any(source[i : i + block] == list(range(source[i], source[i] + block)) for i in inserted)


@given(blocks)
def test_midas_is_lidas_for_an_odd_number_of_blocks(sizes: tuple[int, int]) -> None:
    n_layers, block = sizes[0] * sizes[1], sizes[1]
    assert (midas(n_layers, block) == lidas(n_layers, block)) == (sizes[0] % 2 == 1 or block == 1)


def ancestry(plan: Iterable[Stage]) -> list[int]:
    """For each layer at the end, the layer of the first stage that it descends from."""
    descent: list[int] = []
    for stage in plan:
        descent = list(range(stage.layers)) if stage.source is None else [descent[layer] for layer in stage.source]
    return descent


@given(st.sampled_from(["lidas", "midas", "stack"]), st.integers(2, 8), st.integers(1, 6))
def test_growth_from_one_block_repeats_its_layers_in_order(operator: str, n_blocks: int, block: int) -> None:
    plan = growth_plan(operator, block, n_blocks * block, 1000, 1000)
    assert ancestry(plan) == list(range(block)) * n_blocks
    assert [stage.layers for stage in plan] == [block * i for i in range(1, n_blocks + 1)]


def test_growth_between_the_halves_keeps_halves_together() -> None:
    assert ancestry(growth_plan("between", 4, 8, 100, 100)) == [0, 1, 0, 1, 2, 3, 2, 3]


@given(specs(), st.data())
def test_grown_arrays_are_those_of_the_deeper_model_and_copies(spec, data) -> None:  # type: ignore[no-untyped-def]
    arrays = random_arrays(spec)
    before = {name: array.copy() for name, array in arrays.items()}
    source = data.draw(st.lists(st.integers(0, spec.n_layers - 1), min_size=1, max_size=6))
    grown = grow_arrays(arrays, source)
    assert {name: array.shape for name, array in grown.items()} == spec.with_layout(tuple(range(len(source)))).shapes()
    for name, array in grown.items():
        if ".layers." not in name:
            assert array is arrays[name]
            continue
        new, rest = name.removeprefix("model.layers.").split(".", 1)
        np.testing.assert_array_equal(array, before[f"model.layers.{source[int(new)]}.{rest}"])
        array += 1
    for name in before:
        np.testing.assert_array_equal(arrays[name], before[name])


def test_untying_is_growing_by_the_plan() -> None:
    arrays = {f"model.layers.{i}.mlp.up_proj.weight": np.full(2, i) for i in range(12)}
    grown = grow_arrays(arrays, parse_layout("4-4x4-4"))
    assert [int(grown[f"model.layers.{i}.mlp.up_proj.weight"][0]) for i in range(24)] == list(parse_layout("4-4x4-4"))


def test_stages_of_the_papers_models() -> None:
    assert stages(170_000, 6) == [8095, 16191, 24286, 32381, 40476, 48571]
    assert stages(170_000, 8) == [4722, 9444, 14167, 18889, 23611, 28333, 33056, 37778]
    assert [stage.start for stage in growth_plan("lidas", 4, 24, 170_000, 200_000)] == [0, 8095, 24286, 48572, 80953, 121429]


@given(st.integers(1, 12), st.integers(0, 10**6), st.floats(0, 3))
def test_stages_sum_up_exactly_and_never_get_shorter(n_stages: int, extra: int, alpha: float) -> None:
    total = int(n_stages ** (alpha + 1)) + 1 + extra
    lengths = stages(total, n_stages, alpha)
    assert sum(lengths) == total
    assert lengths == sorted(lengths)
    share = total / sum(i**alpha for i in range(1, n_stages + 1))
    assert all(abs(steps - share * i**alpha) < 1 + 1e-6 for i, steps in enumerate(lengths, 1))


@given(st.integers(1, 8), st.floats(0, 3))
def test_too_few_steps_name_the_number_that_is_enough(n_stages: int, alpha: float) -> None:
    with pytest.raises(UsageError) as caught:
        stages(0, n_stages, alpha)
    enough = int(str(caught.value).split("; ")[1].split()[0])
    assert min(stages(enough, n_stages, alpha)) == 1


@given(st.sampled_from(BLOCKWISE), st.integers(2, 6), st.integers(1, 4), st.integers(100, 500), st.integers(0, 200))
def test_stages_follow_one_another_to_the_end_of_the_run(operator: str, n_blocks: int, block: int, grow: int, rest: int) -> None:
    plan = growth_plan(operator, block, n_blocks * block, grow, grow + rest)
    assert [stage.steps for stage in plan] == [*stages(grow, n_blocks)[:-1], stages(grow, n_blocks)[-1] + rest]
    assert plan[0].start == 0 and plan[0].source is None
    for before, after in pairwise(plan):
        assert after.start == before.start + before.steps
        assert after.source == tuple(OPERATORS[operator](before.layers, block))
        assert len(after.source) == after.layers
    assert plan[-1].start + plan[-1].steps == grow + rest
    assert plan[-1].start < grow


def test_operators_that_grow_once() -> None:
    assert growth_plan("gstack", 6, 24, 90, 100) == (Stage(0, 30, 6), Stage(30, 70, 24, tuple(gstack(6, 4))))
    assert growth_plan("solar", 32, 48, 90, 100) == (Stage(0, 30, 32), Stage(30, 70, 48, tuple(solar(32, 8))))
    custom = growth_plan("layers:0,1,2,1,2,3", 4, 6, 100, 100, alpha=0)
    assert custom == (Stage(0, 50, 4), Stage(50, 50, 6, (0, 1, 2, 1, 2, 3)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lidas(24, 5), "block 5 does not divide 24 layers; example: block 4"),
        (lambda: midas(4, 8), "block 8 does not divide 4 layers; example: block 4"),
        (lambda: stack(4, 0), "block must be 1 or more, got 0"),
        (lambda: gstack(4, 1), "2 times or more, got 1"),
        (lambda: solar(8, 4), "fewer than half of the 8 layers, got 4; example: 2"),
        (lambda: stages(10, 0), "n_stages must be 1 or more"),
        (lambda: stages(5, 6), "5 steps are too few for 6 growth stages; 21 give each at least one"),
        (lambda: stages(100, 4, float("nan")), "alpha must be from 0"),
        (lambda: growth_plan("grow", 4, 8, 10, 10), "no growth operator 'grow'; operators are lidas, midas"),
        (lambda: growth_plan("lidas", 5, 24, 10, 10), "block 5 does not divide 24 layers"),
        (lambda: growth_plan("lidas", 24, 24, 10, 10), "nothing grows"),
        (lambda: growth_plan("lidas", 4, 8, 101, 100), "over 101 steps does not fit a run of 100; example: 85"),
        (lambda: growth_plan("solar", 8, 24, 10, 10), "an even depth, at most twice the block, not 24 layers of 8"),
        (lambda: growth_plan("layers:0,1,1", 2, 4, 10, 10), "makes 3 layers, the model has 4"),
        (lambda: growth_plan("layers:0,2,2", 2, 3, 10, 10), "never runs layer 1"),
        (lambda: growth_plan("layers:0,a", 2, 3, 10, 10), "bad part 'a'"),
        (lambda: grow_arrays({"model.layers.0.w": np.ones(1)}, [0, 1]), "copies layer 1, the model has layers 0 to 0"),
    ],
)
def test_bad_requests_are_one_line_that_names_the_cause(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError) as caught:
        call()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
