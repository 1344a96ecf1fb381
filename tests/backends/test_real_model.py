"""The real model: both backends against transformers, plain and looped, on real text."""

from pathlib import Path

import numpy as np
import pytest
from strategies import unrolled

import loopkit
from loopkit.backend import Backend

PLANS = (None, "8:12x2")
PROMPT = [504, 3575, 282, 4649, 314]  # "The capital of France is"


@pytest.fixture(scope="module")
def text(smollm: Path) -> np.ndarray:
    """What the model itself writes, so ordinary text for it, ``[1, T]``."""
    model = loopkit.load(smollm, backend="torch", device="cpu", dtype="float32")
    return np.array([PROMPT + list(model.generate_ids(PROMPT, None, 59))])


@pytest.fixture(scope="module")
def expected(smollm: Path, text: np.ndarray) -> list[np.ndarray]:
    """Logits of transformers for each of PLANS, the looped one from an unrolled copy."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    source = loopkit.load(smollm, backend="torch", device="cpu", dtype="float32")
    found = []
    for plan in PLANS:
        deep, arrays = unrolled(source.spec, dict(source.checkpoint.arrays), source.resolve(plan))
        config = deep.to_config()
        with torch.device("meta"):
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
        state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        model.load_state_dict(state, strict=False, assign=True)
        model.tie_weights()
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        with torch.inference_mode():
            found.append(model.eval()(torch.from_numpy(text)).logits.numpy())
    return found


def test_both_backends_agree_with_transformers(
    backend: Backend, device: str, smollm: Path, text: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = loopkit.load(smollm, backend=backend.name, device=device, dtype="float32")
    for plan, logits in zip(PLANS, expected, strict=True):
        np.testing.assert_allclose(model.logits(text, plan), logits, rtol=0, atol=1e-4)


def test_looping_changes_what_the_model_says_and_generation_follows(
    backend: Backend, device: str, smollm: Path, text: np.ndarray, expected: list[np.ndarray]
) -> None:
    model = loopkit.load(smollm, backend=backend.name, device=device, dtype="float32")
    plain, looped = (model.nll(text, plan).mean() for plan in PLANS)
    assert plain < looped
    for plan, logits in zip(PLANS, expected, strict=True):
        first = list(model.generate_ids(PROMPT, plan, 4))
        assert first[0] == logits[0, len(PROMPT) - 1].argmax()
    assert list(model.generate_ids(PROMPT, None, 20)) == text[0, len(PROMPT) : len(PROMPT) + 20].tolist()
