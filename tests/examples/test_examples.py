"""Each example as a person runs it, in a process of its own, on a small random checkpoint."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import loopkit
from loopkit.backend import available
from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.data.tasks import find
from loopkit.data.tokenizers import byte_codec
from loopkit.errors import UsageError
from loopkit.spec import preset
from loopkit.training.folder import RunFolder

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {"loop_a_checkpoint", "own_probe", "own_task", "own_operation", "continue_elsewhere", "use_elsewhere"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four random layers and a token for each byte."""
    folder, spec = tmp_path_factory.mktemp("examples"), preset("nano").with_layout("4")
    byte_codec().save(folder)
    return write_folder(folder / "tiny", spec, initialize(spec), tokenizer=folder)


def run(name: str, *arguments: object, folder: Path) -> str:
    """What the example prints when it runs in ``folder``, without network."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "code"), "COLUMNS": "150"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_looping_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    out = run("loop_a_checkpoint", checkpoint, "1:3x2", folder=tmp_path)
    model = loopkit.load(checkpoint)
    ids = model.prompt_ids("The capital of France is")
    for plan, visits in (("4", 4), ("1:3x2", 6)):
        assert f"plan {plan}: {visits} visits, {model.nll([ids], plan=plan).mean():.3f} nats" in out


def test_an_own_probe(checkpoint: Path, tmp_path: Path) -> None:
    rows = [line.split() for line in run("own_probe", checkpoint, "--plan", "1:3x2", folder=tmp_path).splitlines()[1:]]
    assert [(int(visit), int(layer)) for visit, layer, *_ in rows] == list(enumerate((0, 1, 2, 1, 2, 3)))
    assert all(0 < float(turn) < 180 and float(value) > 0 for *_, turn, value in rows)


def test_an_own_operation(checkpoint: Path, tmp_path: Path) -> None:
    out = run("own_operation", checkpoint, "--plan", "1:3x2", folder=tmp_path)
    model = loopkit.load(checkpoint, "torch", "cpu")
    logits = model.logits([model.prompt_ids("The river rose in the night, and in the morning the bridge was gone.")], plan="1:3x2")
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    for name in available():
        assert float(re.search(rf"{name}: plan 1:3x2, mean ([\d.]+)", out)[1]) == pytest.approx(-(p * np.log(p)).sum(-1).mean(), abs=1e-3)
    assert float(out.split("largest difference ")[1]) < 1e-3


def test_an_own_task_in_every_command(checkpoint: Path, tmp_path: Path) -> None:
    """Trained on, evaluated, and unknown to loopkit itself."""
    small = ("--set", "schedule.warmup=1", "--set", "data.rows=2", "--set", "data.length=32", "--set", "train.sample_tokens=0")
    recipe = ("--layout", 2, "--data", "primitives:largest-4", "--tokenizer", "word", "--steps", 3)
    run("own_task", "train", *recipe, *small, "--out", "largest", folder=tmp_path)
    assert len(RunFolder(tmp_path / "largest").metrics()) >= 3
    out = run("own_task", "eval", "largest", checkpoint, "--tasks", "largest-2", "--count", 8, "--shots", 1, folder=tmp_path)
    assert out.count("largest-2") == 2
    assert "50.0%" in out
    with pytest.raises(UsageError, match="no task"):
        find("largest-2")


@pytest.mark.skipif(len(available()) < 2, reason="needs both backends")
def test_a_run_that_moves(tmp_path: Path) -> None:
    """The first half's losses stay, and the second goes on as the first backend would have."""
    losses = {}
    for second in ("mlx", "torch"):
        out = run("continue_elsewhere", second, "--first", "torch", "--second", second, folder=tmp_path)
        assert f"{second} on" in out
        assert "grown to 4 layers" in out
        whole = RunFolder(tmp_path / second / "there").metrics()
        losses[second] = [event["loss"] for event in whole if event["event"] == "step"]
    assert len(losses["mlx"]) == len(losses["torch"]) == 40
    assert losses["mlx"][:20] == losses["torch"][:20]
    assert losses["mlx"] == pytest.approx(losses["torch"], abs=1e-3)
    assert losses["torch"][-1] < 0.8 * losses["torch"][0]


def test_a_looped_checkpoint_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    found = dict(
        re.findall(r"^(\w+): log p.* = (-[\d.]+)$", run("use_elsewhere", checkpoint, "looped", "--plan", "1:3x2", folder=tmp_path), re.M)
    )
    assert set(found) == {name for name in ("loopkit", "transformers", "mlx_lm", "lm_eval") if find_spec(name)}
    assert open_folder(tmp_path / "looped").spec.layout == "1-2x2-1"
    for value in found.values():
        assert float(value) == pytest.approx(float(found["loopkit"]), abs=1e-2)
