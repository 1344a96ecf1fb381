"""The two files beside a looped checkpoint: transformers and mlx-lm run it looped, with right caches, as loopkit does."""

import os

os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("MLX_ENABLE_TF32", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import loopkit
from loopkit.checkpoint.export import export, quantize
from loopkit.checkpoint.folder import PORTABLE, open_folder, write_folder
from loopkit.spec import RopeScaling, Spec

transformers = pytest.importorskip("transformers")
mlx_lm = pytest.importorskip("mlx_lm")
mx = pytest.importorskip("mlx.core")

TOLERANCE = 1e-4
VOCAB = 100
LAYOUTS = ("2-2x3-1", "3x2", "layers:0,1,0,2,1")
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 5e4, "rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 64), "attention_bias": "qkvo"},
    "qwen2": {"attention_bias": "qkv", "tie_word_embeddings": False, "rope_theta": 1e6},
    "qwen3": {"qk_norm": True, "rope_scaling": RopeScaling("linear", 2.0)},
}


@dataclass(frozen=True)
class Case:
    """The same small random model in two folders."""

    looped: Path
    unrolled: Path

    def transformers(self, **options: Any) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(self.looped, trust_remote_code=True, **options).eval()

    def transformers_unrolled(self, **options: Any) -> Any:
        return transformers.AutoModelForCausalLM.from_pretrained(self.unrolled, **options).eval()

    def mlx(self) -> Any:
        return mlx_model(self.looped)


