"""Learning in MLX: loss and gradients over a plan, on one device or averaged over several processes.

Shapes: B batch, T length, D hidden, V vocabulary.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.utils import average_gradients

from loopkit.errors import UsageError
from loopkit.optimizer import Optimizer
from loopkit.plan import Plan
from loopkit.run import Batch
from loopkit.spec import Spec
from loopkit_mlx import model, optimize
from loopkit_mlx.exponential import logsumexp
from loopkit_mlx.memory import DTYPES, Weights, get, to_mlx, use

Arrays = Mapping[str, np.ndarray]
_LANE_TOKENS = 256  # below this a lane takes more time to set up than it saves
os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")  # with MLX's 20 one lane waits for the other; read at the first evaluation

Part = dict[str, mx.array]  # ids and targets [B, T], and where there are any counts and documents


@lru_cache(maxsize=1)
def _group() -> Any:
    return mx.distributed.init()


def processes() -> tuple[int, int]:
    """See loopkit.backend.Backend.processes."""
    return _group().rank(), _group().size()


def barrier() -> None:
    """See loopkit.backend.Backend.barrier."""
    mx.eval(_sum_over_processes(mx.array(0.0)))


def _cores() -> int:
    """What this process may use: OMP_NUM_THREADS where it is set, as in torch and in MLX's own matrix products, or else all."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) else os.cpu_count() or 1


@lru_cache
def _lanes(number: int) -> list[Any]:
    """Streams that compute side by side, one a core: MLX runs all but matrix products on a single core."""
    return [mx.new_thread_local_stream(mx.cpu) for _ in range(number)]


