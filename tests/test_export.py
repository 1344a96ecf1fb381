"""Unrolling, tying and quantizing: the model stays the same, and what is written is what its kind of folder must hold."""

import os

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("MLX_ENABLE_TF32", "0")

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loopkit
from loopkit.checkpoint.export import export, quantize, tie, unroll
from loopkit.checkpoint.folder import PORTABLE, Checkpoint, open_folder, write_folder
from loopkit.errors import LoopkitError, UsageError
from loopkit.plan import Plan
from loopkit.spec import Spec

IDS = np.array([[3, 14, 15, 9, 2, 6], [5, 35, 8, 9, 7, 9]])
KEPT = {"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 0, "history": [{"step": 10, "source": [0, 0, 1, 1]}]}
plans = st.lists(st.integers(0, 4), min_size=1, max_size=8).map(tuple)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Five layers, with a tokenizer's files and everything that must be kept."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    return make(tmp_path_factory.mktemp("base") / "model", "5", tokenizer=tokenizer, config=KEPT | {"transformers_version": "5.0"})


def make(folder: Path, layout: str, ffn: int = 96, **options: object) -> Checkpoint:
    spec = Spec(64, ffn, 4, 2, 16, 50, layout, tie_word_embeddings=False)
    rng = np.random.default_rng(3)
    arrays = {name: (rng.normal(0, 0.2, shape) + ("norm" in name)).astype(np.float32) for name, shape in spec.shapes().items()}
    return open_folder(write_folder(folder, spec, arrays, **options))  # type: ignore[arg-type]


def logits(folder: Path, plan: Plan | None = None) -> np.ndarray:
    return loopkit.load(folder, backend="torch").logits(IDS, plan)


def config(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "config.json").read_text()))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans, unrolled=st.booleans())
def test_any_plan_becomes_the_models_own(base: Checkpoint, tmp_path: Path, plan: Plan, unrolled: bool) -> None:
    written = export(base, tmp_path / "out", plan=plan, unrolled=unrolled, force=True)
    np.testing.assert_array_equal(logits(written), logits(base.path, plan))
    spec = open_folder(written).spec
    assert len(spec.plan) == len(plan)
    assert spec.n_layers == (len(plan) if unrolled else len(set(plan)))
    assert spec.looped <= (not unrolled)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans)
def test_unrolling_what_was_tied_is_unrolling(base: Checkpoint, tmp_path: Path, plan: Plan) -> None:
    tied = open_folder(export(base, tmp_path / "tied", plan=plan, unrolled=False, force=True))
    (spec, arrays), (spec_again, again) = unroll(base, plan), unroll(tied, tied.spec.plan)
    assert spec == spec_again
    assert list(arrays) == list(again)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_arrays_share_memory(base: Checkpoint) -> None:
    _, arrays = unroll(base, (0, 1, 1, 4))
    for visit, layer in enumerate((0, 1, 1, 4)):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert np.shares_memory(arrays[name.format(visit)], base.arrays[name.format(layer)])


def test_tying_leaves_out_layers_and_keeps_their_order(base: Checkpoint) -> None:
    spec, arrays = tie(base, (3, 1, 1, 3))
    assert spec.layout == "layers:1,0,0,1"
    assert {name.split(".")[2] for name in arrays if "layers" in name} == {"0", "1"}
    assert tie(base, (0, 1, 2, 1, 2, 4))[0].layout == "1-2x2-1"
    assert tie(base, (0, 4))[0].layout == "2"


def test_export_keeps_tokenizer_ids_and_history(base: Checkpoint, tmp_path: Path) -> None:
    tied = export(base, tmp_path / "tied", plan=(0, 1, 1, 2), unrolled=False)
    unrolled = export(open_folder(tied), tmp_path / "unrolled", plan=(0, 1, 1, 2), unrolled=True)
    whole = export(base, tmp_path / "whole", plan=(0, 1, 2, 1, 2, 3, 4), unrolled=False)
    assert KEPT.items() <= config(whole).items()
    ids = {key: value for key, value in KEPT.items() if key != "history"}
    for folder in (tied, unrolled):
        assert ids.items() <= config(folder).items()
        assert "history" not in config(folder), "its layers are others now"
        assert "transformers_version" not in config(folder)
        assert (folder / "tokenizer.json").exists()
        assert (folder / "generation_config.json").exists()


def test_only_looped_folders_carry_code(base: Checkpoint, tmp_path: Path) -> None:
    tied = export(base, tmp_path / "out", plan=(0, 1, 1, 2), unrolled=False)
    assert all((tied / name).exists() for name in PORTABLE)
    assert config(tied)["model_type"] == "loopkit_llama"
    unrolled = export(base, tmp_path / "out", plan=(0, 1, 1, 2), unrolled=True, force=True)
    assert not list(unrolled.glob("*.py"))
    assert config(unrolled)["model_type"] == "llama"
    assert not {"auto_map", "model_file", "layout"} & set(config(unrolled))


def test_export_casts(base: Checkpoint, tmp_path: Path) -> None:
    written = export(base, tmp_path / "half", plan=(0, 1), unrolled=True, dtype="bfloat16")
    assert open_folder(written).dtype == config(written)["dtype"] == "bfloat16"


def test_export_refuses(base: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the plan runs layer 5, the model has layers 0 to 4"):
        unroll(base, (0, 5))
    with pytest.raises(UsageError, match="at least one layer"):
        tie(base, ())
    with pytest.raises(UsageError, match="exists already"):
        export(base, tmp_path, plan=(0, 1), unrolled=True)
    with pytest.raises(LoopkitError, match="is quantized"):
        unroll(Checkpoint(base.path, base.spec, {**base.config, "quantization": {"bits": 4}}, base.arrays), (0,))
    with pytest.raises(UsageError, match="choose 4 or 8"):
        quantize(base.path, tmp_path / "q", 5)


def test_quantized_plain_folder_loads_without_trust(base: Checkpoint, tmp_path: Path) -> None:
    mlx_lm, mx = pytest.importorskip("mlx_lm"), pytest.importorskip("mlx.core")
    assert quantize(base.path, tmp_path / "q", 8) == tmp_path / "q"
    model, _ = mlx_lm.utils.load_model(tmp_path / "q")
    got = np.array(model(mx.array(IDS)))
    assert np.corrcoef(got.ravel(), logits(base.path).ravel())[0, 1] > 0.999
    assert KEPT.items() <= config(tmp_path / "q").items()
    assert not list((tmp_path / "q").glob("*.py"))


def test_quantizing_runs_no_code_of_the_source(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    source = make(tmp_path / "source", "1-1x2").path
    (source / "mlx_looped.py").write_text("raise SystemExit('code of the source ran')")
    quantize(source, tmp_path / "q", 4)
    assert "class Model" in (tmp_path / "q" / "mlx_looped.py").read_text()
    assert config(tmp_path / "q")["model_file"] == "mlx_looped.py"


def test_failed_quantizing_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm")
    source = make(tmp_path / "source", "2", ffn=40).path
    with pytest.raises(LoopkitError, match="do not divide into groups of 32"):
        quantize(source, tmp_path / "q", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
