"""Training a tuned lens with numpy: the gradient of KL(final || lens) with respect to the translators, by hand.

The recipe is the tuned-lens project's: SGD with Nesterov momentum 0.9, rate 0.1 falling linearly to 0, weight decay 0.001, gradients
clipped to norm 1 over all translators; or Adam at 0.001. Its budget is not: of each prompt only some positions are used.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopkit.checkpoint import tensors
from loopkit.checkpoint.folder import read_json
from loopkit.data.tasks import Question
from loopkit.errors import UsageError
from loopkit.plan import Plan
from loopkit.probes.common import Array, order, prompts, traced
from loopkit.probes.lens import Lens, TunedLens, evaluate_lens, export_lens, open_lens, save_lens, unembedding, unembedding_hash
from loopkit.probes.prompts import training_ids
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model

SGD_RATE, MOMENTUM = 0.1, 0.9
ADAM_RATE, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
DECAY, CLIP = 1e-3, 1.0
SAVE_SECONDS = 60.0
CHUNK = 256  # positions whose logits are held at a time


@dataclass(frozen=True)
class Budget:
    """``positions`` in all, ``batch`` of them a step, half of a prompt's positions each time it comes up."""

    positions: int = 32768
    batch: int = 256
    optimizer: str = "sgd"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adam"):
            raise UsageError(f"no optimizer {self.optimizer!r} for a lens; choose sgd or adam")
        if not 1 <= self.batch <= self.positions:
            raise UsageError(f"a budget needs at least one batch: positions={self.positions}, batch={self.batch}")

    @property
    def steps(self) -> int:
        """Updates."""
        return self.positions // self.batch


@dataclass(frozen=True, eq=False)
class State:
    """Translators ``[visits, D, D + 1]``, the bias as the last column, and the optimizer's moments of the same shape."""

    step: int
    weights: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True, eq=False)
class Head:
    """Final norm and head in numpy."""

    norm: np.ndarray
    matrix: np.ndarray
    eps: float

    def logits(self, x: Array) -> tuple[Array, Array]:
        """Logits ``[N, V]`` of a stream ``[N, D]``, and what the norm scaled it by, ``[N, 1]``."""
        scale = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + np.float32(self.eps))
        return (x * scale * self.norm) @ self.matrix.T, scale

    def gradient(self, weights: Array, h: Array, final: Array) -> Array:
        """Gradient of the summed KL(final || lens) by ``weights [D, D + 1]``: streams ``h [N, D]``, final probabilities ``[N, V]``."""
        padded = np.concatenate([h, np.ones((len(h), 1), np.float32)], 1)
        x = h + padded @ weights.T
        logits, scale = self.logits(x)
        d_logits = _softmax(logits)
        d_logits -= final
        d_scaled = (d_logits @ self.matrix) * self.norm
        d_x = scale * d_scaled - scale**3 * (d_scaled * x).mean(-1, keepdims=True) * x  # through the RMS norm
        return d_x.T @ padded  # type: ignore[no-any-return]


def train_lens(
    model: Model,
    ids: np.ndarray,
    plan: Depth = None,
    *,
    budget: Budget | None = None,
    folder: Path | None = None,
    progress: Progress = quiet,
) -> Lens:
    """Train a lens on prompts ``ids [B, T]`` under a budget.

    With ``folder`` it is saved there every minute and at the end, also when it is stopped by Ctrl-C, and goes on from what is there.
    Raises UsageError where the folder holds another lens.
    """
    visits, rows, budget = order(model, plan), prompts(ids, 2), budget or Budget()
    head = _head(model)
    about = {**asdict(budget), "plan": model.text(visits), "data_sha256": hashlib.sha256(rows.tobytes()).hexdigest()}
    about["unembedding_sha256"] = unembedding_hash(model)
    state = _resume(folder, about) or _fresh(len(visits), model.spec.hidden_size)
    saved = time.monotonic()
    try:
        while state.step < budget.steps:
            progress(state.step, budget.steps)
            gradient = _gradient(model, head, visits, state.weights, _batch(rows, budget, state.step))
            state = update(state, gradient, budget)
            if folder and time.monotonic() - saved > SAVE_SECONDS:
                _save(state, about, folder)
                saved = time.monotonic()
    finally:  # a stopped training goes on from here
        if folder:
            _save(state, about, folder)
    progress(budget.steps, budget.steps)
    return _lens(state, about)


