"""Conversion from folders, the hub and torch state dicts: right for every family, one-line refusals, nothing half-done."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import loopkit
from loopkit.checkpoint import tensors
from loopkit.checkpoint.convert import clean_names, convert
from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import Spec

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-biases": ("Llama", {"attention_bias": True, "tie_word_embeddings": True}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
}


def make(family: str) -> Any:
    name, extra = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**SIZES | extra)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases that are not ones and zeros
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small Llama as transformers saves it, with files a tokenizer would leave."""
    make("llama").save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "tokenizer_config.json").write_text("{}")
    return tmp_path / "source"


@pytest.fixture
def state_dict(source: Path) -> Path:
    """The same model as a torch state dict beside its config.json."""
    torch.save(make("llama").state_dict(), source / "model.pt")
    (source / "model.safetensors").unlink()
    return source / "model.pt"


def same_logits(folder: Path, model: Any) -> None:
    ids = np.arange(20)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)[None]).logits.numpy()
    np.testing.assert_allclose(loopkit.load(folder, backend="torch", device="cpu").logits(ids), expected, atol=1e-4, rtol=0)


def refused(source: str | Path, out: Path, *messages: str, **options: Any) -> None:
    """Conversion fails in one line that has all these words, and leaves nothing behind."""
    with pytest.raises(LoopkitError) as caught:
        convert(str(source), out, **options)
    assert "\n" not in str(caught.value)
    for message in messages:
        assert message in str(caught.value)
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_of_every_family(family: str, tmp_path: Path) -> None:
    model = make(family)
    model.save_pretrained(tmp_path / "source")
    out = convert(str(tmp_path / "source"), tmp_path / "out")
    same_logits(out, model)
    same_logits(out, transformers.AutoModelForCausalLM.from_pretrained(out))
    config = open_folder(out).config
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 3)


def test_sharded_folder_and_tokenizer_files(source: Path, tmp_path: Path) -> None:
    model = make("llama")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    shutil.copy(source / "tokenizer_config.json", tmp_path / "sharded")
    out = convert(str(tmp_path / "sharded"), tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer_config.json",
    ]
    same_logits(out, model)
    next((tmp_path / "sharded").glob("model-*.safetensors")).unlink()
    refused(tmp_path / "sharded", tmp_path / "again", "does not exist", "sharded/model-0")


def test_dtypes(source: Path, tmp_path: Path) -> None:
    kept = open_folder(convert(str(source), tmp_path / "kept"))
    cast = open_folder(convert(str(source), tmp_path / "cast", dtype="bfloat16"))
    again = open_folder(convert(str(tmp_path / "cast"), tmp_path / "again"))
    assert (kept.dtype, cast.dtype, again.dtype) == ("float32", "bfloat16", "bfloat16")
    with pytest.raises(UsageError, match="no dtype 'int4'"):
        convert("nowhere", tmp_path / "out", dtype="int4")


def test_mixed_types_lose_nothing(source: Path, tmp_path: Path) -> None:
    arrays = tensors.read_folder(source)
    half = {name: array.astype(np.float16) if "norm" in name else array for name, array in arrays.items()}
    tensors.write(source / "model.safetensors", half)
    written = open_folder(convert(str(source), tmp_path / "out")).arrays
    np.testing.assert_array_equal(written["lm_head.weight"], arrays["lm_head.weight"])


def test_looped_folder_keeps_its_layout(tmp_path: Path) -> None:
    spec = Spec(32, 48, 4, 2, 8, 64, "1-2x3-1")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.shapes().items()}
    write_folder(tmp_path / "looped", spec, arrays)
    out = open_folder(convert(str(tmp_path / "looped"), tmp_path / "out", dtype="float16"))
    assert out.spec == spec and out.config["model_type"] == "loopkit_llama"
    assert (out.path / "modeling_looped.py").exists()


def test_existing_destination_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="exists already"):
        convert("no/such-model-anywhere", out)
    assert (out / "mine.txt").read_text() == "kept"
    with pytest.raises(LoopkitError):
        convert(str(tmp_path / "nowhere"), out, force=True)
    with pytest.raises(UsageError, match=r"holds mine.txt, so it is not a checkpoint alone"):
        convert(str(source), out, force=True)
    assert (out / "mine.txt").read_text() == "kept"
    (out / "mine.txt").unlink()
    convert(str(source), out, force=True)
    convert(str(source), out, dtype="bfloat16", force=True)
    assert open_folder(out).dtype == "bfloat16"


