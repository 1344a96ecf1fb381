"""A branch is the run its recipe describes, bit for bit, without doing the shared steps again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import SMALL

from loopkit import backend as backends
from loopkit.checkpoint.folder import open_folder
from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Step
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import Recipe, override
from loopkit.training.start import Ready, begin, branch, train

RECIPE = override(
    Recipe(),
    (
        *SMALL,
        "data.mix=0.9*primitives:copy-words-32 + 0.1*primitives:var-basic-0",
        "model.layout=4",
        "growth.operator=lidas",
        "growth.block=2",
        "schedule.steps=20",
        "schedule.warmup=2",
        "schedule.cooldown=0.4",
        "train.evaluate_every=10",
        "train.sample_tokens=0",
        "train.save_every=4",
        "train.keep=0",
    ),
)


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return Hardware(backends.load("torch"), "cpu", "float32")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory, hardware: Hardware) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("trunk") / "run")
    finish(folder, lambda: begin(RECIPE, folder, hardware), hardware)
    return folder


def finish(folder: RunFolder, make_ready: Callable[[], Ready], hardware: Hardware) -> list[int]:
    """The steps that were done."""
    return [event.step for event in train(make_ready(), folder, hardware) if isinstance(event, Step)]


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        (["cooldown.plan=0:2x2"], 12),
        (["cooldown.mix=primitives:var-basic-0", "train.log=", "train.evaluate_every=0"], 12),
        (["schedule.final_ratio=0.5"], 12),  # the first step of the cooldown still has the full rate
        (["schedule.steps=24", "schedule.cooldown=0.5", "cooldown.plan=0:2x2"], 12),
        (["schedule.steps=24"], 4),  # the growth stages are longer, so the branch parts ahead of the first growth
    ],
)
def test_a_branch_equals_a_run_of_its_own(tmp_path: Path, hardware: Hardware, trunk: RunFolder, settings: list[str], first: int) -> None:
    recipe = override(RECIPE, settings)
    own, branched = RunFolder(tmp_path / "own"), RunFolder(tmp_path / "branched")
    finish(own, lambda: begin(recipe, own, hardware), hardware)
    steps = finish(branched, lambda: branch(trunk, recipe, branched, hardware), hardware)
    assert steps == list(range(first, recipe.schedule.steps))
    assert losses(branched) == losses(own)
    weights = [open_folder(folder.newest() or "").arrays for folder in (own, branched)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert branched.recipe == recipe


def losses(folder: RunFolder) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in folder.metrics() if event["event"] == "step"}


def test_the_branched_run_stays_as_it_was(tmp_path: Path, hardware: Hardware, trunk: RunFolder) -> None:
    before = {path: path.read_bytes() for path in trunk.path.rglob("*") if path.is_file()}
    folder = RunFolder(tmp_path / "branched")
    finish(folder, lambda: branch(trunk, override(RECIPE, ["cooldown.plan=0:2x2"]), folder, hardware), hardware)
    assert {path: path.read_bytes() for path in trunk.path.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.checkpoints()] == ["step_000012", "step_000016", "step_000020"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.rows=7"], "data.rows is"),
        (["train.seed=5"], "train.seed is 0, not 5"),
        (["optimizer.weight_decay=0.3"], "optimizer.weight_decay"),
        ([], "the run itself"),
        (["train.evaluate_every=5"], "the run itself"),
        (["schedule.rate=1e-4"], "from the first step on, so there is nothing to branch from"),
        (["cooldown.plan=0:9x2"], "0:9"),
        (["cooldown.mix=primitives:var-code-0"], "word tokenizer does not know '#' of var-code-0"),
    ],
)
def test_what_no_branch_can_do_is_refused_before_anything_is_written(
    tmp_path: Path, hardware: Hardware, trunk: RunFolder, settings: list[str], message: str
) -> None:
    folder = RunFolder(tmp_path / "branched")
    with pytest.raises((UsageError, LoopkitError), match=message):
        branch(trunk, override(RECIPE, settings), folder, hardware)
    assert not folder.path.exists()


def test_a_branch_never_writes_over_a_run(tmp_path: Path, hardware: Hardware, trunk: RunFolder) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        branch(trunk, override(RECIPE, ["cooldown.plan=0:2x2"]), RunFolder(tmp_path / "there"), hardware)
