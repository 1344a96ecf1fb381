"""loopkit probe as a person types it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Run

from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.data.tokenizers import byte_codec
from loopkit.probes import PROBES, open_lens
from loopkit.spec import Spec

QUICK = ("--shots", 0, "--length", 24, "--examples", 2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base`` of four layers and ``looped``."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "codec").mkdir()
    byte_codec().save(folder / "codec")
    for name, layout in (("base", "5"), ("looped", "1-2x3-1")):
        spec = Spec(32, 48, 2, 1, 16, 300, layout)
        write_folder(folder / name, spec, initialize(spec), tokenizer=folder / "codec")
    return folder


def test_everything_side_by_side(run: Run, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    asked = ("probe", "all", models / "base", "--against", models / "looped", *QUICK, "--out", out)
    shown = run(*asked)
    assert shown.code == 0
    assert shown.err == "skipped fixed-point on base: " + shown.err.split(": ", 1)[1]
    page = (out / "page.html").read_text(encoding="utf-8")
    for name in set(PROBES) - {"tuned-lens"}:
        assert f"<h2>{name}</h2>" in page
        assert (out / "looped" / f"{name}.json").exists()
        assert (out / "looped" / f"{name}.npz").exists()
        assert list(out.glob(f"{name}-1*.svg"))
    assert "loopkit probe all" in page
    assert "needs a plan that repeats a block" in page
    assert page.count("<svg") >= 25
    assert {"base", "1-2x3-1"} <= {word for line in shown.out.splitlines() for word in line.split()}
    assert (out / "local-effects-1-base.svg").exists()
    again = run(*asked)
    assert again.code == 2
    assert "is done" in again.err


def test_numbers_as_json(run: Run, models: Path) -> None:
    shown = run("probe", "sublayers", models / "looped", "--plan", "1:3x2", *QUICK, "--json")
    found = json.loads(shown.out)
    assert found["study"]["probe"] == "sublayers"
    result = found["results"]["sublayers"]["looped"]
    assert result["plan"] == "1:3x2"
    assert np.array(result["attention"]).shape == (2, 10)


def test_settings_reach_their_probe(run: Run, models: Path) -> None:
    shown = run("probe", "swap", models / "base", *QUICK, "--set", "size=2", "--json")
    result = json.loads(shown.out)["results"]["swap"]["base"]
    assert (result["size"], np.array(result["nll"]).shape, np.array(result["right"]).shape) == (2, (2, 2), (2, 2))


def test_a_stopped_study_goes_on(run: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the third probe: what was found stays as it is and is not computed again."""
    out = tmp_path / "stopped"
    asked = ("probe", "all", models / "looped", *QUICK, "--out", out)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("loopkit.probes.exits.Top5Overlap.__init__", interrupt)
        stopped = run(*asked)
    assert (stopped.code, "give the same command again" in stopped.err) == (130, True)
    first = out / "looped" / "depth-score.json"
    assert first.exists()
    assert not (out / "page.html").exists()
    before = first.stat().st_mtime_ns
    other = run(*asked[:-2], "--seed", 1, "--out", out)
    assert (other.code, "holds probes with other seed" in other.err) == (2, True)
    assert run(*asked).code == 0
    assert first.stat().st_mtime_ns == before
    assert (out / "page.html").exists()


