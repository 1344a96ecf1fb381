"""Logit lens, top-5 overlap and the tuned lens against torch, and training's gradient against autograd."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.data.tasks import few_shot, find
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.choice import answer
from loopkit.probes import Budget, Lens, evaluate_lens, export_lens, logit_lens, open_lens, save_lens, top5_overlap, train_lens, tuned_lens
from loopkit.probes.exits import Bare, exit_answers
from loopkit.probes.lens import unembedding_hash
from loopkit.probes.lens_training import Head, State, update
from loopkit.session import Model

LENGTH = 15
PLAN = (0, 1, 2, 1, 3)


def random_lens(model: Model, visits: int, plan: str | None = None) -> Lens:
    rng, width = np.random.default_rng(5), model.spec.hidden_size
    weight = 0.05 * rng.standard_normal((visits, width, width), np.float32)
    return Lens(weight, 0.1 * rng.standard_normal((visits, width), np.float32), model.text(plan), unembedding_hash(model), 64)


def obvious(reference: Any, row: np.ndarray, translate: Any) -> tuple[list[float], list[float]]:
    """KL(final || exit) and top-5 overlap by depth, token by token."""
    before, _, _, after = reference.streams(row)
    final = reference.torch.from_numpy(reference.logits(row)).log_softmax(-1)
    kl, overlap = [], []
    for done, x in enumerate([*before, after[-1]]):
        early = reference.read(translate(done, x) if done < len(before) else x).log_softmax(-1)
        kl.append(float((final.exp() * (final - early)).sum(-1).mean()))
        shared = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(final.topk(5).indices, early.topk(5).indices, strict=True)]
        overlap.append(sum(shared) / len(shared) / 5)
    return kl, overlap


@pytest.mark.parametrize("plan", [None, PLAN], ids=["own", "edited"])
def test_the_logit_lens_is_that_of_hooks(model: Model, hooked: Any, plan: Any) -> None:
    ids = random_ids(model.spec, 2, LENGTH)
    reference = hooked(model.spec, random_arrays(model.spec), plan or model.plan)
    kl, overlap = zip(*(obvious(reference, row, Bare().apply) for row in ids), strict=True)
    found = logit_lens(model, ids, plan)
    np.testing.assert_allclose(found.kl, kl, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.overlap, overlap, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(top5_overlap(model, ids, plan).overlap, found.overlap)
    assert (found.kl[:, -1].tolist(), found.overlap[:, -1].tolist()) == ([0, 0], [1, 1])


def test_a_lens_is_applied_to_what_enters_each_visit(model: Model, hooked: Any) -> None:
    ids, lens = random_ids(model.spec, 2, LENGTH), random_lens(model, 6)
    reference = hooked(model.spec, random_arrays(model.spec), model.plan)

    def translate(visit: int, x: np.ndarray) -> np.ndarray:
        return np.array([h + lens.weight[visit] @ h + lens.bias[visit] for h in x])

    kl, overlap = zip(*(obvious(reference, row, translate) for row in ids), strict=True)
    found = evaluate_lens(model, ids, lens)
    np.testing.assert_allclose(found.kl, kl, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.overlap, overlap, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.bare_kl, logit_lens(model, ids).kl)
    np.testing.assert_array_equal(top5_overlap(model, ids, translator=lens).overlap, found.overlap)


def test_a_zero_lens_is_the_logit_lens(model: Model) -> None:
    ids, width = random_ids(model.spec, 2, LENGTH), model.spec.hidden_size
    lens = Lens(np.zeros((6, width, width), np.float32), np.zeros((6, width), np.float32), model.text(), unembedding_hash(model), 0)
    found = evaluate_lens(model, ids, lens)
    np.testing.assert_allclose(found.kl, found.bare_kl, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", ["var-math-0", "copy-random"])
def test_early_exit_answers_are_those_of_one_text_at_a_time(model: Model, hooked: Any, task: str) -> None:
    questions, lens = few_shot(find(task), 0, 3, 0), random_lens(model, 6)
    reference = hooked(model.spec, random_arrays(model.spec), model.plan)
    expected = np.zeros((3, 7), bool)
    for number, question in enumerate(questions):
        scores = np.zeros((len(question.options), 7))
        start = len(model.tokenizer.encode(question.prompt))
        for o, option in enumerate(question.options):
            ids = np.array(model.tokenizer.encode(f"{question.prompt} {option}"))
            before, _, _, after = reference.streams(ids)
            for done, x in enumerate([*before, after[-1]]):
                logs = reference.read(lens.apply(done, x) if done < 6 else x).log_softmax(-1)
                scores[o, done] = sum(float(logs[place - 1, ids[place]]) for place in range(start, len(ids)))
        expected[number] = scores.argmax(0) == question.answer
    found = exit_answers(model, questions, model.plan, lens)
    np.testing.assert_array_equal(found, expected)
    (last,) = answer(model, questions)
    np.testing.assert_array_equal(found[list(last.questions), -1], last.right[0])


def test_the_gradient_is_autograds() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    norm, matrix = (rng.standard_normal(shape).astype(np.float32) for shape in ((7,), (23, 7)))
    h, weights = rng.standard_normal((5, 7)).astype(np.float32), 0.1 * rng.standard_normal((7, 8)).astype(np.float32)
    final = torch.from_numpy(rng.standard_normal((5, 23)).astype(np.float32)).log_softmax(-1)
    gradient = Head(norm, matrix, 1e-5).gradient(weights, h, final.exp().numpy())
    w = torch.from_numpy(weights).requires_grad_()
    x = torch.from_numpy(h) + torch.from_numpy(h) @ w[:, :-1].T + w[:, -1]
    early = (torch.nn.functional.rms_norm(x, (7,), torch.from_numpy(norm), 1e-5) @ torch.from_numpy(matrix).T).log_softmax(-1)
    torch.nn.functional.kl_div(early, final, reduction="sum", log_target=True).backward()
    np.testing.assert_allclose(gradient, w.grad.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_updates_are_torchs(optimizer: str) -> None:
    torch = pytest.importorskip("torch")
    rng, budget = np.random.default_rng(1), Budget(positions=6, batch=1, optimizer=optimizer)
    weights = rng.standard_normal((2, 3, 4)).astype(np.float32)
    zeros = np.zeros_like(weights)
    state, w = State(0, weights, zeros, zeros), torch.nn.Parameter(torch.from_numpy(weights.copy()))
    theirs = (
        torch.optim.SGD([w], lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
        if optimizer == "sgd"
        else torch.optim.Adam([w], lr=1e-3, weight_decay=1e-3)
    )
    rates = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: 1 - step / 6)
    for scale in (0.01, 5, 0.1, 1, 3, 0.5):
        gradient = (scale * rng.standard_normal(weights.shape)).astype(np.float32)
        state = update(state, gradient, budget)
        w.grad = torch.from_numpy(gradient)
        torch.nn.utils.clip_grad_norm_([w], 1.0)
        theirs.step()
        rates.step()
        np.testing.assert_allclose(state.weights, w.detach().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_brings_exits_nearer_to_the_end(make: Any, optimizer: str) -> None:
    model = make("torch")
    lens = train_lens(model, random_ids(model.spec, 16, LENGTH, seed=7), budget=Budget(3200, 64, optimizer))
    found = evaluate_lens(model, random_ids(model.spec, 3, LENGTH), lens)
    assert (found.kl[:, :-1].mean(0) < found.bare_kl[:, :-1].mean(0)).all()
    assert found.kl[:, :-1].mean() < 0.95 * found.bare_kl[:, :-1].mean()
    assert (lens.positions, found.positions) == (3200, 3200)


def test_a_stopped_training_goes_on_bit_for_bit(model: Model, tmp_path: Path) -> None:
    ids, budget = random_ids(model.spec, 8, LENGTH), Budget(320, 32)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    whole = train_lens(model, ids, budget=budget)
    with pytest.raises(KeyboardInterrupt):
        train_lens(model, ids, budget=budget, folder=tmp_path / "lens", progress=stop)
    assert open_lens(tmp_path / "lens").positions == 128
    resumed = train_lens(model, ids, budget=budget, folder=tmp_path / "lens")
    np.testing.assert_array_equal(resumed.weight, whole.weight)
    np.testing.assert_array_equal(resumed.bias, whole.bias)
    again = open_lens(tmp_path / "lens")
    np.testing.assert_array_equal(again.weight, whole.weight)
    assert (again.positions, again.plan) == (320, model.text())
    with pytest.raises(UsageError, match="holds a lens with seed 0, not 1"):
        train_lens(model, ids, budget=replace(budget, seed=1), folder=tmp_path / "lens")


def test_a_lens_of_another_model_or_plan_is_refused(model: Model, make: Any, tmp_path: Path) -> None:
    ids, lens = random_ids(model.spec, 1, LENGTH), random_lens(model, 6)
    other = make(model.backend, arrays=random_arrays(model.spec, seed=9))
    with pytest.raises(UsageError, match="another model"):
        evaluate_lens(other, ids, lens)
    with pytest.raises(UsageError, match=r"made for plan 1-2x2-1, not 1:3x2"):
        evaluate_lens(model, ids, lens, "1:3x2")
    save_lens(lens, tmp_path / "lens")
    with pytest.raises(UsageError, match="another model"):
        tuned_lens(other, ids, lens=str(tmp_path / "lens"))
    with pytest.raises(LoopkitError, match="holds no lens"):
        open_lens(tmp_path / "nothing")
    with pytest.raises(UsageError, match="sgd or adam"):
        Budget(optimizer="lion")
    with pytest.raises(UsageError, match="at least one batch"):
        Budget(positions=10, batch=20)


def test_the_lens_projects_form(model: Model, tmp_path: Path) -> None:
    """Their files, read as their lens does: residual translators, one torch Linear a visit."""
    torch = pytest.importorskip("torch")
    import json

    lens = random_lens(model, 6)
    export_lens(lens, model, tmp_path / "project")
    config = json.loads((tmp_path / "project" / "config.json").read_text())
    assert (config["d_model"], config["num_hidden_layers"], config["bias"]) == (48, 6, True)
    translators = torch.nn.ModuleList([torch.nn.Linear(48, 48) for _ in range(config["num_hidden_layers"])])
    translators.load_state_dict(torch.load(tmp_path / "project" / "params.pt", weights_only=True))
    h = np.random.default_rng(0).standard_normal((3, 48)).astype(np.float32)
    with torch.inference_mode():
        theirs = (torch.from_numpy(h) + translators[2](torch.from_numpy(h))).numpy()
    np.testing.assert_allclose(theirs, lens.apply(2, h), rtol=0, atol=1e-5)
