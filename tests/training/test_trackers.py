"""Trackers get what metrics.jsonl gets, also where a run was broken off and resumed. Each with the real package, or skipped."""

import importlib
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from recipes import SMALL, small

from loopkit import backend as backends
from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Grown, Step
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.start import begin, resume, train
from loopkit.training.trackers import numbers

Curve = list[tuple[int, float]]


def broken_and_resumed(path: Path, tracker: str) -> RunFolder:
    """A run abandoned three steps after its checkpoint at step 5, then finished."""
    folder, hardware = RunFolder(path / "run"), Hardware(backends.load("torch"), "cpu", "float32")
    recipe = small(f"train.log={tracker}", "train.save_every=5", "train.evaluate_every=6", "train.sample_tokens=2")
    events = train(begin(recipe, folder, hardware), folder, hardware)
    assert [event.step for event in islice(events, 10) if isinstance(event, Step)][-1] >= 6
    events.close()  # type: ignore[attr-defined]
    for _ in train(resume(folder, hardware), folder, hardware):
        pass
    return folder


def recorded(folder: RunFolder, kind: str) -> Curve:
    return [(event["step"], pytest.approx(event["loss"], rel=1e-6)) for event in folder.metrics() if event["event"] == kind]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = broken_and_resumed(tmp_path, "tensorboard")
    found = EventAccumulator(str(folder.path / "tensorboard")).Reload()
    for kind in ("step", "evaluated"):
        assert [(each.step, each.value) for each in found.Scalars(f"{kind}/loss")] == recorded(folder, kind)
    assert [each.value for each in found.Scalars("step/layers")] == [4.0] * 12


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    folder = broken_and_resumed(tmp_path, "wandb")
    identity = (folder.path / "tracker_id").read_text()
    files = sorted((folder.path / "wandb").glob("offline-run-*/*.wandb"))
    assert {file.name for file in files} == {f"run-{identity}.wandb"}, "both sessions are one run"
    assert all(b"step/loss" in file.read_bytes() for file in files)
    assert b"evaluated/loss" in files[-1].read_bytes()


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="needs trackio")
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    folder = broken_and_resumed(tmp_path, "trackio")
    logs = storage.get_logs("loopkit", (folder.path / "tracker_id").read_text())
    assert {each["step"]: each["step/loss"] for each in logs if "step/loss" in each} == dict(recorded(folder, "step"))


def test_names_are_those_of_events() -> None:
    assert numbers(Grown(3, 4, (0, 1, 0, 1), 0.5)) == {"grown/layers": 4, "grown/seconds": 0.5}


def test_a_missing_or_unknown_tracker_is_one_line_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, hardware = RunFolder(tmp_path / "run"), Hardware(backends.load("torch"), "cpu", "float32")
    with pytest.raises(UsageError, match="no tracker 'mlflow'; trackers are tensorboard, wandb, trackio"):
        begin(small("train.log=tensorboard,mlflow"), folder, hardware)
    monkeypatch.setattr("loopkit.training.trackers.find_spec", lambda _: None)
    with pytest.raises(LoopkitError, match=r"trackio is not installed; install it with: pip install 'loopkit-lm\[loggers\]'"):
        begin(small("train.log=trackio"), folder, hardware)
    assert not folder.path.exists()


def test_the_command_takes_several_and_keeps_stdout_for_results(tmp_path: Path) -> None:
    for name in ("tensorboard", "trackio"):
        pytest.importorskip(name, reason=f"needs {name}")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    command = [sys.executable, "-m", "loopkit", "train", "--backend", "torch", "--out", str(tmp_path / "run"), "--json", *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run([*command, "--log", "tensorboard", "--log", "trackio"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line) for line in done.stdout.splitlines())
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert list((tmp_path / "trackio").iterdir())