def test_a_lens_is_trained_kept_and_used_again(run: Run, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "lens"
    sizes = ("--set", "texts=8", "--set", "positions=128", "--set", "batch=32", "--set", "train=primitives:copy-random")
    shown = run("probe", "tuned-lens", models / "looped", *QUICK, *sizes, "--out", out, "--json")
    result = json.loads(shown.out)["results"]["tuned-lens"]["looped"]
    assert result["positions"] == 128
    assert np.array(result["right"]).shape == (2, 9)
    assert open_lens(out / "looped" / "lens").weight.shape == (8, 32, 32)
    assert (out / "looped" / "lens-project" / "params.pt").exists()
    again = run("probe", "tuned-lens", models / "looped", *QUICK, "--set", f"lens={out / 'looped' / 'lens'}", "--json")
    assert json.loads(again.out)["results"]["tuned-lens"]["looped"] == result
    other = run("probe", "tuned-lens", models / "base", *QUICK, "--set", f"lens={out / 'looped' / 'lens'}")
    assert other.code == 2
    assert "made for plan 1-2x3-1" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swop", "base"), "nearest: swap"),
        (("swap", "base", "--set", "sise=2"), "did you mean size?"),
        (("swap", "base", "--set", "size"), "write key=value"),
        (("tuned-lens", "base", "--set", "texts=0"), "ask for 1 or more"),
        (("swap", "base", "--set", "size=two"), "must be a number like 1"),
        (("fixed-point", "base"), "--plan 8:12x8"),
        (("swap", "base", "--plan", "0:9x2"), "range 0:9"),
        (("all", "base", "--plan", "0:9x2"), "range 0:9"),
        (("all", "base", "--set", "sizes=2"), "did you mean size?"),
        (("swap", "base", "--data", "primitives:var-math"), "var-math-"),
    ],
)
def test_misuse_is_one_line(run: Run, models: Path, arguments: tuple[str, ...], message: str) -> None:
    name, folder, *rest = arguments
    shown = run("probe", name, models / folder, *QUICK, *rest)
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_folders_of_others_are_left_alone(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it", encoding="utf-8")
    for force in ((), ("--force",)):
        shown = run("probe", "swap", models / "base", *QUICK, "--out", tmp_path / "mine", *force)
        assert shown.code == 2
        assert "no folder of probes" in shown.err
    assert (tmp_path / "mine" / "thesis.txt").read_text(encoding="utf-8") == "all of it"
    assert run("probe", "missing", tmp_path / "nothing").code == 2
    assert run("probe", "swap", tmp_path / "nothing").code == 1


def test_a_folder_without_results_is_used_again(run: Run, models: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "norms")
    assert run("probe", "residual-norms", models / "base", *QUICK, "--data", "file:none.txt", *out).code == 2
    assert run("probe", "residual-norms", models / "base", *QUICK, *out).code == 0


def test_results_of_other_weights_at_the_same_path_are_not_taken(run: Run, models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "base", tmp_path / "model")
    asked = ("probe", "all", tmp_path / "model", *QUICK, "--out", tmp_path / "out")
    assert run(*asked).code == 0
    (tmp_path / "out" / "page.html").unlink()
    there = open_folder(models / "base")
    changed = {name: array * np.float32(1.01) for name, array in there.arrays.items()}
    write_folder(tmp_path / "model", there.spec, changed, tokenizer=models / "codec", force=True)
    again = run(*asked)
    assert (again.code, "holds probes with other weights" in again.err) == (2, True)
    assert run(*asked, "--force").code == 0


def test_help_has_an_example(run: Run) -> None:
    shown = run("probe", "--help")
    assert shown.code == 0
    assert "loopkit probe depth-score" in shown.out
    assert set(PROBES) <= {word.strip(",;:.") for word in shown.out.split()}


def test_force_takes_nothing_away_for_a_checkpoint_that_is_not_there(run: Run, models: Path, tmp_path: Path) -> None:
    asked = ("--out", tmp_path / "out", *QUICK)
    assert run("probe", "swap", models / "base", *asked).code == 0
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    for wrong in ((models / "bse",), (models / "base", "--plan", "3:9x2")):
        assert run("probe", "swap", *wrong, *asked, "--force").code != 0
    assert (tmp_path / "out" / "page.html").read_text(encoding="utf-8") == page


def test_force_does_it_again(run: Run, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "norms"
    for extra in ((), ("--force",), ("--force", "--seed", 4)):
        assert run("probe", "residual-norms", models / "base", *QUICK, "--out", out, *extra).code == 0
    assert json.loads((out / "study.json").read_text())["seed"] == 4
