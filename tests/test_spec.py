from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from strategies import specs

from loopkit.errors import LoopkitError, UsageError
from loopkit.spec import PRESETS, RopeScaling, Spec, preset

LLAMA = preset("nano").to_config()


@given(specs())
def test_config_round_trips(spec: Spec) -> None:
    assert Spec.from_config(spec.to_config()) == spec


@given(specs())
def test_a_looped_config_is_never_a_plain_one(spec: Spec) -> None:
    config = spec.to_config()
    assert (config["model_type"] in ("llama", "qwen2", "qwen3")) == (not spec.looped)
    assert config["num_hidden_layers"] == len(spec.plan)


def test_rope_is_written_in_every_spelling() -> None:
    config = replace(preset("nano"), rope_theta=5e4, rope_scaling=RopeScaling("linear", 2.0)).to_config()
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e4
    assert config["rope_scaling"]["rope_type"] == config["rope_parameters"]["rope_type"] == "linear"
    for spelling in ({"rope_theta": 5e4}, {"rope_parameters": {"rope_theta": 5e4, "rope_type": "default"}}):
        bare = {key: value for key, value in config.items() if not key.startswith("rope")}
        assert Spec.from_config(bare | spelling).rope_theta == 5e4


@pytest.mark.parametrize(
    ("name", "millions"), [("nano", 1), ("micro", 5), ("mini", 30), ("smollm-135m", 135), ("smollm-360m", 362), ("smollm-1.7b", 1711)]
)
def test_presets_have_the_size_they_say(name: str, millions: int) -> None:
    assert sum(map(prod, preset(name).shapes().values())) / 1e6 == pytest.approx(millions, rel=0.08)


def test_presets_grow_in_blocks_of_four() -> None:
    assert all(spec.n_layers % 4 == 0 for name, spec in PRESETS.items() if name != "smollm-135m")


def test_frequencies_are_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    for scaling in (None, RopeScaling("linear", 4.0), RopeScaling("llama3", 8.0, 1.0, 4.0, 64)):
        spec = replace(preset("nano"), rope_theta=1e5, rope_scaling=scaling)
        theirs = LlamaRotaryEmbedding(LlamaConfig(**spec.to_config())).inv_freq.numpy()
        assert spec.rope_frequencies() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "model type 'gpt2' is not supported; supported are Llama"),
        ({"model_type": "mistral", "sliding_window": 4096}, "a sliding window"),
        ({"model_type": "mistral"}, "a sliding window"),
        ({"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 4096}, "a sliding window"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling 'yarn'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"num_attention_heads": None}, ""),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(change: dict[str, object], said: str) -> None:
    with pytest.raises((LoopkitError, TypeError)) as caught:
        Spec.from_config(LLAMA | change)
    assert said in str(caught.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(LoopkitError, match="no 'vocab_size'"):
        Spec.from_config({key: value for key, value in LLAMA.items() if key != "vocab_size"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_key_value_heads": 2}, "must be a multiple"),
        ({"head_dim": 31}, "must be even"),
        ({"vocab_size": 0}, "vocab_size must be 1 or more"),
        ({"qk_norm": True, "attention_bias": "qkv"}, "qk_norm"),
        ({"layout": "4-x"}, "bad part 'x'"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(preset("nano"), **change)  # type: ignore[arg-type]


def test_an_unknown_preset_lists_the_names() -> None:
    with pytest.raises(UsageError, match="presets are nano"):
        preset("giant")