def tuned_lens(
    model: Model,
    ids: np.ndarray,
    plan: Depth = None,
    *,
    questions: Sequence[Question] = (),
    lens: str = "",
    train: str = "stdlib",
    texts: int = 256,
    positions: int = 32768,
    batch: int = 256,
    optimizer: str = "sgd",
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress = quiet,
) -> TunedLens:
    """Train a lens on ``texts`` pieces of the source ``train``, or open the one in the folder ``lens``, and evaluate it on ids ``[B, T]``
    and ``questions`` (see ``train_lens``, ``evaluate_lens``, ``Budget``). With ``folder`` the lens is kept there, and in the tuned-lens
    project's form beside it in FOLDER-project."""
    if lens:
        return evaluate_lens(model, ids, open_lens(Path(lens)), plan, questions=questions, progress=progress)
    budget = Budget(positions, batch, optimizer, seed)
    pieces = training_ids(model, train, texts, ids.shape[-1], seed)
    trained = train_lens(model, pieces, plan, budget=budget, folder=folder, progress=progress)
    if folder:
        export_lens(trained, model, folder.with_name(folder.name + "-project"))
    return evaluate_lens(model, ids, trained, plan, questions=questions, progress=progress)


def update(state: State, gradient: Array, budget: Budget) -> State:
    """One step of the optimizer, as torch's SGD(nesterov=True) or Adam takes it after clipping."""
    gradient = gradient * np.float32(min(1.0, CLIP / (float(np.sqrt((gradient**2).sum())) + 1e-6))) + DECAY * state.weights
    step, left = state.step + 1, 1 - state.step / budget.steps
    if budget.optimizer == "sgd":
        first, second = MOMENTUM * state.first + gradient, state.second
        change = SGD_RATE * left * (gradient + MOMENTUM * first)
    else:
        first, second = BETA1 * state.first + (1 - BETA1) * gradient, BETA2 * state.second + (1 - BETA2) * gradient**2
        change = ADAM_RATE * left * (first / (1 - BETA1**step)) / (np.sqrt(second / (1 - BETA2**step)) + EPS)
    return State(step, state.weights - change, first, second)


def _head(model: Model) -> Head:
    norm = np.asarray(model.checkpoint.arrays["model.norm.weight"], dtype=np.float32)
    return Head(norm, unembedding(model), model.spec.rms_norm_eps)


def _fresh(visits: int, width: int) -> State:
    zeros = np.zeros((visits, width, width + 1), np.float32)
    return State(0, zeros, zeros, zeros)


def _batch(rows: Array, budget: Budget, step: int) -> Iterator[tuple[Array, Array]]:
    """Prompts of a step with the positions used of each; a pure function of seed and step."""
    rng = np.random.default_rng([budget.seed, step])
    each = max(1, rows.shape[1] // 2)
    left = budget.batch
    while left > 0:
        taken = min(each, left)
        yield rows[rng.integers(len(rows))], rng.choice(rows.shape[1], taken, replace=False)
        left -= taken


def _gradient(model: Model, head: Head, plan: Plan, weights: Array, batch: Iterator[tuple[Array, Array]]) -> Array:
    """Gradient of the mean KL, summed over visits, by all translators: ``[visits, D, D + 1]``."""
    resid = np.concatenate([traced(model, row, plan)[0][:, places] for row, places in batch], 1)
    gradient = np.zeros_like(weights)
    for start in range(0, resid.shape[1], CHUNK):
        part = resid[:, start : start + CHUNK]
        final = _softmax(head.logits(part[-1])[0])
        for v in range(len(plan)):
            gradient[v] += head.gradient(weights[v], part[v], final) / resid.shape[1]
    return gradient


def _softmax(logits: Array) -> Array:
    """Probabilities in the logits' own memory, which at a real vocabulary is most of the time and space."""
    logits -= logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return logits


def _lens(state: State, about: dict[str, Any]) -> Lens:
    weight, bias = np.ascontiguousarray(state.weights[..., :-1]), np.ascontiguousarray(state.weights[..., -1])
    return Lens(weight, bias, about["plan"], about["unembedding_sha256"], state.step * about["batch"])


def _save(state: State, about: dict[str, Any], folder: Path) -> None:
    """The lens with, until it is trained, what training goes on from."""
    moments = {"first": state.first, "second": state.second}
    unfinished = state.step < about["positions"] // about["batch"]
    save_lens(_lens(state, about), folder, {**about, "step": state.step}, moments if unfinished else None)


def _resume(folder: Path | None, about: dict[str, Any]) -> State | None:
    """The state in a folder. Raises UsageError where it is of another lens."""
    if folder is None or not folder.exists():
        return None
    config, arrays = read_json(folder / "config.json"), tensors.read(folder / "lens.safetensors")
    for name, value in about.items():
        if config.get(name) != value:
            raise UsageError(f"{folder} holds a lens with {name} {config.get(name)}, not {value}; choose another folder, or delete it")
    weights = np.concatenate([arrays["weight"], arrays["bias"][..., None]], -1)
    first, second = (np.array(arrays.get(name, np.zeros_like(weights))) for name in ("first", "second"))
    return State(int(config["step"]), weights, first, second)
