"""A learner's loss, gradients and updates, the same tests for both backends, against slow references and exact identities."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch._inductor.config
from learners import FAMILIES, SPEC, Arrays, assert_close, go_on, gradient, rows, start
from strategies import random_arrays, unrolled

from loopkit import backend as backends
from loopkit.backend import Backend, Weights
from loopkit.checkpoint.initial import fold_norm_scaling, initialize
from loopkit.errors import LoopkitError, UsageError
from loopkit.optimizer import Kind, Optimizer
from loopkit.run import Batch, Rows, Run
from loopkit.training.growth import grow_arrays, lidas

Reference = Callable[[dict[str, Arrays], Arrays, Optimizer, float, int], dict[str, Arrays]]


def clipped(gradients: Arrays, most: float) -> Arrays:
    """In float64."""
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values()))
    return {name: g.astype(np.float64) * min(1.0, most / (norm + 1e-6)) for name, g in gradients.items()}


def adamw(state: dict[str, Arrays], gradients: Arrays, settings: Optimizer, rate: float, updates: int) -> dict[str, Arrays]:
    """The update as the paper writes it (Loshchilov & Hutter 2019), in float64."""
    new: dict[str, Arrays] = {"weights": {}, "first": {}, "second": {}}
    for name, g in clipped(gradients, settings.clip).items():
        first = settings.beta1 * state["first"][name] + (1 - settings.beta1) * g
        second = settings.beta2 * state["second"][name] + (1 - settings.beta2) * g**2
        direction = first / (1 - settings.beta1**updates) / (np.sqrt(second / (1 - settings.beta2**updates)) + settings.eps)
        decay = settings.weight_decay if g.ndim > 1 else 0.0
        weights = state["weights"][name].astype(np.float64)
        new["weights"][name] = weights - rate * decay * weights - rate * direction
        new["first"][name], new["second"][name] = first, second
    return new


def muon(state: dict[str, Arrays], gradients: Arrays, settings: Optimizer, rate: float, updates: int) -> dict[str, Arrays]:
    """AdamW but for the matrices of layers, whose singular values the quintic moves five times, in float64."""
    new = adamw(state, gradients, settings, rate, updates)
    for name, g in clipped(gradients, settings.clip).items():
        if ".layers." in name and g.ndim == 2:
            momentum = 0.95 * state["first"][name] + 0.05 * g
            u, s, v = np.linalg.svd(0.95 * momentum + 0.05 * g, full_matrices=False)
            s /= np.sqrt((s**2).sum())
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            weights = state["weights"][name].astype(np.float64)
            new["weights"][name] = weights - rate * (settings.weight_decay * weights + 0.2 * max(g.shape) ** 0.5 * (u * s) @ v)
            new["first"][name], new["second"][name] = momentum, np.zeros_like(momentum)
    return new


@pytest.mark.parametrize("clip", [0.1, 1e6])
@pytest.mark.parametrize(("kind", "reference"), [("adamw", adamw), ("muon", muon)])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_step_is_the_optimizers(backend: Backend, device: str, clip: float, kind: Kind, reference: Reference, family: str) -> None:
    spec, settings = FAMILIES[family], Optimizer(kind, beta1=0.8, beta2=0.9, weight_decay=0.3, clip=clip)
    learner = start(backend, device, spec, random_arrays(spec), settings)
    for updates in (1, 2, 3):
        batch, before = rows(spec, seed=updates), learner.state()
        gradients = gradient(start(backend, device, spec, before["weights"]), batch, spec.plan)
        expected = reference(before, gradients, settings, 0.01, updates)
        _, norm = learner.step(batch, spec.plan, 0.01)
        assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradients.values())), rel=1e-5)
        for part, arrays in learner.state().items():
            assert all(array.dtype == np.float32 for array in arrays.values())
            assert_close(arrays, expected[part])


def test_a_run_is_that_of_transformers_and_torch(backend: Backend, device: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    spec, settings = replace(SPEC, layout="3"), Optimizer(clip=0.5)
    arrays = initialize(spec)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**spec.to_config()))
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=3e-3, betas=(settings.beta1, settings.beta2), eps=settings.eps)
    learner = start(backend, device, spec, arrays, settings)
    for seed in range(8):
        batch = rows(spec, length=150, seed=seed)
        logits = model(torch.tensor(batch.ids, dtype=torch.int64)).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(batch.targets, dtype=torch.int64).flatten())
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        adam.step()
        assert learner.step(batch, spec.plan, 3e-3) == pytest.approx((loss.item(), norm.item()), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_differences(backend: Backend, device: str, family: str) -> None:
    spec, step = FAMILIES[family], 2e-3
    arrays, batch = random_arrays(spec), rows(spec, counted=0.7)
    found = gradient(start(backend, device, spec, arrays), batch, spec.plan)
    for name in ("model.embed_tokens.weight", *(f"model.layers.1.{name}" for name in spec.layer_shapes()), "model.norm.weight"):
        size = float(np.linalg.norm(found[name]))
        if size < 1e-5:  # the bias of the keys moves no attention: softmax takes away what all keys share
            assert name.endswith("k_proj.bias")
            continue
        moved = [arrays | {name: arrays[name] + np.float32(way * step / size) * found[name]} for way in (1, -1)]
        (ahead, count), (behind, _) = (start(backend, device, spec, there).evaluate(batch, spec.plan) for there in moved)
        assert (ahead - behind) / count / (2 * step) == pytest.approx(size, rel=2e-2, abs=1e-3), name


@pytest.mark.parametrize("plan", [(0, 1, 2, 1, 2), (0, 0, 0, 1, 2), (2, 1, 0, 1), (1,) * 5])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_loops_gradient_is_the_sum_of_its_copies(backend: Backend, device: str, plan: tuple[int, ...], checkpointing: bool) -> None:
    arrays, batch = random_arrays(SPEC), rows(SPEC, counted=0.7)
    deep, copied = unrolled(SPEC, arrays, plan)
    apart = gradient(start(backend, device, deep, copied), batch, deep.plan)
    expected = {name: array for name, array in apart.items() if ".layers." not in name}
    for layer in range(SPEC.n_layers):
        for name, shape in SPEC.layer_shapes().items():
            visits = (apart[f"model.layers.{visit}.{name}"] for visit, visited in enumerate(plan) if visited == layer)
            expected[f"model.layers.{layer}.{name}"] = sum(visits, np.zeros(shape, np.float32))
    assert_close(gradient(start(backend, device, SPEC, arrays, checkpointing=checkpointing), batch, plan), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_changes_nothing(backend: Backend, device: str, family: str) -> None:
    spec = FAMILIES[family]
    once, again = (start(backend, device, spec, random_arrays(spec), checkpointing=on) for on in (False, True))
    batch = rows(spec)
    assert once.step(batch, spec.plan, 0.01)[0] == again.step(batch, spec.plan, 0.01)[0]
    assert_close(again.state()["first"], once.state()["first"])
    assert once.evaluate(batch, spec.plan) == pytest.approx(again.evaluate(batch, spec.plan), rel=1e-4)


def inferred(backend: Backend, weights: Weights, batch: Batch) -> np.ndarray:
    """Negative log-likelihood of the targets, ``[B, T]``, by the functions of inference."""
    stream, _ = backend.advance(weights, SPEC, backend.enter(weights, SPEC, Rows(batch.ids)), Run(SPEC.plan))
    found, _ = backend.log_probs(weights, SPEC, stream, np.arange(batch.ids.size), batch.targets.flatten())
    return -found.reshape(batch.ids.shape)


@pytest.mark.parametrize("counted", [1.0, 0.4])
def test_micro_batches_change_nothing(backend: Backend, device: str, counted: float) -> None:
    batch = rows(SPEC, batch=8, counted=counted)
    whole, parts = (start(backend, device, SPEC, random_arrays(SPEC), micro_batches=number) for number in (1, 4))
    assert whole.step(batch, SPEC.plan, 0.0) == pytest.approx(parts.step(batch, SPEC.plan, 0.0), rel=1e-6)
    assert_close(parts.state()["first"], whole.state()["first"], 1e-6)


def test_mlx_computes_the_same_on_one_core_and_side_by_side_on_three(mlx: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, done = rows(SPEC, batch=7, length=128, counted=0.4), []
    for cores in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        learner = start(mlx, "cpu", SPEC, random_arrays(SPEC))
        assert len(vars(learner)["lanes"]) == int(cores)
        done.append((learner.step(batch, SPEC.plan, 0.0), learner.state()["first"]))
    (one, first), (three, other) = done
    assert one == pytest.approx(three, rel=1e-6)
    assert_close(other, first, 1e-6)


def test_masked_targets_do_not_count(backend: Backend, device: str) -> None:
    batch = rows(SPEC, counted=0.5)
    assert batch.loss_mask is not None
    other = replace(batch, targets=np.where(batch.loss_mask, batch.targets, 0).astype(np.int32))
    learner = start(backend, device, SPEC, random_arrays(SPEC))
    total, count = learner.evaluate(batch, SPEC.plan)
    assert learner.evaluate(other, SPEC.plan) == (total, count)
    assert count == batch.loss_mask.sum()
    nll = inferred(backend, backend.put(random_arrays(SPEC), device, "float32"), batch)
    assert total == pytest.approx(float((nll * batch.loss_mask).sum()), rel=1e-5)
    assert learner.step(batch, SPEC.plan, 0.0)[0] == pytest.approx(total / count, rel=1e-6)
    everything = replace(batch, loss_mask=np.ones_like(batch.loss_mask))
    assert learner.evaluate(everything, SPEC.plan) == pytest.approx(learner.evaluate(replace(batch, loss_mask=None), SPEC.plan), rel=1e-6)


def test_documents_in_one_row_are_as_in_rows_of_their_own(backend: Backend, device: str) -> None:
    first, second = rows(SPEC, batch=3, length=50, seed=1), rows(SPEC, batch=3, length=70, seed=2)
    packed = Batch(np.hstack([first.ids, second.ids]), np.hstack([first.targets, second.targets]))
    numbers = np.repeat(np.array([[0] * 50 + [1] * 70], np.int32), 3, 0)
    losses = [
        start(backend, device, SPEC, random_arrays(SPEC)).evaluate(batch, SPEC.plan)[0]
        for batch in (first, second, replace(packed, documents=numbers), packed)
    ]
    assert losses[2] == pytest.approx(losses[0] + losses[1], rel=1e-5)
    assert abs(losses[3] - losses[2]) > 1e-2
    apart = [gradient(start(backend, device, SPEC, random_arrays(SPEC)), batch, SPEC.plan) for batch in (first, second)]
    for checkpointing in (False, True):
        learner = start(backend, device, SPEC, random_arrays(SPEC), checkpointing=checkpointing)
        together = gradient(learner, replace(packed, documents=numbers), SPEC.plan)
        assert_close(together, {name: (5 * array + 7 * apart[1][name]) / 12 for name, array in apart[0].items()}, 5e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_stop_where_they_are_told(backend: Backend, device: str, checkpointing: bool) -> None:
    plan, batch = (0, 1, 2, 1, 2), rows(SPEC)
    learner = start(backend, device, SPEC, random_arrays(SPEC), checkpointing=checkpointing)
    found = gradient(learner, batch, plan, 3)
    deep, copied = unrolled(SPEC, random_arrays(SPEC), plan)
    apart = gradient(start(backend, device, deep, copied), batch, deep.plan)
    assert not any(found[name].any() for name in found if ".layers.0." in name or "embed" in name)
    for name in SPEC.layer_shapes():
        np.testing.assert_allclose(found[f"model.layers.1.{name}"], apart[f"model.layers.3.{name}"], rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(found[f"model.layers.2.{name}"], apart[f"model.layers.4.{name}"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_going_on_from_a_state_is_going_on(backend: Backend, device: str, kind: Kind) -> None:
    """Also where a step left some layers out or without gradients."""
    settings = Optimizer(kind)
    unbroken = start(backend, device, SPEC, initialize(SPEC), settings)
    for step, (plan, detach_at) in enumerate([((0, 1, 2), None), ((0, 1, 2, 1, 2), 3), ((2, 2), None)]):
        unbroken.step(rows(SPEC, seed=step), plan, 0.01, detach_at)
    resumed = go_on(backend, device, SPEC, unbroken.state(), 3, settings)
    for step in range(3, 8):
        batch = rows(SPEC, seed=step)
        assert resumed.step(batch, SPEC.plan, 0.01) == unbroken.step(batch, SPEC.plan, 0.01)
    for part, arrays in unbroken.state().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(resumed.state()[part][name], array)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_norm_scaling_folds_into_a_plain_model(backend: Backend, device: str, checkpointing: bool) -> None:
    learner = start(backend, device, SPEC, random_arrays(SPEC), norm_scaling=True, checkpointing=checkpointing)
    batch = rows(SPEC)
    learner.step(batch, SPEC.plan, 0.05)
    folded = backend.put(fold_norm_scaling(learner.state()["weights"]), device, "float32")
    assert learner.evaluate(batch, SPEC.plan)[0] == pytest.approx(float(inferred(backend, folded, batch).sum()), rel=1e-5)


def test_grown_copies_have_the_moments_of_their_sources_and_drift_apart(backend: Backend, device: str) -> None:
    spec, source = replace(SPEC, layout="4"), lidas(4, 2)
    learner = start(backend, device, spec, initialize(spec), Optimizer())
    for seed in range(3):
        learner.step(rows(spec, seed=seed), spec.plan, 0.01)
    before, deeper = learner.state(), spec.with_layout("6")
    grown = go_on(backend, device, deeper, {part: grow_arrays(arrays, source) for part, arrays in before.items()}, 3, Optimizer())
    for part, arrays in grown.state().items():
        for new, old in enumerate(source):
            for name in spec.layer_shapes():
                np.testing.assert_array_equal(arrays[f"model.layers.{new}.{name}"], before[part][f"model.layers.{old}.{name}"])
    grown.step(rows(spec, seed=3), deeper.plan, 0.01)
    weights = grown.state()["weights"]
    assert np.abs(weights["model.layers.1.mlp.up_proj.weight"] - weights["model.layers.3.mlp.up_proj.weight"]).max() > 1e-4


def test_state_is_a_copy(backend: Backend, device: str) -> None:
    learner = start(backend, device, SPEC, random_arrays(SPEC))
    before = learner.state()
    kept = {name: array.copy() for name, array in before["weights"].items()}
    learner.step(rows(SPEC), SPEC.plan, 0.1)
    for name, array in kept.items():
        np.testing.assert_array_equal(before["weights"][name], array)


def test_bfloat16_learns_as_float32_does(backend: Backend, device: str) -> None:
    batch, losses = rows(SPEC), {}
    for dtype in ("float32", "bfloat16"):
        learner = start(backend, device, SPEC, initialize(SPEC), Optimizer(), dtype=dtype)
        losses[dtype] = [learner.step(batch, SPEC.plan, 0.01)[0] for _ in range(25)]
        assert all(array.dtype == np.float32 for array in learner.state()["weights"].values())
    assert losses["float32"][-1] < 0.7 * losses["float32"][0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.05)


def test_compiled_steps_repeat_bit_for_bit(backend: Backend, device: str) -> None:
    """Also where one of two learners has met other shapes in between, as an evaluation brings them."""
    if device == "cpu" and (backend.name == "mlx" or shutil.which("g++") is None):
        pytest.skip("MLX does not compile on a CPU, and torch needs g++")
    spec, settings = replace(SPEC, layout="1x2"), Optimizer()
    eager, unbroken = (start(backend, device, spec, initialize(spec), settings, compiled=on) for on in (False, True))
    for step in range(3):
        assert unbroken.step(rows(spec, seed=step), spec.plan, 0.01) == pytest.approx(
            eager.step(rows(spec, seed=step), spec.plan, 0.01), rel=1e-5
        )
    resumed = go_on(backend, device, spec, unbroken.state(), 3, settings, compiled=True)
    unbroken.evaluate(rows(spec, batch=3, length=7), spec.plan)
    for step in range(3, 6):
        assert resumed.step(rows(spec, seed=step), spec.plan, 0.01) == unbroken.step(rows(spec, seed=step), spec.plan, 0.01)


def test_torch_says_that_it_cannot_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled earlier is at hand
    learner = start(backends.load("torch"), "cpu", SPEC, initialize(SPEC), Optimizer(), compiled=True)
    torch._dynamo.reset()
    no_compiler = torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "g++"),)})
    with no_compiler, pytest.raises(LoopkitError, match=r"No working C\+\+ compiler.*train with --no-compile"):
        learner.step(rows(SPEC), SPEC.plan, 0.01)
    torch._dynamo.reset()


def test_mlx_says_that_it_does_not_compile_on_a_cpu(mlx: Backend) -> None:
    with pytest.raises(UsageError, match="leave --compile out"):
        start(mlx, "cpu", SPEC, random_arrays(SPEC), compiled=True)


def test_a_model_that_has_answered_can_still_be_trained(backend: Backend, device: str) -> None:
    """What inference keeps for later, such as rotary tables, must do for the backward pass too."""
    spec = replace(SPEC, rope_theta=54321.0)  # of which nothing is kept yet
    arrays = random_arrays(spec)
    weights = backend.put(arrays, device, "float32")
    backend.advance(weights, spec, backend.enter(weights, spec, Rows(rows(spec).ids)), Run(spec.plan))
    loss, norm = start(backend, device, spec, arrays).step(rows(spec), spec.plan, 1e-3)
    assert loss > 0
    assert norm > 0