def test_force_replaces_nothing_but_a_checkpoint(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, link = tmp_path / "project", tmp_path / "link"
    (project / "src").mkdir(parents=True)
    (project / "config.json").write_text('{"port": 80}')
    for inside in (project / "src", project / "config.json"):
        with pytest.raises(UsageError, match="--force replaces nothing else"):
            convert(str(source), project, force=True)
        assert inside.exists()
        (project / "src").rmdir() if (project / "src").exists() else None
    link.symlink_to(convert(str(source), tmp_path / "model"))
    with pytest.raises(UsageError, match="is a link to"):
        convert(str(source), link, force=True)
    monkeypatch.chdir(tmp_path / "model")
    with pytest.raises(UsageError, match="the folder you are in"):
        convert(str(source), Path(), force=True)
    assert open_folder(link)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / ".DS_Store").touch()
    convert(str(source), tmp_path / "model", force=True)


def test_a_folder_can_be_converted_in_place(source: Path) -> None:
    convert(str(source), source, dtype="bfloat16", force=True)
    assert open_folder(source).dtype == "bfloat16"
    assert (source / "tokenizer_config.json").exists()


def test_progress_is_told(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    convert(str(source), tmp_path / "out", progress=said.append)
    assert [line.split()[0] for line in said] == ["reading", "writing"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt_neox"}, ("'gpt_neox' is not supported", "Llama", "Qwen3")),
        ({"model_type": "mistral", "sliding_window": 4096}, ("sliding window",)),
        ({"quantization": {"bits": 4}}, ("quantized by MLX",)),
        ({"hidden_size": None}, ("source/config.json", "hidden_size")),
        ({"num_attention_heads": "many"}, ("source/config.json", "many")),
        ({"num_hidden_layers": 3}, ("source lacks tensor model.layers.2.input_layernorm.weight",)),
        ({"intermediate_size": 40}, ("tensor model.layers.0.mlp.gate_proj.weight has shape [48, 32]", "[40, 32]")),
        ({"num_hidden_layers": 1}, ("tensor model.layers.1", "has no place")),
    ],
)
def test_refused_configs(changes: dict[str, Any], words: tuple[str, ...], source: Path, tmp_path: Path) -> None:
    config = json.loads((source / "config.json").read_text()) | changes
    (source / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    refused(source, tmp_path / "out", *words)


def test_broken_folders(source: Path, tmp_path: Path) -> None:
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-100])
    refused(source, tmp_path / "out", "source/model.safetensors is not a whole safetensors file")
    (source / "model.safetensors").unlink()
    refused(source, tmp_path / "out", "has no model.safetensors")
    (source / "config.json").unlink()
    refused(source, tmp_path / "out", "source has no config.json")


def test_integer_weights_are_refused(source: Path, tmp_path: Path) -> None:
    arrays = tensors.read_folder(source)
    tensors.write(source / "model.safetensors", arrays | {"lm_head.weight": np.zeros((64, 32), np.int8)})
    refused(source, tmp_path / "out", "tensor lm_head.weight has type int8")


def test_sources_that_are_none(source: Path, tmp_path: Path) -> None:
    refused("nonsense", tmp_path / "out", "nonsense does not exist", "smollm2-135m-instruct", ".gguf")
    refused(source / "model.safetensors", tmp_path / "out", "is not a model this project reads", "folder")
    refused(source, tmp_path / "out", "a config goes with", config=source / "config.json")


def test_state_dict_beside_its_config(state_dict: Path, tmp_path: Path) -> None:
    out = convert(str(state_dict), tmp_path / "out")
    same_logits(out, make("llama"))
    assert (out / "tokenizer_config.json").exists()
    moved = tmp_path / "elsewhere.bin"
    state_dict.rename(moved)
    refused(moved, tmp_path / "again", "config.json does not exist", "elsewhere.bin", "--config")
    same_logits(convert(str(moved), tmp_path / "again", config=state_dict.parent / "config.json"), make("llama"))
    same_logits(convert(str(moved), tmp_path / "folder", config=state_dict.parent), make("llama"))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("key", [None, "model", "state_dict", "module"])
