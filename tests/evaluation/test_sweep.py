"""Sweeps and searches: against each plan alone, interrupted and gone on, within their budget."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from strategies import random_arrays

import loopkit
from loopkit.checkpoint.folder import write_folder
from loopkit.data.tasks import few_shot, find
from loopkit.data.tokenizers import byte_codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.choice import answer
from loopkit.evaluation.search import Found, Progress, search
from loopkit.evaluation.statistics import holm
from loopkit.evaluation.sweep import Results, Settings, candidates, ranked, rows, sweep
from loopkit.evaluation.sweep_page import heatmaps, page
from loopkit.report.page import render
from loopkit.session import Model
from loopkit.spec import Spec

SETTINGS = Settings(("var-basic-0", "copy-random"), blocks=(2,), times=(1, 2, 3), modes=("plain", "damped"), count=10, shots=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("sweep")
    byte_codec().save(folder)
    spec = Spec(48, 96, 4, 2, 12, 257, "4")
    return loopkit.load(write_folder(folder / "model", spec, random_arrays(spec), tokenizer=folder), "torch", "cpu")


@pytest.fixture(scope="module")
def whole(model: Model) -> Results:
    """The sweep without interruption."""
    return list(sweep(model, SETTINGS))[-1]


def same(a: Results, b: Results) -> None:
    """Both hold the same answers; batches of other sizes round probabilities otherwise."""
    assert a.plans == b.plans
    for task in SETTINGS.tasks:
        np.testing.assert_array_equal(a.done[task], b.done[task])
        np.testing.assert_array_equal(a.right[task], b.right[task])
        np.testing.assert_allclose(a.probability[task], b.probability[task], rtol=1e-4, atol=1e-5)


def test_every_start_time_and_mode_is_asked(model: Model, whole: Results) -> None:
    assert whole.plans[0] == ""
    assert set(whole.plans[1:]) == {f"{s}:{s + 2}x{k}{mode}" for s in range(3) for k in (2, 3) for mode in ("", "@damped")}
    assert whole.share_done == 1


def test_answers_are_those_of_each_plan_alone(model: Model, whole: Results) -> None:
    for task in SETTINGS.tasks:
        questions = few_shot(find(task), 0, SETTINGS.count, 1)
        for index, plan in enumerate(whole.plans):
            for alone in answer(model, questions, [plan or None]):
                asked = list(alone.questions)
                np.testing.assert_array_equal(whole.right[task][index, asked], alone.right[0])
                np.testing.assert_allclose(whole.probability[task][index, asked], alone.probability[0], rtol=1e-4, atol=1e-5)


def test_rows_count_what_changed(model: Model, whole: Results) -> None:
    found = rows(model, whole)
    assert [row.task for row in found[:: len(whole.plans)]] == [*SETTINGS.tasks, "all"]
    for row in found:
        right = np.concatenate([whole.right[task] for task in (SETTINGS.tasks if row.task == "all" else [row.task])], 1)
        mine, base = right[0 if row.plan == "4" else whole.plans.index(row.plan)], right[0]
        assert (row.correct, row.questions) == (mine.sum(), len(mine))
        assert row.difference == pytest.approx(mine.mean() - base.mean())
        assert row.gained - row.lost == mine.sum() - base.sum()
        assert row.difference_interval[0] < row.difference < row.difference_interval[1] or row.gained + row.lost == 0
        assert row.p_holm >= row.p
    assert found[0].flops == 1
    assert ranked(found[-len(whole.plans) :])[0].correct == max(row.correct for row in found if row.task == "all")


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_sweep_goes_on(model: Model, whole: Results, tmp_path: Path, after: int) -> None:
    begun = list(islice(sweep(model, SETTINGS, tmp_path / "s"), after + 1))[-1]
    lines = (tmp_path / "s/answers.jsonl").read_bytes()
    with (tmp_path / "s/answers.jsonl").open("ab") as file:
        file.write(b'{"task": "copy-random", "questions": [')  # torn by a crash
    ended = list(sweep(model, SETTINGS, tmp_path / "s"))
    assert 0 < begun.share_done < 1
    assert ended[-1].share_done == 1
    assert (tmp_path / "s/answers.jsonl").read_bytes().startswith(lines)
    same(ended[-1], whole)
    again = list(sweep(model, SETTINGS, tmp_path / "s"))
    assert len(again) == 1  # nothing was asked
    same(again[0], whole)


def test_another_sweep_is_refused(model: Model, tmp_path: Path) -> None:
    next(sweep(model, SETTINGS, tmp_path / "s"))
    with pytest.raises(UsageError, match="other blocks, count"):
        next(sweep(model, replace(SETTINGS, count=11, blocks=(1, 2)), tmp_path / "s"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="other files"):
        next(sweep(model, SETTINGS, tmp_path / "mine"))


def test_a_damaged_line_is_named(model: Model, tmp_path: Path) -> None:
    next(sweep(model, SETTINGS, tmp_path / "s"))
    (tmp_path / "s/answers.jsonl").write_text('{"task": "copy-random"}\n')
    with pytest.raises(LoopkitError, match=r"answers\.jsonl line 1"):
        next(sweep(model, SETTINGS, tmp_path / "s"))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"blocks": (5,)}, "block of 5 does not fit a plan of 4"),
        ({"times": (1,)}, "two times or more"),
        ({"count": 0}, "at least one question"),
        ({"tasks": ("copy-wrods",)}, "copy-words"),
    ],
)
def test_bad_settings_are_named(model: Model, change: dict[str, object], names: str) -> None:
    with pytest.raises(UsageError, match=names):
        next(sweep(model, replace(SETTINGS, **change)))  # type: ignore[arg-type]


def test_the_page_shows_every_map(model: Model, whole: Results) -> None:
    found = rows(model, whole)
    maps = list(heatmaps(model, SETTINGS, found, "all"))
    assert [name for name, *_ in maps] == ["block of 2, plain", "block of 2, damped"]
    assert all(matrix.shape == (2, 3) and not np.isnan(matrix).any() for _, matrix, *_ in maps)
    html = render(page(model, SETTINGS, whole, "loopkit loop"))
    assert html.count("<svg") == 2 * (len(SETTINGS.tasks) + 1)


def found_of(events: list[Progress | Found]) -> tuple[list[Progress], Found]:
    assert isinstance(events[-1], Found)
    return [event for event in events if isinstance(event, Progress)], events[-1]


@pytest.mark.parametrize("budget", [4, 9, 40])
def test_a_search_keeps_to_its_budget(model: Model, tmp_path: Path, budget: int) -> None:
    settings = Settings(("var-basic-0",), blocks=(1, 2), times=(2, 3), count=8, shots=0)
    events, found = found_of(list(search(model, settings, budget, tmp_path / "s")))
    assert len(found.tried) == len({row.plan for row in found.tried}) <= budget
    assert max(event.asked for event in events) == len(found.tried)
    assert found.winner == found.tried[0]
    assert found.winner.correct == max(row.correct for row in found.tried)
    assert any(row.plan.count(":") > 1 for row in found.tried) == (budget > 15)
    _, again = found_of(list(search(model, settings, budget, tmp_path / "s")))
    assert again == found


def test_the_winner_is_asked_new_questions(model: Model) -> None:
    settings = Settings(("var-basic-0",), blocks=(2,), times=(2,), count=8, shots=0)
    _, found = found_of(list(search(model, settings, 4)))
    later = few_shot(find("var-basic-0"), 0, 8, 0, start=8)
    plan = None if found.winner.plan == "4" else found.winner.plan
    assert found.heldout.correct == sum(int(each.right.sum()) for each in answer(model, later, [plan]))
    assert not {q.prompt for q in later} & {q.prompt for q in few_shot(find("var-basic-0"), 0, 8, 0)}


def test_candidates_are_counted() -> None:
    assert len(candidates(30, Settings(("copy-words",), blocks=(4,), times=(1, 2, 3)))) == 54


def test_holm_is_between_nothing_and_bonferroni() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # worked by hand
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_what_is_kept_says_what_was_asked(model: Model, tmp_path: Path) -> None:
    next(sweep(model, SETTINGS, tmp_path / "s"))
    about = json.loads((tmp_path / "s/sweep.json").read_text())
    assert about["settings"]["tasks"] == list(SETTINGS.tasks)
    assert len(about["weights"]) == 32


def test_a_search_corrects_for_all_plans_of_all_rounds(model: Model) -> None:
    settings = Settings(("var-basic-0",), blocks=(1,), times=(2,), count=8, shots=0)
    events, found = found_of(list(search(model, settings, 9)))
    assert max(event.round for event in events) > 1
    others = [row for row in found.tried if row.plan != "4"]
    assert [row.p_holm for row in others] == pytest.approx(list(holm([row.p for row in others])))


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Two layers that run three times."""
    folder = tmp_path_factory.mktemp("looped")
    byte_codec().save(folder)
    spec = Spec(48, 96, 4, 2, 12, 257, "2x3")
    return loopkit.load(write_folder(folder / "model", spec, random_arrays(spec), tokenizer=folder), "torch", "cpu")


