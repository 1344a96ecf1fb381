"""What is found on disk: checkpoints, runs, and events as they are written."""

import json
import os
from pathlib import Path

import pytest
from loopkit_tui import places, runs
from loopkit_tui.places import Place
from loopkit_tui.runs import Watched

from loopkit.errors import LoopkitError

STEP = {"event": "step", "loss": 2.0, "tokens": 8, "seconds": 0.5, "layers": 2, "visits": 4, "flops": 1.0}


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 8}))
    (folder / "model.safetensors").touch()
    return folder


def test_checkpoints_runs_and_the_hubs_cache_are_found_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    smol = checkpoint(here / "smol")
    checkpoint(here / "runs" / "one" / "checkpoints" / "step_000010")
    (here / "runs" / "one" / "config.toml").touch()
    (here / "runs" / "one" / "latest").write_text("checkpoints/step_000010\n")
    hub = checkpoint(tmp_path / "hub" / "models--a--b" / "snapshots" / "abc")
    (here / "notes").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = places.find(here, (str(smol), str(tmp_path / "gone")))
    sizes = "llama, 3 layers, width 8"
    assert found == [
        Place(str(smol), "checkpoint", sizes),
        Place(str(here / "runs" / "one"), "run", f"{sizes}, step_000010"),
        Place(str(hub), "hub", sizes),
    ]
    assert places.runs(here) == [here / "runs" / "one"]


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "config.json").write_text("{")
    (tmp_path / "runs" / "broken" / "model.safetensors").touch()
    assert [place.about for place in places.find(tmp_path)] == ["config.json cannot be read"]


def test_events_are_read_on_from_where_the_last_look_ended(tmp_path: Path) -> None:
    file, run = tmp_path / "metrics.jsonl", Watched(tmp_path)
    assert not run.look()
    lines = [json.dumps({**STEP, "step": step, "tokens": 8 * (step + 1)}) + "\n" for step in range(4)]
    file.write_text("".join(lines[:2]) + lines[2][:10])
    assert run.look()
    assert run.steps == [0, 1]
    assert not run.look() or run.steps == [0, 1]
    file.write_text(
        "".join(lines) + "no json\n" + '{"event": "evaluated", "step": 4, "loss": 1.5}\n{"event": "grown", "step": 4, "layers": 3}\n'
    )
    assert run.look()
    assert run.steps == [0, 1, 2, 3]
    assert run.heldout == [(4, 1.5)]
    assert run.rate == 8 / 0.5
    assert run.smooth == [2.0] * 4


def test_a_file_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    file, run = tmp_path / "metrics.jsonl", Watched(tmp_path)
    lines = [json.dumps({**STEP, "step": step}) + "\n" for step in range(4)]
    file.write_text("".join(lines))
    run.look()
    os.truncate(file, len(lines[0]))
    assert run.look()
    assert run.steps == [0]


def test_a_training_is_not_started_over_what_is_there(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.touch()
    with pytest.raises(LoopkitError, match="exists already"):
        runs.start(str(recipe), str(tmp_path))
    with pytest.raises(LoopkitError, match="there is no recipe"):
        runs.start(str(tmp_path / "none.toml"), str(tmp_path / "out"))