@pytest.fixture(scope="module", autouse=True)
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where transformers copies the code it trusts, kept out of the user's cache."""
    folder = str(tmp_path_factory.mktemp("code"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_MODULES_CACHE", folder)
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Threads that wait for each other cost more than such small products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``case(family, layout)``, made once each."""
    made: dict[tuple[str, str], Case] = {}

    def make(family: str = "llama", layout: str = "layers:0,1,0,2,1") -> Case:
        if (family, layout) not in made:
            made[family, layout] = make_case(tmp_path_factory.mktemp(family), family, layout)
        return made[family, layout]

    return make


def make_case(folder: Path, family: str, layout: str) -> Case:
    spec = Spec(64, 96, 4, 2, 16, VOCAB, layout, **FAMILIES[family])
    rng = np.random.default_rng(1)
    arrays = {name: (rng.normal(0, 0.2, shape) + ("norm" in name)).astype(np.float32) for name, shape in spec.shapes().items()}
    tokenizer = write_tokenizer(folder / "tokenizer")
    looped = write_folder(folder / "looped", spec, arrays, tokenizer=tokenizer, config={"eos_token_id": VOCAB - 1})
    return Case(looped, export(open_folder(looped), folder / "unrolled", plan=spec.plan, unrolled=True))


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer of whole words, w0 to w99; the last ends a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": f"w{VOCAB - 1}", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def mlx_model(folder: Path) -> Any:
    return mlx_lm.utils.load_model(folder, trust_remote_code=True)[0]


def mlx_load(folder: Path) -> Any:
    """Model and tokenizer. mlx-lm passes its trust on to the model alone, so the tokenizer, whose config names code too, needs its own."""
    return mlx_lm.load(str(folder), tokenizer_config={"trust_remote_code": True}, trust_remote_code=True)


def random_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, VOCAB - 1, shape)


def hf_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(ids)).logits.float().numpy()


def mlx_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    return np.array(model(mx.array(ids)).astype(mx.float32))


def greedy(next_logits: Any, ids: list[int], count: int) -> list[int]:
    """Decoding without a cache: the reference."""
    for _ in range(count):
        ids = [*ids, int(next_logits(np.array([ids]))[0, -1].argmax())]
    return ids[-count:]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_same_everywhere(case: Any, family: str, layout: str) -> None:
    folders, ids = case(family, layout), random_ids(2, 9)
    reference = loopkit.load(folders.looped, backend="torch").logits(ids)
    others = {
        "torch unrolled": loopkit.load(folders.unrolled, backend="torch").logits(ids),
        "transformers looped": hf_logits(folders.transformers(), ids),
        "transformers unrolled": hf_logits(folders.transformers_unrolled(), ids),
        "mlx-lm looped": mlx_logits(folders.mlx(), ids),
        "mlx-lm unrolled": mlx_logits(mlx_model(folders.unrolled), ids),
    }
    assert np.abs(reference).max() > 1
    for name, logits in others.items():
        np.testing.assert_allclose(logits, reference, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_caches_by_visit(case: Any, family: str) -> None:
    model, prompt = case(family).transformers(), random_ids(1, 6)
    wanted = greedy(lambda ids: hf_logits(model, ids), prompt[0].tolist(), 10)
    for options in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        new = model.generate(torch.from_numpy(prompt), max_new_tokens=10, do_sample=False, eos_token_id=None, **options)
        assert new[0, 6:].tolist() == wanted, options


def test_transformers_batches_with_left_padding(case: Any) -> None:
    model, prompts = case("qwen3").transformers(), [random_ids(7).tolist(), random_ids(3).tolist()]
    ids = torch.tensor([prompts[0], [0] * 4 + prompts[1]])
    mask = torch.tensor([[1] * 7, [0] * 4 + [1] * 3])
    for options in ({}, {"cache_implementation": "static"}):
        new = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, eos_token_id=None, **options)
        for prompt, row in zip(prompts, new, strict=True):
            assert row[7:].tolist() == greedy(lambda ids: hf_logits(model, ids), prompt, 6)


def test_transformers_bfloat16_equals_unrolled(case: Any) -> None:
    folders, ids = case(), random_ids(2, 5)
    looped, unrolled = folders.transformers(dtype=torch.bfloat16), folders.transformers_unrolled(dtype=torch.bfloat16)
    assert looped.dtype == torch.bfloat16
    np.testing.assert_array_equal(hf_logits(looped, ids), hf_logits(unrolled, ids))


def test_transformers_layers_are_stored_once(case: Any) -> None:
    folders = case(layout="2-2x3-1")
    model = folders.transformers(attn_implementation="eager")
    assert model.config.num_hidden_layers == len(model.model.layers) == 9
    assert set(model.state_dict()) - {"lm_head.weight"} == set(open_folder(folders.looped).arrays)
    seen = model(torch.from_numpy(random_ids(1, 4)), output_hidden_states=True, output_attentions=True)
    assert (len(seen.hidden_states), len(seen.attentions)) == (10, 9)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # renamed since 5.7
@pytest.mark.parametrize("checkpointing", [False, True])
def test_transformers_gradient_is_the_sum_over_visits(case: Any, checkpointing: bool) -> None:
    folders, ids = case("qwen2"), torch.from_numpy(random_ids(2, 6))
    looped, unrolled = folders.transformers().train(), folders.transformers_unrolled().train()
    if checkpointing:
        looped.gradient_checkpointing_enable()
        assert looped.is_gradient_checkpointing
    for model in (looped, unrolled):
        model(ids, labels=ids, use_cache=False).loss.backward()
    parameters = dict(unrolled.named_parameters())
    for name, parameter in looped.named_parameters():
        wanted = [parameters[each].grad for each in unrolled_names(name, looped.model.layers.order)]
        torch.testing.assert_close(parameter.grad, torch.stack(wanted).sum(0), atol=1e-5, rtol=1e-4, msg=name)


def unrolled_names(name: str, order: list[int]) -> list[str]:
    parts = name.split(".")
    if parts[1] != "layers":
        return [name]
    return [".".join([*parts[:2], str(visit), *parts[3:]]) for visit, layer in enumerate(order) if layer == int(parts[2])]


def test_transformers_save_and_reload(case: Any, tmp_path: Path) -> None:
    folders, ids = case(), random_ids(1, 6)
    model = folders.transformers()
    model.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert (tmp_path / "again" / "modeling_looped.py").exists()
    np.testing.assert_array_equal(hf_logits(again, ids), hf_logits(model, ids))
    shutil.copy(folders.looped / "mlx_looped.py", tmp_path / "again")
    np.testing.assert_allclose(mlx_logits(mlx_model(tmp_path / "again"), ids), hf_logits(model, ids), atol=TOLERANCE, rtol=0)
    np.testing.assert_array_equal(loopkit.load(tmp_path / "again", "torch").logits(ids), loopkit.load(folders.looped, "torch").logits(ids))


def test_transformers_refuses_to_skip_visits(case: Any) -> None:
    model = case().transformers()
    model.config.num_hidden_layers = 3
    with pytest.raises(RuntimeError, match=r"ran visits \[0, 1, 2\] of 5"):
        model(torch.from_numpy(random_ids(1, 4)))
    model.config.num_hidden_layers = 5
    with pytest.raises(TypeError):  # a layer that is called without its visit has no slot in a cache
        layer = model.model.layers[0].layer
        layer.self_attn.forward(torch.zeros(1, 1, 64), (torch.ones(1, 1, 16),) * 2, None, transformers.DynamicCache())


def test_neither_runs_the_code_without_trust(case: Any) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(case().looped, trust_remote_code=False)
    with pytest.raises(ValueError, match="trust_remote_code"):
        mlx_lm.load(str(case().looped))


@pytest.mark.parametrize("family", FAMILIES)
def test_mlx_lm_caches_by_visit(case: Any, family: str) -> None:
    from mlx_lm.generate import generate_step

    model, prompt = case(family).mlx(), random_ids(6)
    wanted = greedy(lambda ids: mlx_logits(model, ids), prompt.tolist(), 10)
    assert [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=10)] == wanted
    assert [token for token, _ in generate_step(mx.array(prompt), model, max_tokens=10, prefill_step_size=2)] == wanted


def test_mlx_lm_prompt_cache_survives_a_file(case: Any, tmp_path: Path) -> None:
    from mlx_lm.models.cache import load_prompt_cache, make_prompt_cache, save_prompt_cache, trim_prompt_cache

    model, ids = case("qwen3").mlx(), random_ids(1, 8)
    cache = make_prompt_cache(model)
    model(mx.array(ids), cache=cache)
    trim_prompt_cache(cache, 3)
    save_prompt_cache(str(tmp_path / "cache.safetensors"), cache)
    cache = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    continued = np.array(model(mx.array(ids[:, 5:]), cache=cache))
    np.testing.assert_allclose(continued, mlx_logits(model, ids)[:, 5:], atol=TOLERANCE, rtol=0)


def test_mlx_lm_batches(case: Any) -> None:
    model, tokenizer = mlx_load(case().looped)
    prompts = [random_ids(7).tolist(), random_ids(3).tolist(), [5]]
    new = mlx_lm.batch_generate(model, tokenizer, prompts, max_tokens=6, return_token_ids=True).token_ids
    for prompt, tokens in zip(prompts, new, strict=True):
        wanted = greedy(lambda ids: mlx_logits(model, ids), prompt, 6)
        assert tokens == wanted[: len(tokens)]
        assert len(tokens) == 6 or wanted[len(tokens)] == VOCAB - 1


def test_mlx_lm_speculates_with_a_passed_cache(case: Any) -> None:
    from mlx_lm.generate import speculative_generate_step
    from mlx_lm.models.cache import make_prompt_cache

    model, draft, prompt = case().mlx(), case(layout="3x2").mlx(), random_ids(6)
    wanted = greedy(lambda ids: mlx_logits(model, ids), prompt.tolist(), 12)
    for drafter in (draft, model):
        cache = make_prompt_cache(model) + make_prompt_cache(drafter)
        steps = speculative_generate_step(mx.array(prompt), model, drafter, prompt_cache=cache, max_tokens=12, num_draft_tokens=3)
        assert [token for token, *_ in steps] == wanted


def test_mlx_lm_lora_learns_on_every_layer(case: Any) -> None:
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.trainer import default_loss
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = case().mlx()
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": 2, "scale": 1.0, "dropout": 0.0})
    ids = mx.array(random_ids(2, 8))
    gradient = nn.value_and_grad(model, lambda m: default_loss(m, ids, mx.array([[0, 8], [0, 8]]))[0])(model)[1]
    touched = {name.split(".")[2] for name, value in tree_flatten(gradient) if name.endswith("lora_b") and mx.abs(value).max() > 0}
    assert touched == {"0", "1", "2"}


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_folder_runs_in_mlx_lm(case: Any, tmp_path: Path, bits: int) -> None:
    folders, ids = case("qwen3"), random_ids(1, 8)
    quantize(folders.looped, tmp_path / "q", bits)
    model, tokenizer = mlx_load(tmp_path / "q")
    assert json.loads((tmp_path / "q" / "config.json").read_text())["quantization"]["bits"] == bits
    assert all((tmp_path / "q" / name).exists() for name in (*PORTABLE, "tokenizer.json"))
    assert "scales" in model.layers[0].mlp.down_proj
    full, packed = mlx_logits(folders.mlx(), ids), mlx_logits(model, ids)
    assert np.corrcoef(full.ravel(), packed.ravel())[0, 1] > {4: 0.8, 8: 0.999}[bits]
    wanted = greedy(lambda ids: mlx_logits(model, ids), ids[0].tolist(), 4)
    assert tokenizer.decode(wanted).startswith(mlx_lm.generate(model, tokenizer, ids[0].tolist(), max_tokens=4))


def run(*arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_processes_without_loopkit_generate_the_same(case: Any) -> None:
    folder = case().looped
    model = loopkit.load(folder, backend="torch")
    prompt = "w3 w1 w4 w1 w5"
    wanted = " ".join(f"w{token}" for token in model.generate_ids(model.tokenizer.encode(prompt), max_tokens=5))
    command = ("-m", "mlx_lm", "generate", "--model", str(folder), "--trust-remote-code", "--prompt", prompt)
    assert wanted in run(*command, "--max-tokens", "5", "--ignore-chat-template", "--temp", "0")
    code = (
        "import sys; from transformers import pipeline; "
        f"write = pipeline('text-generation', {str(folder)!r}, trust_remote_code=True); "
        f"print(write({prompt!r}, max_new_tokens=5, do_sample=False)[0]['generated_text']); "
        "assert not any(name.startswith('loopkit') for name in sys.modules)"
    )
    assert wanted in run("-c", code)
