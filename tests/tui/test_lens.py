"""The Lens screen through a trained tuned lens: its cells are the library's own early exits."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loopkit_tui.app import LoopkitApp
from loopkit_tui.screens.lens import LensScreen
from loopkit_tui.widgets.heatmap import Heatmap
from playing import play, real_app, text_of, until
from textual.pilot import Pilot

from loopkit.probes.common import traced, unembed
from loopkit.probes.exits import Bare, Translator, exits
from loopkit.probes.lens import open_lens
from loopkit.session import load

LOOPKIT = [sys.executable, "-m", "loopkit"]
PROMPT = "copy from a random place"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Callable[[int], Path]) -> Path:
    """A short training."""
    out = tmp_path_factory.mktemp("runs") / "run"
    subprocess.run([*LOOPKIT, "train", recipe(30), "--out", out, "--backend", "torch"], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """A lens of its last checkpoint, trained as a person does it."""
    out = tmp_path_factory.mktemp("probes") / "lens"
    data = ["--data", "primitives:copy-words-32", "--set", "train=primitives:copy-words-32", "--shots", "0", "--length", "32"]
    budget = ["--examples", "2", "--set", "positions=1024", "--set", "texts=16", "--backend", "torch"]
    subprocess.run([*LOOPKIT, "probe", "tuned-lens", run, *data, *budget, "--out", out], check=True, capture_output=True)
    return out / "run" / "lens"


def screen(app: LoopkitApp) -> LensScreen:
    assert isinstance(app.screen, LensScreen)
    return app.screen


async def opened(pilot: Pilot[None], app: LoopkitApp, folder: Path | str) -> None:
    """Type a lens's folder, or nothing for the logit lens."""
    await until(pilot, lambda: app.about and app.about.where and app.screen.query("#tuned") and not screen(app).busy("lens"))
    await pilot.press("u", "end", "ctrl+u", *str(folder), "enter")
    await until(pilot, lambda: screen(app)._asked and screen(app)._asked[2] == str(folder) and not screen(app).busy("lens"))


def check_cells(app: LoopkitApp, checkpoint: Path, translator: Translator) -> None:
    """Every cell's ten tokens, their probabilities and the entropy, computed with the probes' own parts."""
    model = load(checkpoint, "torch", "cpu")
    row = np.array(model.prompt_ids(PROMPT))
    resid, places, rows = traced(model, row, model.plan)[0], np.arange(len(row)), screen(app)._rows
    assert sorted(rows) == list(range(len(model.plan) + 1))
    overlap = exits(model, row, model.plan, translator)[1]
    for done, x in enumerate(resid):
        translated = translator.apply(done, x) if done < len(model.plan) else x
        logits = unembed(model, row, translated[None], places)[0].astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        np.testing.assert_allclose(rows[done].probabilities, -np.sort(-shares, -1)[:, :10], rtol=1e-4)
        np.testing.assert_allclose(rows[done].entropy, -(shares * np.log(shares)).sum(-1), rtol=1e-4)
        assert [top[0] for top in rows[done].tokens] == [model.tokenizer.decode([int(best)]) for best in logits.argmax(-1)]
        common = [
            len(set(here[:5]) & set(last[:5])) / 5 for here, last in zip(rows[done].tokens, rows[len(model.plan)].tokens, strict=True)
        ]
        assert np.mean(common) == pytest.approx(overlap[done], abs=1e-6)


def test_cells_come_from_the_trained_lens(tmp_path: Path, run: Path, lens: Path) -> None:
    app = real_app(tmp_path, run, prompt=PROMPT, plan="", screen="lens")

    async def script(pilot: Pilot[None]) -> None:
        await opened(pilot, app, lens)
        check_cells(app, run, open_lens(lens))
        tuned = screen(app)._rows[1].probabilities
        cells = screen(app).query_one(Heatmap).cells
        assert cells is not None
        np.testing.assert_array_equal(cells.values[-2], tuned[:, 0])
        await opened(pilot, app, "")
        check_cells(app, run, Bare())
        assert not np.allclose(screen(app)._rows[1].probabilities, tuned, rtol=1e-3)

    play(app, script, (200, 60))


def test_a_lens_that_does_not_fit_is_refused_in_a_line(tmp_path: Path, run: Path, nano: Path, lens: Path) -> None:
    app = real_app(tmp_path, nano, prompt=PROMPT, plan="", screen="lens")

    async def script(pilot: Pilot[None]) -> None:
        await opened(pilot, app, lens)
        check_refused(app, "this lens was made for another model (its unembedding differs); train one for this model")
        await opened(pilot, app, run)
        check_refused(app, "holds no lens; train one with: loopkit probe tuned-lens CKPT --out DIR")
        await opened(pilot, app, "")
        assert "holds no lens" not in text_of(app) and screen(app).query_one(Heatmap).cells is not None

    play(app, script, (200, 60))


@pytest.mark.parametrize(("plan", "said"), [("1:3x2", "this lens was made for plan 4, not 1:3x2"), ("1:3x2@damped", "without a mode")])
def test_a_lens_of_another_plan_is_refused(tmp_path: Path, run: Path, lens: Path, plan: str, said: str) -> None:
    app = real_app(tmp_path, run, prompt=PROMPT, plan=plan, screen="lens")

    async def script(pilot: Pilot[None]) -> None:
        await opened(pilot, app, lens)
        check_refused(app, said)

    play(app, script, (200, 60))


def check_refused(app: LoopkitApp, said: str) -> None:
    """The screen says so in one line and shows no cells."""
    lines = [line for line in text_of(app).splitlines() if said in line]
    assert len(lines) == 1
    assert not screen(app)._rows and screen(app).query_one(Heatmap).cells is None
