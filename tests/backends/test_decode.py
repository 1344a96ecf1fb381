"""One row through compiled visits: as without compiling, compiled once for all plans and places, eager where nothing can be compiled."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import loopkit_torch as backend
import numpy as np
import pytest
import torch
from loopkit_torch import decode, model
from strategies import random_arrays

from loopkit.plan import Plan, key_value_slots
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

pytestmark = pytest.mark.filterwarnings("error:decoding stays eager")  # shows why, where compiling fails

SPEC = Spec(48, 96, 6, 2, 16, 101, "3")
FAMILIES = {
    "grouped heads": SPEC,
    "biases": replace(SPEC, num_key_value_heads=6, attention_bias="qkvo"),
    "qk-norm": replace(SPEC, num_key_value_heads=1, head_dim=24, qk_norm=True),
}
PLANS = ((0, 1, 2), (0, 1, 2, 1, 2, 1, 2), (2, 0))


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Each test starts as a new process would, and leaves nothing behind."""
    torch._dynamo.reset()
    decode.decoder.cache_clear()
    yield
    torch._dynamo.reset()
    decode.decoder.cache_clear()


@torch.inference_mode()
def logits(weights: dict, spec: Spec, plan: Plan, prompt: int, steps: int, visit: model.Visit | None) -> np.ndarray:
    """Logits ``[steps, V]`` of the rows after a prompt, one at a time."""
    ids = torch.arange(7, 7 + prompt + steps)[None]
    cache = model.new_cache(weights, spec, key_value_slots(plan), 1, prompt + steps + 1)
    found = []
    for start, stop in [(0, prompt), *((at, at + 1) for at in range(prompt, prompt + steps))]:
        x_BTD = model.embed(weights, ids[:, start:stop])
        rows = model.View(model.rotary_tables(spec, start, stop - start, x_BTD.device, x_BTD.dtype))
        x_BTD = model.visits(weights, spec, x_BTD, Run(plan), rows, cache, one_row=visit if start else None)
        found.append(model.unembed(weights, spec, x_BTD[:, -1]))
    return torch.cat(found[1:]).numpy()


def graphs() -> int:
    """How many functions have been compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def tries() -> int:
    """How many functions have been given to the compiler so far."""
    return int(torch._dynamo.utils.counters["aot_autograd"]["total"])


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_once_and_equal(family: str) -> None:
    spec = FAMILIES[family]
    weights = backend.put(random_arrays(spec), "cpu", "float32")
    visit, before = decode.Decoder(0).next_token(), graphs()
    for plan in PLANS:
        for prompt in (1, 2, 11, 70):
            found, expected = (logits(weights, spec, plan, prompt, 4, which) for which in (visit, None))
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert graphs() == before + 1


def test_a_stream_goes_over_to_compiled_visits() -> None:
    weights = backend.put(random_arrays(SPEC), "cpu", "float32")
    plan, before = PLANS[1], graphs()

    def tokens(*prompts: list[int]) -> list[list[int]]:
        slots, sampling = key_value_slots(plan), Sampling(1.0, seed=3)
        return [list(backend.stream(weights, SPEC, prompt, Run(plan), slots, 12, sampling)) for prompt in prompts]

    eager = tokens([5, 6, 7], [8])
    assert graphs() == before
    decoder = decode.decoder(SPEC, torch.device("cpu"), torch.float32)
    decoder.eager_tokens = 3
    assert tokens([5, 6, 7], [8]) == eager
    assert (graphs(), decoder.eager_tokens) == (before + 1, 0)


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = backend.put(random_arrays(SPEC), "cpu", "float32")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled earlier is at hand
    decoder, before = decode.Decoder(0), tries()
    no_compiler = torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "g++"),)})
    with no_compiler, pytest.warns(match=r"eager, which is slower: compiling failed \(InvalidCxxCompiler: No working C\+\+ compiler"):
        found = logits(weights, SPEC, PLANS[0], 3, 4, decoder.next_token())
    np.testing.assert_array_equal(found, logits(weights, SPEC, PLANS[0], 3, 4, None))
    assert decoder.next_token() is None
    assert tries() == before + 1
