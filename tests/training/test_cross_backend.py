"""The same run on both backends: one loss curve, and a run begun on one that goes on with the other."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from recipes import small

from loopkit.backend import Backend
from loopkit.optimizer import Kind
from loopkit.training.events import Grown, Step, Stopped
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import Recipe, override
from loopkit.training.start import begin, resume, train

STEPS = 200
SWITCH = 60  # between the two growth steps, at 25 and 75
RECIPE = small(
    "model.layout=3",
    "growth.operator=lidas",
    "growth.block=1",
    "data.rows=8",
    f"schedule.steps={STEPS}",
    "schedule.warmup=20",
    "schedule.cooldown=0.25",
    "cooldown.plan=1:3x2",
    "train.evaluate_every=0",
    "train.save_every=0",
)
Curve = list[float]


def curve(folder: RunFolder) -> Curve:
    """Losses by step."""
    losses = [event["loss"] for event in folder.metrics() if event["event"] == "step"]
    assert len(losses) == STEPS
    return losses


@pytest.fixture(scope="module")
def hardware(pair: list[tuple[Backend, str]]) -> list[Hardware]:
    return [Hardware(backend, device, "float32") for backend, device in pair]


@pytest.fixture(scope="module", params=get_args(Kind))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """With each of the optimizers."""
    return override(RECIPE, [f"optimizer.kind={request.param}"])


@pytest.fixture(scope="module")
def unbroken(recipe: Recipe, hardware: list[Hardware], tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """A whole run on each backend."""
    folders = [RunFolder(tmp_path_factory.mktemp("runs") / each.backend.name) for each in hardware]
    for folder, each in zip(folders, hardware, strict=True):
        for _ in train(begin(recipe, folder, each), folder, each):
            pass
    return folders


def after(steps: int) -> Callable[[], bool]:
    """A ``stop`` that asks to stop after so many steps."""
    left = iter(range(steps))
    return lambda: next(left) == steps - 1


def test_both_backends_have_one_loss_curve(unbroken: list[RunFolder]) -> None:
    first, second = map(curve, unbroken)
    assert first == pytest.approx(second, abs=1e-3)
    assert min(first[-10:]) < 0.8 * first[0], "the model learns, or agreement would mean little"
    grown = [[event["layers"] for event in folder.metrics() if event["event"] == "grown"] for folder in unbroken]
    assert grown == [[2, 3], [2, 3]]


@pytest.mark.parametrize("first", [0, 1])
def test_a_run_goes_on_with_the_other_backend(
    recipe: Recipe, hardware: list[Hardware], unbroken: list[RunFolder], tmp_path: Path, first: int
) -> None:
    folder, began, goes_on = RunFolder(tmp_path / "run"), hardware[first], hardware[1 - first]
    *events, last = train(begin(recipe, folder, began), folder, began, after(SWITCH))
    assert isinstance(last, Stopped)
    assert any(isinstance(event, Grown) for event in events)
    events = list(train(resume(folder, goes_on), folder, goes_on))
    assert [event.step for event in events if isinstance(event, Step)] == list(range(SWITCH, STEPS))
    assert any(isinstance(event, Grown) for event in events)
    for folder_of_one in unbroken:
        assert curve(folder) == pytest.approx(curve(folder_of_one), abs=1e-3)


def test_each_backend_repeats_itself_bit_for_bit(
    recipe: Recipe, hardware: list[Hardware], unbroken: list[RunFolder], tmp_path: Path
) -> None:
    """Also where it was stopped and resumed."""
    for each, whole in zip(hardware, unbroken, strict=True):
        folder = RunFolder(tmp_path / each.backend.name)
        for _ in train(begin(recipe, folder, each), folder, each, after(SWITCH)):
            pass
        for _ in train(resume(folder, each), folder, each):
            pass
        assert curve(folder) == curve(whole)
