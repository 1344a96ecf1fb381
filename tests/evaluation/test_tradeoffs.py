"""Trade-offs of runs and checkpoints: costs and scores are those of each alone, partners are those of like cost."""

import json
from pathlib import Path

import numpy as np
import pytest
from recipes import small
from typer.testing import CliRunner

import loopkit
from loopkit import backend as backends
from loopkit import cost
from loopkit.cli import app
from loopkit.data.loading import Packing, open_batches
from loopkit.data.mixture import parse_mixture
from loopkit.data.tokenizers import checkpoint_codec
from loopkit.errors import LoopkitError
from loopkit.evaluation.choice import accuracies
from loopkit.evaluation.statistics import mean_interval, student_t
from loopkit.evaluation.tradeoffs import HeldOut, groups, held_out, measure, nll, partners
from loopkit.evaluation.tradeoffs_page import short_names, table
from loopkit.training.events import Step
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.start import begin, train

TASK = "copy-words-32"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A standard model of four layers with two seeds, a looped one of the same inference cost, a shallow one of its size."""
    folder = tmp_path_factory.mktemp("tradeoffs")
    hardware = Hardware(backends.load("torch"), "cpu", "float32")
    for name, layout, seed in (("base/seed_0", "4", 0), ("base/seed_1", "4", 1), ("looped", "2x2", 0), ("shallow", "2", 0)):
        run = RunFolder(folder / name)
        recipe = small(f"model.layout={layout}", f"train.seed={seed}", "train.sample_tokens=0", "train.evaluate_every=0")
        list(train(begin(recipe, run, hardware), run, hardware))
    return folder


def test_entries_are_what_each_run_says_alone(runs: Path) -> None:
    (group,) = groups([runs / "base"])
    assert [path.name for path in group.members] == ["seed_0", "seed_1"]
    text = held_out([group], None, 8, 48)
    assert text is not None
    entries = list(measure(group, [None, "1:3x2"], [TASK], count=20, seed=3, text=text, length=48, backend="torch"))
    model = loopkit.load(runs / "base/seed_1", "torch")
    for entry, plan in zip(entries, (None, "1:3x2"), strict=True):
        assert entry.accuracies[1] == tuple(accuracies(model, TASK, [plan], 20, 0, 3))
        assert (entry.nll[1], entry.bits[1]) == nll(model, plan, text)
        assert entry.unique == cost.parameters(model.spec)
        visits = model.resolve(plan)
        assert entry.inference == pytest.approx(np.mean([cost.token_flops(model.spec, visits, seen) for seen in range(1, 49)]))
        low, high = mean_interval([each[0].share for each in entry.accuracies])
        assert entry.interval == (max(0.0, low), min(1.0, high))
    last = [event for event in RunFolder(runs / "base/seed_0").metrics() if event["event"] == Step.__name__.lower()][-1]
    assert entries[0].training == last["flops"]


@pytest.mark.parametrize("documents", [False, True])
def test_nll_is_that_of_the_held_out_rows(runs: Path, documents: bool) -> None:
    """With documents, that of each of them alone."""
    model, mixture = loopkit.load(runs / "looped", "torch"), parse_mixture(f"primitives:{TASK}")
    packing = Packing(8, 60, documents=documents, shots=0)
    mean, bits = nll(model, None, HeldOut(mixture, 8, packing))
    batch = open_batches(mixture, checkpoint_codec(model.checkpoint.path), packing, "evaluation").at(0)
    losses = np.empty(batch.ids.shape)
    for row, ids in enumerate(batch.ids):
        starts = [0, *(np.flatnonzero(ids[1:] == 0) + 1)] if documents else [0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            logits = model.logits(ids[None, start:end])[0].astype(np.float64)
            right = logits[np.arange(end - start), batch.targets[row, start:end]]
            losses[row, start:end] = np.log(np.exp(logits).sum(-1)) - right
    assert mean == pytest.approx(losses.mean(), abs=1e-5)
    text = sum(len(model.tokenizer.decode(row.tolist()).replace("<|endoftext|>", "").encode()) for row in batch.targets)
    assert bits == pytest.approx(losses.sum() / np.log(2) / text, rel=0.01)  # spaces where documents meet


def test_partners_cost_the_same(runs: Path) -> None:
    found = groups([runs / "base", runs / "looped", runs / "shallow"])
    entries = [entry for group in found for entry in measure(group, [None], [TASK], count=5, backend="torch")]
    base, looped, shallow = partners(entries)
    assert base == {"unique": [], "inference": [1], "training": [1]}
    assert looped == {"unique": [2], "inference": [0], "training": [0]}
    assert shallow == {"unique": [1], "inference": [], "training": []}
    assert short_names(entries) == ["base", "looped", "shallow"]
    made = table(entries, short_names(entries))
    assert "FLOPs/tok (256)" in made.columns
    rows = made.rows
    assert [row[-3:] for row in rows] == [["", "2", "2"], ["3", "1", "1"], ["2", "", ""]]


def test_a_checkpoint_has_no_training_flops(runs: Path) -> None:
    path = RunFolder(runs / "shallow").newest()
    assert path is not None
    (entry,) = measure(groups([path])[0], [None], [TASK], count=5, backend="torch")
    assert entry.training is None
    assert held_out(groups([path, runs / "looped"]), None, 8, 48) is None
    common = held_out(groups([runs / "base", runs / "looped"]), None, 8, 48)
    assert common is not None
    assert str(common.mixture) == f"primitives:{TASK}"


def test_text_is_laid_out_as_all_runs_train_on_it(tmp_path: Path) -> None:
    for name, more in (("a", ["data.documents=true", "data.shots=0"]), ("b", ["data.documents=true", "data.shots=0"]), ("c", [])):
        RunFolder(tmp_path / name).create(small(*more))
    alike = held_out(groups([tmp_path / "a", tmp_path / "b"]), None, 8, 48)
    mixed = held_out(groups([tmp_path / "a", tmp_path / "c"]), f"primitives:{TASK}", 8, 48)
    assert alike is not None
    assert mixed is not None
    assert (alike.packing.documents, alike.packing.shots) == (True, 0)
    assert (mixed.packing.documents, mixed.packing.shots) == (False, 5)


def test_no_text_that_a_run_trained_on_is_held_out(tmp_path: Path) -> None:
    for name, share in (("a", 0.1), ("b", 0.001)):
        RunFolder(tmp_path / name).create(small(f"data.heldout={share}"))
    both = held_out(groups([tmp_path / "a", tmp_path / "b"]), None, 8, 48)
    assert both is not None
    assert both.packing.heldout == 0.001


def test_a_page_is_not_written_into_a_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    typed = ["compare", str(runs / "base"), "--tasks", TASK, "--out", str(tmp_path / "page.html")]
    assert "--out names a folder" in str(CliRunner().invoke(app, typed).exception)


def test_the_command_writes_its_page_once(runs: Path, tmp_path: Path) -> None:
    typed = ["compare", str(runs / "base"), str(runs / "looped"), "--tasks", TASK, "--plan", "1:3x2", "--count", "10", "--json"]
    typed += ["--rows", "8", "--length", "48", "--out", str(tmp_path / "out"), "--backend", "torch"]
    ended = CliRunner().invoke(app, typed)
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert [entry["plan"] for entry in found["entries"]] == ["4", "1:3x2", "2x2", "0:2x2"]  # the shortest text of the same plan
    assert found["data"] == f"primitives:{TASK}"
    assert (tmp_path / "out/compare.html").read_text().count("<svg") == 6
    assert (tmp_path / "out/accuracy-training.png").read_bytes().startswith(b"\x89PNG")
    assert "exists already" in str(CliRunner().invoke(app, typed).exception)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(LoopkitError, match="does not exist"):
        groups([tmp_path / "nothing"])


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.7062), (9, 2.2622), (40, 2.0211), (120, 1.9799)])  # Fisher and Yates' table
def test_student_t(freedom: int, value: float) -> None:
    assert student_t(freedom) == pytest.approx(value, abs=2e-4)
