"""What a recipe can ask for, each trained for a few steps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipes import small

import loopkit
from loopkit import backend as backends
from loopkit.checkpoint.convert import convert
from loopkit.checkpoint.folder import open_folder
from loopkit.data.batches import Batches
from loopkit.errors import LoopkitError, UsageError
from loopkit.training.events import Evaluated, Step
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.prepare import prepare, total_flops
from loopkit.training.recipe import Recipe, override
from loopkit.training.start import begin, matched, train

TINY = small("train.sample_tokens=0", "train.evaluate_every=12")


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return Hardware(backends.load("torch"), "cpu", "float32")


def steps(recipe: Recipe, path: Path, hardware: Hardware) -> list[Step]:
    folder = RunFolder(path)
    events = list(train(begin(recipe, folder, hardware), folder, hardware))
    assert any(isinstance(event, Evaluated) for event in events)
    return [event for event in events if isinstance(event, Step)]


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory, hardware: Hardware) -> Path:
    path = tmp_path_factory.mktemp("looped") / "run"
    found = steps(override(TINY, ["model.layout=1-1x2-1"]), path, hardware)
    assert {(step.layers, step.visits) for step in found} == {(3, 4)}
    return path


def test_a_run_is_a_checkpoint_and_converts_to_a_plain_folder(looped: Path, tmp_path: Path) -> None:
    ids = np.arange(12)[None]
    written = convert(str(looped), tmp_path / "out")
    assert np.array_equal(loopkit.load(looped, "torch").logits(ids), loopkit.load(written, "torch").logits(ids))
    assert not (written / "optimizer.safetensors").exists()
    assert (written / "tokenizer.json").exists()


def test_untying_starts_from_the_same_function(looped: Path, tmp_path: Path, hardware: Hardware) -> None:
    ids = np.arange(12)[None]
    base = override(
        Recipe(data=TINY.data, schedule=TINY.schedule, train=TINY.train),
        [f"model.init_from={looped}", "schedule.steps=1", "schedule.warmup=0"],
    )
    still = override(base, ["schedule.rate=1e-30"])
    steps(override(still, ["model.untie=true"]), tmp_path / "untied", hardware)
    untied = open_folder(tmp_path / "untied")
    assert untied.spec.layout == "4"
    assert np.abs(loopkit.load(tmp_path / "untied", "torch").logits(ids) - loopkit.load(looped, "torch").logits(ids)).max() < 1e-5
    steps(override(base, ["model.untie=true"]), tmp_path / "moved", hardware)
    moved = open_folder(tmp_path / "moved").arrays
    assert not np.array_equal(moved["model.layers.1.mlp.up_proj.weight"], moved["model.layers.2.mlp.up_proj.weight"])
    with pytest.raises(UsageError, match=r"model\.untie needs a looped checkpoint"):
        begin(override(base, [f"model.init_from={tmp_path / 'untied'}", "model.untie=true"]), RunFolder(tmp_path / "no"), hardware)
    with pytest.raises(UsageError, match=r"model\.init_scale is for models trained from scratch"):
        begin(override(base, ["model.init_scale=0.5"]), RunFolder(tmp_path / "no"), hardware)


def _texts(batches: Batches) -> str:
    """What bytes say."""
    return bytes(int(each) - 1 for each in batches.at(0).ids.reshape(-1) if each).decode()


@pytest.mark.parametrize("setting", ["data.examples=8", "data.pairs={pairs}"])
def test_fine_tuning_counts_answers_only(tmp_path: Path, hardware: Hardware, looped: Path, setting: str) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"copy {n}", "answer": f" {n}"}) + "\n" for n in range(6)))
    recipe = override(TINY, [setting.format(pairs=pairs), "schedule.steps=40", "schedule.rate=1e-2", "train.evaluate_every=40"])
    if "pairs" in setting:
        with pytest.raises(UsageError, match=r"does not know '.' of the examples to fine-tune on"):
            begin(recipe, RunFolder(tmp_path / "no"), hardware)
        recipe = override(recipe, ["data.tokenizer=byte"])
        with pytest.raises(UsageError, match=r"heldout 0 holds none out .* train\.evaluate_every=0"):
            begin(override(recipe, ["data.heldout=0"]), RunFolder(tmp_path / "none"), hardware)
        heldout = begin(recipe, RunFolder(tmp_path / "held out"), hardware)[0].heldout
        assert heldout is not None
        trained = {text for text in ("copy 0 0", "copy 1 1", "copy 2 2", "copy 3 3", "copy 4 4", "copy 5 5") if text not in _texts(heldout)}
        assert len(trained) == 5, "one of six is held out"
    job = begin(recipe, RunFolder(tmp_path / "run"), hardware)[0]
    mask = job.batches.at(0).loss_mask
    assert mask is not None
    assert 0 < mask.mean() < 0.5
    found = steps(recipe, tmp_path / "again", hardware)
    assert found[-1].loss < found[0].loss / 2, "a handful of examples is learnt by heart"


def test_the_held_out_loss_is_of_the_same_text_whatever_the_batch(tmp_path: Path, hardware: Hardware) -> None:
    found = []
    for rows in (2, 6, 64):
        folder = RunFolder(tmp_path / str(rows))
        recipe = override(TINY, [f"data.rows={rows}", "schedule.steps=1", "schedule.warmup=0", "schedule.rate=1e-30"])
        found += [event.loss for event in train(begin(recipe, folder, hardware), folder, hardware) if isinstance(event, Evaluated)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_sampled_recurrence_draws_and_counts_its_flops(tmp_path: Path, hardware: Hardware) -> None:
    recipe = override(TINY, ["train.recurrence=1:3~3,backprop=1", "schedule.steps=20", "train.evaluate_every=20"])
    found = steps(recipe, tmp_path / "run", hardware)
    assert len({step.visits for step in found}) > 2
    assert found[-1].flops == pytest.approx(total_flops(prepare(recipe, tmp_path / "run" / "tokenizer")))


def test_retrofitted_recurrence_runs_in_the_cooldown(tmp_path: Path, hardware: Hardware) -> None:
    found = steps(override(TINY, ["cooldown.plan=1:3x2", "schedule.cooldown=0.25"]), tmp_path / "run", hardware)
    assert [step.visits for step in found] == [4] * 9 + [6] * 3


def test_norm_scaling_is_folded_into_what_others_see(tmp_path: Path, hardware: Hardware) -> None:
    steps(override(TINY, ["model.norm_scaling=true", "schedule.rate=1e-30"]), tmp_path / "run", hardware)
    arrays = open_folder(tmp_path / "run").arrays
    for layer in range(4):
        assert arrays[f"model.layers.{layer}.input_layernorm.weight"] == pytest.approx((layer + 1) ** -0.5)
    assert (arrays["model.norm.weight"] == 1).all()


def test_layers_begin_as_the_recipe_says(tmp_path: Path, hardware: Hardware) -> None:
    quiet = ["schedule.rate=1e-30", "train.seed=3"]
    for scale in (1, 0.25):
        steps(override(TINY, [*quiet, f"model.init_scale={scale}"]), tmp_path / str(scale), hardware)
    plain, small = (open_folder(tmp_path / str(scale)).arrays["model.layers.2.mlp.up_proj.weight"] for scale in (1, 0.25))
    np.testing.assert_allclose(small, plain / 4, rtol=1e-5)


@pytest.mark.parametrize("operator", ["lidas", "midas", "stack", "between", "gstack", "layers:0,1,1,0"])
def test_every_operator_grows_to_the_layout(tmp_path: Path, hardware: Hardware, operator: str) -> None:
    found = steps(override(TINY, [f"growth.operator={operator}", "growth.block=2"]), tmp_path / "run", hardware)
    assert [step.layers for step in found][:1] + [step.layers for step in found][-1:] == [2, 4]
    whole = total_flops(prepare(TINY, tmp_path / "run" / "tokenizer"))
    assert found[0].flops * 12 < found[-1].flops < whole


def test_flop_matched_baselines_spend_the_same(tmp_path: Path, hardware: Hardware) -> None:
    grown = override(TINY, ["growth.operator=lidas", "growth.block=2", "schedule.steps=40"])
    spent = steps(replace(grown, train=replace(grown.train, evaluate_every=40)), tmp_path / "grown", hardware)[-1].flops
    recipe = matched(TINY, tmp_path / "grown", tmp_path / "scratch")
    assert recipe.schedule.steps < 40
    baseline = steps(replace(recipe, train=replace(recipe.train, evaluate_every=recipe.schedule.steps)), tmp_path / "base", hardware)[
        -1
    ].flops
    assert baseline == pytest.approx(spent, rel=0.5 / recipe.schedule.steps)
    slow = override(grown, ["growth.steps=30", "schedule.cooldown=0"])
    assert matched(slow, tmp_path / "base", tmp_path / "again").schedule.steps >= 30, "it is to grow whole"


def test_text_mixtures_train_too(tmp_path: Path, hardware: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPKIT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"number {n} " * 40}) + "\n" for n in range(60)))
    recipe = override(TINY, [f"data.mix=0.5*file:{text} + 0.5*primitives:var-basic-0", "data.tokenizer=byte", "data.heldout=0.1"])
    found = steps(recipe, tmp_path / "run", hardware)
    assert found[-1].loss < found[0].loss
    few = override(recipe, ["data.limit=2000", "schedule.steps=1", "schedule.warmup=0"])
    steps(few, tmp_path / "few", hardware)
    sizes = sorted(len(np.fromfile(file, np.uint16)) for file in (tmp_path / "cache").rglob("tokens.bin"))
    assert sizes[0] == 2000 < sizes[1]


def test_a_quantized_start_is_refused(looped: Path, tmp_path: Path, hardware: Hardware) -> None:
    from loopkit.checkpoint.export import quantize

    packed = quantize(convert(str(looped), tmp_path / "plain"), tmp_path / "packed", 8)
    recipe = override(Recipe(data=TINY.data), [f"model.init_from={packed}"])
    with pytest.raises(LoopkitError, match="is quantized and cannot be trained"):
        begin(recipe, RunFolder(tmp_path / "run"), hardware)
