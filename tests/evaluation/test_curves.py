"""Curves: each spot is what the obvious single call gives, finished runs are not trained again, interrupted ones go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes import small
from typer.testing import CliRunner

import loopkit
from loopkit import backend as backends
from loopkit.checkpoint.folder import newest, open_folder, write_folder
from loopkit.cli import app
from loopkit.data.tasks import few_shot, find
from loopkit.errors import UsageError
from loopkit.evaluation.choice import accuracies
from loopkit.evaluation.curves import Tuning, finetuning, fitting_shots, in_context
from loopkit.evaluation.statistics import mean_interval
from loopkit.session import Model
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.start import begin, train

TASK = "copy-words-32"
TUNING = Tuning(steps=6, rows=4)


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return Hardware(backends.load("torch"), "cpu", "float32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, hardware: Hardware) -> Path:
    """A looped run of a few steps."""
    folder = RunFolder(tmp_path_factory.mktemp("curves") / "run")
    recipe = small(
        "model.layout=1-1x2-1", "model.max_position_embeddings=128", "train.sample_tokens=0", "train.evaluate_every=0", "schedule.steps=3"
    )
    list(train(begin(recipe, folder, hardware), folder, hardware))
    return folder.path


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return loopkit.load(run, "torch")


def test_in_context_curves_are_accuracies_by_shots(model: Model) -> None:
    plain, looped = in_context(model, "run", TASK, [None, "1:3x2"], [0, 2, 1], 12, 5)
    assert [spot.examples for spot in looped.spots] == [0, 2, 1]
    for curve, plan in ((plain, None), (looped, "1:3x2")):
        assert [spot.accuracies[0] for spot in curve.spots] == [accuracies(model, TASK, [plan], 12, n, 5)[0] for n in (0, 2, 1)]
        assert curve.spots[0].interval == curve.spots[0].accuracies[0].interval


def test_shots_double_as_far_as_they_fit(model: Model) -> None:
    shots = fitting_shots(model, TASK, 5, 0)

    def longest(n: int) -> int:
        return max(len(model.tokenizer.encode(q.whole(i))) for q in few_shot(find(TASK), 0, 5, n) for i in range(len(q.options)))

    assert shots[:3] == [0, 1, 2]
    assert longest(shots[-1]) <= 128 < longest(2 * shots[-1])


def test_no_examples_is_the_checkpoint_as_it_is(run: Path, model: Model, hardware: Hardware, tmp_path: Path) -> None:
    assert finetuning(run, TASK, 0, 0, TUNING, 10, tmp_path / "a", hardware) == accuracies(model, TASK, count=10)[0]
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("untie", [False, True])
def test_a_run_lies_in_its_folder_and_is_trained_once(run: Path, hardware: Hardware, tmp_path: Path, untie: bool) -> None:
    tuning = replace(TUNING, untie=untie)
    first = finetuning(run, TASK, 8, 1, tuning, 10, tmp_path / "a", hardware)
    made = RunFolder(tmp_path / "a")
    assert made.recipe.data.examples == 8
    assert open_folder(made.path).spec.layout == ("4" if untie else "1-1x2-1")
    assert accuracies(loopkit.load(made.path, "torch"), TASK, count=10)[0] == first
    when = (made.path / "metrics.jsonl").stat().st_mtime_ns
    assert finetuning(run, TASK, 8, 1, tuning, 10, tmp_path / "a", hardware) == first
    assert (made.path / "metrics.jsonl").stat().st_mtime_ns == when
    with pytest.raises(UsageError, match="other settings"):
        finetuning(run, TASK, 8, 1, replace(tuning, rate=1e-2), 10, tmp_path / "a", hardware)


def test_an_interrupted_run_goes_on(run: Path, hardware: Hardware, tmp_path: Path) -> None:
    whole = finetuning(run, TASK, 8, 1, TUNING, 10, tmp_path / "whole", hardware)
    finished = RunFolder(tmp_path / "whole")
    part = RunFolder(tmp_path / "part")
    for number, _ in enumerate(train(begin(finished.recipe, part, hardware), part, hardware)):
        if number == 2:
            break  # before anything was saved
    assert finetuning(run, TASK, 8, 1, TUNING, 10, part.path, hardware) == whole
    for name, array in open_folder(finished.path).arrays.items():
        np.testing.assert_array_equal(open_folder(part.path).arrays[name], array)


def test_the_commands(run: Path, tmp_path: Path) -> None:
    def typed(*words: str) -> object:
        ended = CliRunner().invoke(app, [*words, "--backend", "torch", "--json"])
        assert ended.exit_code == 0, ended.output
        return json.loads(ended.stdout)

    curves = typed("context", str(run), "--tasks", TASK, "--shots", "0,2", "--count", "5", "--plan", "1:3x2", "--out", str(tmp_path / "c"))
    assert [[spot["examples"] for spot in curve["spots"]] for curve in curves] == [[0, 2], [0, 2]]  # type: ignore[attr-defined]
    assert "<svg" in (tmp_path / "c/context.html").read_text()
    tuned = typed(
        "finetune",
        str(run),
        "--tasks",
        TASK,
        "--examples",
        "0,4",
        "--seeds",
        "0,1",
        "--steps",
        "2",
        "--count",
        "5",
        "--out",
        str(tmp_path / "f"),
    )
    (curve,) = tuned  # type: ignore[misc]
    shares = [each["correct"] / 5 for each in curve["spots"][1]["accuracies"]]
    assert len(curve["spots"][0]["accuracies"]) == 1
    assert len(shares) == 2
    assert mean_interval(shares)[0] <= np.mean(shares)
    assert len(list((tmp_path / "f").glob("*/*_seed_*"))) == 2


def test_runs_from_other_weights_at_the_same_path_are_not_taken(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(newest(run), model, ignore=shutil.ignore_patterns("optimizer*", "trainer*"))
    asked = ["finetune", str(model), "--tasks", TASK, "--examples", "4", "--seeds", "0", "--steps", "1", "--count", "5"]
    asked += ["--backend", "torch", "--out", str(tmp_path / "f")]
    assert CliRunner().invoke(app, asked).exit_code == 0
    there = open_folder(model)
    changed = {name: array * np.float32(1.01) for name, array in there.arrays.items()}
    write_folder(model, there.spec, changed, tokenizer=newest(run), force=True)
    with pytest.raises(UsageError, match="other weights"):
        CliRunner().invoke(app, asked, catch_exceptions=False, standalone_mode=False)
    with pytest.raises(UsageError, match="same folder"):
        CliRunner().invoke(app, [*asked, str(model)], catch_exceptions=False, standalone_mode=False)