def test_state_dicts_as_trainers_leave_them(prefix: str, key: str | None, state_dict: Path, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in make("llama").state_dict().items()}
    torch.save({key: state, "step": 3, "optimizer": {"state": {}}} if key else state, state_dict)
    same_logits(convert(str(state_dict), tmp_path / "out"), make("llama"))


def test_names_without_their_prefix() -> None:
    arrays = {
        name: np.zeros(1) for name in ("embed_tokens.weight", "layers.0._orig_mod.mlp.up_proj.weight", "norm.weight", "lm_head.weight")
    }
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"]
    assert list(clean_names(arrays)) == names


def test_old_format_and_sharded_bin(state_dict: Path, tmp_path: Path) -> None:
    state, folder = make("llama").state_dict(), state_dict.parent
    torch.save(state, state_dict, _use_new_zipfile_serialization=False)
    same_logits(convert(str(state_dict), tmp_path / "old"), make("llama"))
    state_dict.rename(folder / "pytorch_model.bin")
    same_logits(convert(str(folder), tmp_path / "bin"), make("llama"))
    (folder / "pytorch_model.bin").unlink()
    halves = {"pytorch_model-00001-of-00002.bin": list(state)[:9], "pytorch_model-00002-of-00002.bin": list(state)[9:]}
    for file, names in halves.items():
        torch.save({name: state[name] for name in names}, folder / file)
    index = {"weight_map": {name: file for file, names in halves.items() for name in names}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same_logits(convert(str(folder), tmp_path / "sharded"), make("llama"))
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    refused(folder, tmp_path / "out", "pytorch_model-00002-of-00002.bin does not exist")
    (folder / "pytorch_model.bin.index.json").write_text("[]")
    refused(folder, tmp_path / "out", "pytorch_model.bin.index.json is not an index")


class Malicious:
    """What an attacker pickles: unpickling runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [None, 0, 2, 5])
def test_code_in_a_pickle_is_not_run(protocol: int | None, state_dict: Path, tmp_path: Path) -> None:
    bad = {"model.norm.weight": Malicious(tmp_path / "ran")}
    if protocol is None:
        torch.save(bad, state_dict)
    else:
        state_dict.write_bytes(pickle.dumps(bad, protocol))
    words = ("holds a Python object", "mkdir") if protocol in (None, 2) else ("model.pt is",)
    refused(state_dict, tmp_path / "out", *words)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1000, -1])
def test_torn_state_dicts(kept: int, state_dict: Path, tmp_path: Path) -> None:
    state_dict.write_bytes(state_dict.read_bytes()[:kept])
    refused(state_dict, tmp_path / "out", "model.pt is")


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, torch.zeros(3), {"model": {"step": 1}}])
def test_files_without_a_state_dict(content: Any, state_dict: Path, tmp_path: Path) -> None:
    torch.save(content, state_dict)
    refused(state_dict, tmp_path / "out", "model.pt holds no state dict")


def test_state_dicts_that_do_not_fit(state_dict: Path, tmp_path: Path) -> None:
    state = make("llama").state_dict()
    torch.save(state | {"model.norm.weight": torch.zeros(7)}, state_dict)
    refused(state_dict, tmp_path / "out", "model.pt: tensor model.norm.weight has shape [7]")
    torch.save({name: value for name, value in state.items() if name != "lm_head.weight"}, state_dict)
    refused(state_dict, tmp_path / "out", "model.pt lacks tensor lm_head.weight")
    torch.save(state | {"lm_head.weight": state["lm_head.weight"].to(torch.float8_e4m3fn)}, state_dict)
    refused(state_dict, tmp_path / "out", "tensor lm_head.weight has type torch.float8_e4m3fn")


def test_hub_ids(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(repository: str, allow_patterns: list[str], **_: Any) -> str:
        asked.append((repository, allow_patterns))
        return str(source)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    same_logits(convert("someone/small-llama", tmp_path / "out"), make("llama"))
    assert len(asked) == 1 and "*.safetensors" in asked[0][1]
    (source / "model.safetensors").unlink()
    torch.save(make("llama").state_dict(), source / "pytorch_model.bin")
    same_logits(convert("someone/small-llama", tmp_path / "again"), make("llama"))
    assert asked[-1] == ("someone/small-llama", ["pytorch_model*.bin"])


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    refused("someone/small-llama", tmp_path / "out", "someone/small-llama is no file or folder here", "no route to host", "network")
