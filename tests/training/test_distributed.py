"""Two real processes on a CPU, as torchrun and mlx.launch start them, train as one process with twice the rows does."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recipes import small

from loopkit.backend import Backend
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import override
from loopkit.training.start import begin, train

STEPS = 12
RECIPE = small(
    "model.layout=2",
    "growth.operator=lidas",
    "growth.block=1",
    "data.mix=primitives:var-basic-0,copy-words-32",
    "data.answers=true",  # so that the processes count different numbers of targets
    f"schedule.steps={STEPS}",
    "train.micro_batches=2",
    f"train.save_every={STEPS // 2}",
    f"train.evaluate_every={STEPS // 2}",
    "train.sample_tokens=4",
)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def launcher(backend: Backend) -> list[str]:
    """What a user types ahead of ``-m loopkit`` for two processes."""
    if backend.name == "torch":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch = Path(sys.executable).with_name("mlx.launch")
    if not launch.exists():
        pytest.skip("mlx.launch is not installed beside this Python")
    return [str(launch), "-n", "2", "--backend", "ring", "--starting-port", str(free_port()), "--", sys.executable]


def launch(backend: Backend, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in two processes; their input stays open, since mlx.launch turns in a circle where it is at its end."""
    command = [*launcher(backend), "-m", "loopkit", "train", "--backend", backend.name, "--device", "cpu", *arguments]
    reading, writing = os.pipe()
    try:
        return subprocess.run(command, stdin=reading, capture_output=True, text=True, timeout=120)
    finally:
        os.close(reading)
        os.close(writing)


def losses(folder: RunFolder) -> list[float]:
    return [event["loss"] for event in folder.metrics() if event["event"] == "step"]


def test_two_processes_are_one_with_twice_the_rows(backend: Backend, tmp_path: Path) -> None:
    """Also where they resume."""
    recipe, two = tmp_path / "recipe.toml", RunFolder(tmp_path / "two")
    recipe.write_text(RECIPE.toml())
    done = launch(backend, str(recipe), "--out", str(two.path), "--json")
    assert done.returncode == 0, done.stderr
    events = len(two.metrics()) + len(list(two.path.glob("samples/*")))
    assert [line.count('"event"') for line in done.stdout.splitlines() if line] == [1] * events

    one, hardware = RunFolder(tmp_path / "one"), Hardware(backend, "cpu", "float32")
    doubled = replace(RECIPE, data=replace(RECIPE.data, rows=2 * RECIPE.data.rows))
    for _ in train(begin(doubled, one, hardware), one, hardware):
        pass
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert [event["tokens"] for event in two.metrics() if event["event"] == "step"][-1] == STEPS * 8 * 48

    shutil.rmtree(two.checkpoints()[-1])
    done = launch(backend, "--out", str(two.path), "--resume", "--json")
    assert done.stdout.count('"step", "step"') == STEPS // 2, done.stderr
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)


def started(backend: Backend, *arguments: str) -> subprocess.Popen[str]:
    """The command in two processes, in a group of their own as a terminal makes one; see ``launch`` on input."""
    command = [*launcher(backend), "-m", "loopkit", "train", "--backend", backend.name, "--device", "cpu", *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_ctrl_c_stops_all_processes_after_the_same_step(backend: Backend, tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.toml", RunFolder(tmp_path / "run")
    recipe.write_text(override(RECIPE, ["schedule.steps=5000", "train.save_every=0", "train.evaluate_every=0"]).toml())
    process = started(backend, str(recipe), "--out", str(folder.path), "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if '"event"' in line and json.loads(line)["step"] >= 3:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 or backend.name == "mlx"  # mlx.launch's own, whatever its processes say
    assert [event["event"] for event in folder.metrics()][-2:] == ["saved", "stopped"], err
    assert err.count("stopped; go on with") in ((1,) if backend.name == "torch" else (0, 1)), err  # mlx.launch may pass nothing on
    assert len(folder.checkpoints()) == 1
    assert folder.load(folder.checkpoints()[0])[2].step == len(losses(folder)) < 5000


def test_a_loss_that_explodes_is_reported_once(backend: Backend, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(override(RECIPE, ["schedule.rate=1e6", "train.evaluate_every=0"]).toml())
    done = launch(backend, str(recipe), "--out", str(tmp_path / "run"), "--json")
    assert (done.stdout + done.stderr).count("error: the gradient's norm became") == 1, done.stderr
