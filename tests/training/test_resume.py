"""A run that is killed goes on as if it had not been: the same losses, bit for bit, on one CPU backend."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from recipes import SMALL

from loopkit import backend as backends
from loopkit.checkpoint.folder import open_folder
from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Grown, Saved, Step, Stopped
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import Recipe, override
from loopkit.training.start import begin, resume, train

SETTINGS = (
    *SMALL,
    "model.layout=6",
    "growth.operator=lidas",
    "growth.block=2",
    "schedule.steps=60",
    "schedule.warmup=4",
    "schedule.cooldown=0.25",
    "cooldown.mix=primitives:var-basic-0,copy-words-32",
    "cooldown.plan=2:4x2",
    "train.evaluate_every=20",
    "train.sample_tokens=8",
    "train.save_every=7",
    "train.keep=2",
)
RECIPE = override(Recipe(), SETTINGS)


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return Hardware(backends.load("torch"), "cpu", "float32")


def losses(folder: RunFolder) -> dict[int, float]:
    found = [event for event in folder.metrics() if event["event"] == "step"]
    assert len({event["step"] for event in found}) == len(found), "a step was recorded twice"
    return {event["step"]: event["loss"] for event in found}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, hardware: Hardware) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("unbroken") / "run")
    events = list(train(begin(RECIPE, folder, hardware), folder, hardware))
    assert [event.layers for event in events if isinstance(event, Grown)] == [4, 6]
    assert [event.step for event in events if isinstance(event, Step)] == list(range(60))
    return folder


def test_a_run_folder_holds_what_it_says(unbroken: RunFolder) -> None:
    assert unbroken.recipe == RECIPE
    assert [path.name for path in unbroken.checkpoints()] == ["step_000056", "step_000060"]
    assert unbroken.newest() == unbroken.checkpoints()[-1]
    checkpoint = open_folder(unbroken.checkpoints()[-1])
    assert checkpoint.spec.layout == "6"
    assert [step for step, _ in checkpoint.config["history"]] == [7, 22]
    assert (unbroken.path / "samples" / "step_000060.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("at", [3, 7, 21, 22, 23, 44, 45, 50, 59])
def test_resuming_anywhere_gives_the_same_losses(tmp_path: Path, hardware: Hardware, unbroken: RunFolder, at: int) -> None:
    folder = RunFolder(tmp_path / "run")
    steps = 0

    def stop() -> bool:
        return steps >= at

    for event in train(begin(RECIPE, folder, hardware), folder, hardware, stop):
        steps += isinstance(event, Step)
    assert isinstance(event, Stopped)
    for _ in train(resume(folder, hardware), folder, hardware):
        pass
    assert losses(folder) == losses(unbroken)
    assert [e for e in folder.metrics() if e["event"] == "evaluated"] == [e for e in unbroken.metrics() if e["event"] == "evaluated"]


def test_a_run_abandoned_without_a_checkpoint_starts_again(tmp_path: Path, hardware: Hardware, unbroken: RunFolder) -> None:
    folder = RunFolder(tmp_path / "run")
    for _ in islice(train(begin(RECIPE, folder, hardware), folder, hardware), 5):
        pass
    assert folder.newest() is None
    for _ in train(resume(folder, hardware), folder, hardware):
        pass
    assert losses(folder) == losses(unbroken)


def command(out: Path, *more: str) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    start = ["--resume"] if more == ("--resume",) else settings
    return [sys.executable, "-m", "loopkit", "train", "--backend", "torch", "--out", str(out), "--json", *start]


def test_killed_processes_lose_nothing(tmp_path: Path, unbroken: RunFolder) -> None:
    """SIGKILL at random moments, many times, among them while checkpoints are written."""
    folder, draws = RunFolder(tmp_path / "run"), random.Random(0)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for kill, target in enumerate([5, 13, 21, 26, 34, 43, 49, 56]):
        process = subprocess.Popen(
            command(folder.path, *(["--resume"] if kill else [])), stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] in ("step", "saved") and event["step"] >= target:
                break
        time.sleep(draws.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    done = subprocess.run(command(folder.path, "--resume"), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert losses(folder) == losses(unbroken)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_polite_kill_saves_and_says_how_to_go_on(tmp_path: Path, unbroken: RunFolder, number: signal.Signals) -> None:
    folder = RunFolder(tmp_path / "run")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(folder.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] >= 10:
            break
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["event"] == "stopped"
    assert set(losses(folder).items()) <= set(losses(unbroken).items())


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path, unbroken: RunFolder, run: Run) -> None:
    folder = RunFolder(tmp_path / "run")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command(folder.path), stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["step"] < 10:
            pass
        process.send_signal(signal.SIGSTOP)
        try:
            before = folder.metrics()
            result = run("train", "--backend", "torch", "--out", str(folder.path), "--resume")
            assert (result.code, result.err) == (
                1,
                f"error: another process is training in {folder.path}; wait until it has ended, or stop it\n",
            )
            assert folder.metrics() == before
        finally:
            process.send_signal(signal.SIGCONT)
        process.communicate()
    assert process.returncode == 0
    assert losses(folder) == losses(unbroken)


def test_a_torn_pointer_or_metrics_line_is_no_obstacle(tmp_path: Path, hardware: Hardware, unbroken: RunFolder) -> None:
    folder = RunFolder(tmp_path / "run")
    for event in train(begin(RECIPE, folder, hardware), folder, hardware):
        if isinstance(event, Saved) and event.step == 14:
            break
    (folder.path / "latest").write_text("checkpoints/step_9")
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    for _ in train(resume(folder, hardware), folder, hardware):
        pass
    assert losses(folder) == losses(unbroken)


def test_a_damaged_checkpoint_is_named(tmp_path: Path, hardware: Hardware) -> None:
    folder = RunFolder(tmp_path / "run")
    for event in train(begin(RECIPE, folder, hardware), folder, hardware):
        if isinstance(event, Saved):
            break
    file = folder.checkpoints()[-1] / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(LoopkitError, match=r"optimizer\.safetensors is not a whole safetensors file"):
        resume(folder, hardware)


def test_an_existing_run_is_kept(tmp_path: Path, hardware: Hardware) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        begin(RECIPE, RunFolder(tmp_path / "run"), hardware)
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"


def test_a_loss_that_explodes_stops_the_run_with_its_checkpoint_kept(tmp_path: Path, hardware: Hardware) -> None:
    folder = RunFolder(tmp_path / "run")
    wild = replace(RECIPE, schedule=replace(RECIPE.schedule, rate=1e6), train=replace(RECIPE.train, save_every=1))
    with pytest.raises(LoopkitError, match=r"(the loss|the gradient's norm) became .* at step \d+"):
        for _ in train(begin(wild, folder, hardware), folder, hardware):
            pass
    kept = folder.newest()
    assert kept is not None
    assert all(np.isfinite(array).all() for array in open_folder(kept).arrays.values())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.hiden_size=3", "did you mean hidden_size"),
        ("growht.block=3", "did you mean growth"),
        ("schedule.steps=many", "must be a whole number"),
        ("growth.block=4", "block 4 does not divide 6 layers"),
        ("growth.operator=lidass", "no growth operator 'lidass'"),
        ("model.layout=3x2", "layout 3x2 is looped"),
        ("data.mix=primitives:copy-wrods", "copy-words"),
        ("data.mix=file:nowhere.txt", "nowhere.txt"),
        ("data.tokenizer=word:x", "is no tokenizer"),
        ("data.length=4096", "is more than the model's 2048 positions"),
        ("model.vocab_size=12", "raise model.vocab_size"),
        ("model.init_from=nowhere", "model.hidden_size cannot be set beside model.init_from"),
        ("cooldown.plan=2:9x2", "range 2:9 is outside"),
        ("train.recurrence=2:4", "bad part"),
        ("train.micro_batches=3", "must be a multiple of train.micro_batches"),
        ("schedule.rate=0", "schedule.rate must be above 0"),
        ("model.init_scale=0", "model.init_scale must be above 0"),
        ("schedule.warmup=100", "warmup must be from 0"),
        ("schedule.kind=linear", "no schedule 'linear'"),
        ("optimizer.kind=sgd", "no optimizer 'sgd'; optimizers are adamw, muon"),
        ("optimizer.clip=-1", "optimizer.clip must be 0 or more, got -1.0"),
        ("optimizer.beta2=1", "optimizer.beta2 must be from 0 to below 1, got 1.0"),
        ("optimizer.clip=inf", "optimizer.clip must be a finite number, got inf"),
        ("schedule.rate=nan", "schedule.rate must be a finite number, got nan"),
        ("train.seed=-1", "train.seed must be 0 or more"),
        ("model.untie=true", "say which one: model.init_from"),
    ],
)
def test_bad_recipes_are_one_line_and_leave_nothing(tmp_path: Path, hardware: Hardware, setting: str, said: str) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(LoopkitError) as caught:
        begin(override(RECIPE, [setting]), folder, hardware)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["schedule.cooldown=0", "cooldown.plan=0:1x2"], "schedule.cooldown 0 leaves none"),
        (["data.mix=primitives:var-basic-2", "data.length=16", "data.answers=true"], "no answer lies within the first rows"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(tmp_path: Path, hardware: Hardware, settings: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        begin(override(RECIPE, settings), RunFolder(tmp_path / "run"), hardware)


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path, hardware: Hardware) -> None:
    folder = RunFolder(tmp_path / "run")
    ready = begin(RECIPE, folder, hardware)
    left = folder.path / "checkpoints" / f".step_{RECIPE.schedule.steps:06}.{os.getpid()}.part"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert [event for event in train(ready, folder, hardware) if isinstance(event, Saved)]
    assert not left.exists()


def test_recipes_round_trip_as_toml() -> None:
    from loopkit.training.recipe import parse_recipe

    assert parse_recipe(RECIPE.toml()) == RECIPE
    assert parse_recipe("") == Recipe()
    odd = override(Recipe(), ['data.pairs=/tmp/\u00e9t\u00e9 \U0001f600 \\ " \x7f \x01.jsonl'])
    assert parse_recipe(odd.toml()) == odd


def test_runs_of_several_seeds_go_on_with_those_not_begun(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "runs"
    settings = [part for setting in (*SMALL, "schedule.steps=3", "schedule.warmup=1") for part in ("--set", setting)]
    assert run("train", "--backend", "torch", "--out", out, "--seeds", "0..1", *settings).code == 0
    again = run("train", "--backend", "torch", "--out", out, "--seeds", "2,1", *settings)
    assert (again.code, again.out) == (2, "")
    assert "seed_1 exists already" in again.err
    shutil.rmtree(out / "seed_1")
    assert run("train", "--backend", "torch", "--out", out, "--seeds", "0,1", "--resume").code == 0
    assert [RunFolder(out / f"seed_{seed}").recipe.train.seed for seed in (0, 1)] == [0, 1]
    assert len(losses(RunFolder(out / "seed_1"))) == 3
    assert "--seeds 1,1 names one twice" in run("train", "--out", out, "--seeds", "1,1").err