def test_plans_that_run_the_same_count_as_one(looped: Model) -> None:
    """Blocks of two at 0, 2 and 4 are one, at 1 and 3 another."""
    settings = Settings(("var-basic-0",), blocks=(2,), times=(2,), count=12, shots=0)
    found = rows(looped, list(sweep(looped, settings))[-1])
    assert [row.plan for row in found] == ["2x3", "0:2x2", "1:3x2", "2:4x2", "3:5x2", "4:6x2"]
    assert [row.same_as for row in found] == ["2x3", "0:2x2", "0:2x2", "0:2x2", "0:2x2", "0:2x2"]
    assert len({row.correct for row in found[1:]}) == 1
    assert [row.p_holm for row in found[1:]] == [found[1].p] * 5
    assert len(ranked(found)) == 2


def test_a_search_tries_no_plan_twice(looped: Model) -> None:
    settings = Settings(("var-basic-0",), blocks=(1, 2), times=(2, 3), count=4, shots=0)
    _, found = found_of(list(search(looped, settings, 16)))
    runs = [looped.resolve(row.plan) for row in found.tried]
    assert len(set(runs)) == len(runs) == 16


def test_a_search_on_a_model_whose_own_plan_is_a_listing(tmp_path: Path) -> None:
    byte_codec().save(tmp_path)
    spec = Spec(48, 96, 4, 2, 12, 257, "layers:0,2,1,3")
    swapped = loopkit.load(write_folder(tmp_path / "model", spec, random_arrays(spec), tokenizer=tmp_path), "torch", "cpu")
    _, found = found_of(list(search(swapped, Settings(("var-basic-0",), blocks=(1,), times=(2,), count=4, shots=0), 8)))
    assert "layers:0,2,1,3" in {row.plan for row in found.tried[:6]}
    assert len(found.tried) > 5
