import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from strategies import random_arrays, specs
from tokenizers import Tokenizer

from loopkit.checkpoint import tensors
from loopkit.checkpoint.atomic import new_folder, write_text
from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.checkpoint.tokenizer import open_tokenizer, token_ids
from loopkit.data.tokenizers import byte_codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec, preset

SPEC = preset("nano").with_layout("2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", SPEC, random_arrays(SPEC))


@settings(max_examples=20, deadline=None)
@given(specs(), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_a_folder_reads_back(tmp_path_factory: pytest.TempPathFactory, spec: Spec, dtype: str) -> None:
    arrays = random_arrays(spec)
    opened = open_folder(write_folder(tmp_path_factory.mktemp("f") / "model", spec, arrays, dtype=dtype))
    assert opened.spec == spec
    assert opened.dtype == dtype
    for name, array in arrays.items():
        assert np.array_equal(opened.arrays[name], array.astype(opened.arrays[name].dtype))


@settings(max_examples=30)
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", exclude_characters="_"), min_size=1),
        st.tuples(
            st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.uint8]), st.lists(st.integers(0, 4), max_size=3)
        ),
    )
)
def test_tensor_files_round_trip(tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[Any, list[int]]]) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    arrays = {name: np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape) for name, (dtype, shape) in shapes.items()}
    tensors.write(path, arrays)
    back = tensors.read(path)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)


def test_large_models_are_split_with_an_index(tmp_path: Path) -> None:
    arrays = random_arrays(SPEC)
    tensors.write_sharded(tmp_path, arrays, limit=100_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    back = tensors.read_folder(tmp_path)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    assert set(load_file(tmp_path / index["weight_map"]["model.norm.weight"])) >= {"model.norm.weight"}


@pytest.mark.parametrize("cut", [4, 100, 5000, -1])
def test_a_torn_file_is_named(folder: Path, cut: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(LoopkitError, match=r"model\.safetensors is not a whole safetensors file"):
        open_folder(folder)


def test_a_missing_or_misshapen_tensor_is_named(folder: Path) -> None:
    arrays = dict(random_arrays(SPEC))
    name = "model.layers.1.mlp.up_proj.weight"
    tensors.write(folder / "model.safetensors", arrays | {name: arrays[name][:-1]})
    with pytest.raises(LoopkitError, match=f"{name} has shape"):
        open_folder(folder)
    del arrays[name]
    tensors.write(folder / "model.safetensors", arrays)
    with pytest.raises(LoopkitError, match=f"lacks tensor {name}"):
        open_folder(folder)
    tensors.write(folder / "model.safetensors", random_arrays(SPEC) | {"model.extra.weight": np.zeros(1, np.float32)})
    with pytest.raises(LoopkitError, match=r"model\.extra\.weight has no place"):
        open_folder(folder)


def test_rotary_buffers_and_a_tied_head_are_left_out(folder: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(16, np.float32), "lm_head.weight": np.zeros((1024, 96), np.float32)}
    tensors.write(folder / "model.safetensors", random_arrays(SPEC) | extra)
    assert not set(open_folder(folder).arrays) & set(extra)


@pytest.mark.parametrize(("text", "said"), [("{", "is not JSON"), ("[]", "is not a JSON object"), ("{}", "model type None")])
def test_a_broken_config_is_named(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(LoopkitError, match=said):
        open_folder(folder)


def test_folders_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(LoopkitError, match="does not exist"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(LoopkitError, match=r"has no config\.json"):
        open_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(SPEC.to_config()))
    with pytest.raises(LoopkitError, match=r"has no model\.safetensors"):
        open_folder(tmp_path)


def test_an_index_of_an_earlier_model_is_passed_over(folder: Path) -> None:
    where = dict.fromkeys(SPEC.shapes(), "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert open_folder(folder).arrays.keys() == where.keys()


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    arrays = random_arrays(SPEC)
    arrays["model.norm.weight"] = arrays["model.norm.weight"] * np.float32(1e6)
    with pytest.raises(LoopkitError, match=r"model\.norm\.weight holds numbers too large for float16; choose --dtype bfloat16"):
        write_folder(tmp_path / "half", SPEC, arrays, dtype="float16")
    assert not (tmp_path / "half").exists()
    write_folder(tmp_path / "half", SPEC, arrays, dtype="bfloat16")


def test_what_a_tokenizers_file_was_last_asked_for_does_not_last(tmp_path: Path) -> None:
    byte_codec().save(tmp_path)
    plain = open_tokenizer(tmp_path)
    cut = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    cut.enable_truncation(4)
    cut.enable_padding(length=8)
    cut.save(str(tmp_path / "tokenizer.json"))
    for text in ("a", "a longer text"):
        assert open_tokenizer(tmp_path).encode(text) == plain.encode(text)


def test_the_end_of_documents_ends_a_text_beside_a_chat_models_own(tmp_path: Path) -> None:
    byte_codec().save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    config |= {"eos_token": "a", "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    opened = open_tokenizer(tmp_path)
    assert opened.end_ids == {0, ord("a") + 1}
    assert opened.chat("Hi") == "yes"
    assert token_ids(tmp_path) == {"eos_token_id": [0, ord("a") + 1], "bos_token_id": 0}


def test_an_existing_folder_is_kept(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UsageError, match="exists already"):
        write_folder(folder, SPEC, initialize(SPEC))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    write_folder(folder, SPEC, initialize(SPEC), force=True)
    assert (folder / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_write_that_fails_leaves_the_old_folder_and_nothing_else(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(RuntimeError), new_folder(folder, force=True) as part:
        (part / "model.safetensors").write_bytes(b"half")
        raise RuntimeError
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_write_text_replaces_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "one")
    write_text(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_looped_folders_carry_the_files_that_run_them(tmp_path: Path) -> None:
    looped, plain = SPEC.with_layout("1-1x2"), SPEC
    files = {file.name for file in write_folder(tmp_path / "looped", looped, random_arrays(looped)).iterdir()}
    assert {"modeling_looped.py", "mlx_looped.py"} <= files
    assert not any(file.suffix == ".py" for file in write_folder(tmp_path / "plain", plain, random_arrays(plain)).iterdir())


def test_initial_weights_depend_on_name_and_seed_alone() -> None:
    shallow, deep = initialize(SPEC, 1), initialize(SPEC.with_layout("4"), 1)
    assert all(np.array_equal(deep[name], array) for name, array in shallow.items())
    assert not np.array_equal(initialize(SPEC, 2)["model.embed_tokens.weight"], shallow["model.embed_tokens.weight"])
    assert shallow["model.layers.0.mlp.up_proj.weight"].std() == pytest.approx(SPEC.hidden_size**-0.5, rel=0.05)
    assert (shallow["model.norm.weight"] == 1).all()


def test_layers_can_begin_smaller() -> None:
    plain, small = initialize(SPEC, 1), initialize(SPEC, 1, 0.25)
    for name, array in plain.items():
        matrix = name.startswith("model.layers.") and array.ndim == 2
        np.testing.assert_allclose(small[name], array / 4 if matrix else array, rtol=1e-6, err_msg=name)