class Learner:
    """Weights and both moments on a device, float32, and the step that changes them. See loopkit.backend.Learner."""

    def __init__(
        self,
        spec: Spec,
        state: Mapping[str, Arrays],
        updates: int,
        optimizer: Optimizer,
        *,
        device: str,
        dtype: str = "float32",
        micro_batches: int = 1,
        checkpointing: bool = False,
        compiled: bool = False,
        norm_scaling: bool = False,
    ) -> None:
        if compiled and device == "cpu":
            raise UsageError("MLX does not compile on a CPU here; leave --compile out")
        use(device)
        self.spec, self.settings, self.updates, self.micro_batches = spec, optimizer, updates, micro_batches
        self.parts = {
            part: {name: to_mlx(state[part][name]).astype(mx.float32) for name in spec.shapes()} for part in ("weights", "first", "second")
        }
        mx.eval(self.parts)
        self._loss = _Loss(spec, DTYPES[dtype], checkpointing, norm_scaling)
        self._compile: Callable[[Any], Any] = mx.compile if compiled else lambda function: function
        self._update = self._compile(partial(optimize.update, optimizer))
        self.lanes = _lanes(min(_cores(), 8)) if device == "cpu" else [mx.default_stream(mx.default_device())]
        self._made: dict[tuple[Plan, int | None], Any] = {}

    def step(self, batch: Batch, plan: Plan, rate: float, detach_at: int | None = None) -> tuple[float, float]:
        """See loopkit.backend.Learner.step."""
        loss, gradients = _average(*self._accumulate(batch, plan, detach_at))
        self.updates += 1
        self.parts, norm = self._update(self.parts, gradients, optimize.scalars(self.settings, rate, self.updates))
        del gradients  # nothing may hold what is old while the new is computed, or its memory is not used again
        mx.eval(self.parts, loss, norm)
        return float(loss), float(norm)

    def evaluate(self, batch: Batch, plan: Plan) -> tuple[float, int]:
        """See loopkit.backend.Learner.evaluate."""
        return float(self._loss(self.parts["weights"], _part(batch), plan)), _counted(batch)

    def agree(self, asked: bool) -> bool:
        """See loopkit.backend.Learner.agree."""
        return bool(_sum_over_processes(mx.array(float(asked))) > 0)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """See loopkit.backend.Learner.state."""
        return {part: get(arrays, list(arrays)) for part, arrays in self.parts.items()}

    def _accumulate(self, batch: Batch, plan: Plan, detach_at: int | None) -> tuple[mx.array, Weights]:
        """Loss and gradients over the mean count of the processes, one micro-batch after the other, its lanes side by side."""
        total = _sum_over_processes(mx.array(float(_counted(batch)))) / processes()[1]
        function = self._gradients(plan, detach_at)
        loss = mx.array(0.0)
        gradients: Weights = {}
        rows = len(batch.ids) // self.micro_batches
        lanes = max(1, min(len(self.lanes), rows, rows * batch.ids.shape[1] // _LANE_TOKENS))
        for number, part in enumerate(_split(batch, self.micro_batches * lanes)):
            with mx.stream(self.lanes[number % lanes]):
                share, more = function(self.parts["weights"], part, total)
            loss, gradients = loss + share, {name: gradients[name] + g if gradients else g for name, g in more.items()}
            del more
            if self.micro_batches > 1 and number % lanes == lanes - 1:
                mx.eval(loss, gradients)  # the activations of one micro-batch at a time
        return loss, gradients

    def _gradients(self, plan: Plan, detach_at: int | None) -> Any:
        """The function from weights, part and total to loss and gradients; made, and compiled, once a plan."""
        key = plan, detach_at
        if key not in self._made:
            loss = self._loss

            def share(weights: Weights, part: Part, total: mx.array) -> mx.array:
                return loss(weights, part, plan, detach_at, training=True) / total

            self._made[key] = self._compile(mx.value_and_grad(share))
        return self._made[key]


@dataclass(frozen=True)
class _Loss:
    """Summed negative log-likelihood of the targets that count, by weights and batch."""

    spec: Spec
    dtype: mx.Dtype
    checkpointing: bool
    norm_scaling: bool

    def __call__(self, weights: Weights, part: Part, plan: Plan, detach_at: int | None = None, training: bool = False) -> mx.array:
        weights = {name: array.astype(self.dtype) for name, array in weights.items()}
        mask = _document_mask(part["documents"]) if "documents" in part else None
        layers = {layer: self._layer(weights, layer) for layer in set(plan)}
        x_BTD = model.embed(weights, self.spec, part["ids"])
        for visit, layer in enumerate(plan):
            if visit == detach_at:
                x_BTD = mx.stop_gradient(x_BTD)
            run = partial(_visit, self.spec, layer)
            x_BTD = (mx.checkpoint(run) if self.checkpointing and training else run)(layers[layer], x_BTD, mask)
        losses = _cross_entropy(model.unembed(weights, self.spec, x_BTD), part["targets"])
        return (losses * part["counts"] if "counts" in part else losses).sum()

    def _layer(self, weights: Weights, layer: int) -> Weights:
        at = f"model.layers.{layer}."
        w = {at + name: weights[at + name] for name in self.spec.layer_shapes()}
        if self.norm_scaling:  # LayerNorm scaling (Sun et al. 2025): the output of both pre-norms, by depth
            scale = (layer + 1) ** -0.5
            w |= {at + name: w[at + name] * scale for name in ("input_layernorm.weight", "post_attention_layernorm.weight")}
        return w


def _visit(spec: Spec, layer: int, w: Weights, x_BTD: mx.array, mask: mx.array | None) -> mx.array:
    x_BTD = x_BTD + model.attention(w, spec, layer, x_BTD, mask=mask)
    return x_BTD + model.mlp(w, spec, layer, x_BTD)


def _cross_entropy(logits_BTV: mx.array, targets_BT: mx.array) -> mx.array:
    return logsumexp(logits_BTV) - mx.take_along_axis(logits_BTV, targets_BT[..., None], -1)[..., 0]


def _split(batch: Batch, parts: int) -> Iterator[Part]:
    whole = {name: np.array_split(array, parts) for name, array in _named(batch).items()}
    return ({name: mx.array(arrays[i]) for name, arrays in whole.items()} for i in range(parts))


def _part(batch: Batch) -> Part:
    return next(_split(batch, 1))


def _named(batch: Batch) -> dict[str, np.ndarray]:
    arrays = {"ids": batch.ids, "targets": batch.targets, "counts": batch.loss_mask, "documents": batch.documents}
    return {name: array for name, array in arrays.items() if array is not None}


def _counted(batch: Batch) -> int:
    return int(batch.targets.size if batch.loss_mask is None else batch.loss_mask.sum())


def _document_mask(documents_BT: mx.array) -> mx.array:
    """Which keys a position sees: its own document's, up to itself, ``[B, 1, T, T]``."""
    same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return same & mx.tri(same.shape[-1], dtype=mx.bool_)


def _average(loss: mx.array, gradients: Weights) -> tuple[mx.array, Weights]:
    """Of all processes, in few messages."""
    if processes()[1] == 1:
        return loss, gradients
    loss, *averaged = average_gradients([loss, *gradients.values()])
    return loss, dict(zip(gradients, averaged, strict=True))


def _sum_over_processes(value: mx.array) -> mx.array:
    return mx.distributed.all_sum(value) if processes()[1] > 1 else value
