"""Learning in torch: loss and gradients over a plan, on one device or averaged over several processes."""

import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from loopkit.errors import LoopkitError
from loopkit.optimizer import Optimizer
from loopkit.plan import Plan
from loopkit.run import Batch
from loopkit.spec import Spec
from loopkit_torch import compiling, model
from loopkit_torch.memory import DTYPES, get, put
from loopkit_torch.optimize import Update

Arrays = Mapping[str, np.ndarray]


def processes() -> tuple[int, int]:
    """See loopkit.backend.Backend.processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    if not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    return dist.get_rank(), dist.get_world_size()


def barrier() -> None:
    """See loopkit.backend.Backend.barrier."""
    if dist.is_initialized():
        dist.barrier()


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
        self.spec = spec
        self.dtype, self.micro_batches, self.checkpointing, self.norm_scaling = DTYPES[dtype], micro_batches, checkpointing, norm_scaling
        self.parts = {name: put(arrays, device, "float32") for name, arrays in state.items()}
        names = _stored(spec, self.parts["weights"])
        self.leaves = {name: self.parts["weights"][name].requires_grad_() for name in names}
        self._update = Update(optimizer, spec, self.parts, self.leaves, updates)
        self.compiled = compiled

    def step(self, batch: Batch, plan: Plan, rate: float, detach_at: int | None = None) -> tuple[float, float]:
        """See loopkit.backend.Learner.step."""
        device = next(iter(self.leaves.values())).device
        total = _sum_over_processes(torch.tensor(float(_counted(batch)), device=device))
        loss = torch.zeros((), device=device)
        for part in _split(batch, self.micro_batches):
            loss += self._add_gradients(part, plan, detach_at, total)
        self._sum_gradients()
        norm = self._update(rate)
        return float(_sum_over_processes(loss)), float(norm)

    @torch.no_grad()
    def evaluate(self, batch: Batch, plan: Plan) -> tuple[float, int]:
        """See loopkit.backend.Learner.evaluate."""
        return float(self._loss_sum(batch, plan, None)), _counted(batch)

    def agree(self, asked: bool) -> bool:
        """See loopkit.backend.Learner.agree."""
        return bool(_sum_over_processes(torch.tensor(float(asked), device=self.parts["weights"]["model.norm.weight"].device)) > 0)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """See loopkit.backend.Learner.state."""
        names = list(self.spec.shapes())
        return {part: {name: array.copy() for name, array in get(tensors, names).items()} for part, tensors in self.parts.items()}

    def _add_gradients(self, batch: Batch, plan: Plan, detach_at: int | None, total: Tensor) -> Tensor:
        """A batch's share of the loss, its gradients added to the leaves'. Raises LoopkitError where it cannot be compiled."""
        try:
            share = self._loss_sum(batch, plan, detach_at) / total
            share.backward()  # type: ignore[no-untyped-call]
        except compiling.failures() as error:
            why = compiling.reason(error)
            raise LoopkitError(f"compiling the layers failed ({why}); mend that, or train with --no-compile") from error
        return share.detach()

    def _loss_sum(self, batch: Batch, plan: Plan, detach_at: int | None) -> Tensor:
        """Summed negative log-likelihood of the targets that count."""
        weights = {name: leaf.to(self.dtype) for name, leaf in self.leaves.items()}
        device = weights["model.norm.weight"].device
        ids_BT, targets_BT = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (batch.ids, batch.targets))
        mask = None if batch.documents is None else _document_mask(torch.from_numpy(batch.documents).to(device))
        x_BTD = self._stream(weights, model.embed(weights, ids_BT), plan, mask, detach_at)
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        counts = None if batch.loss_mask is None else torch.from_numpy(batch.loss_mask).to(device)
        return self._made(_loss)(x_BTD, weights["model.norm.weight"], head, targets_BT, counts, self.spec.rms_norm_eps)

    def _stream(self, weights: dict[str, Tensor], x_BTD: Tensor, plan: Plan, mask: Tensor | None, detach_at: int | None) -> Tensor:
        rotary = model.rotary_tables(self.spec, 0, x_BTD.shape[1], x_BTD.device, x_BTD.dtype)
        layers = {layer: self._layer(weights, layer) for layer in set(plan)}
        run = self._made(_visit)
        if self.checkpointing and torch.is_grad_enabled():
            run = partial(checkpoint, run, use_reentrant=False)
        for visit, layer in enumerate(plan):
            if visit == detach_at:
                x_BTD = x_BTD.detach()
            x_BTD = run(x_BTD, layers[layer], *rotary, mask, self.spec)
        return x_BTD

    def _made(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Compiled for training alone: an evaluation's other shapes and its lack of gradients would be compiled too."""
        return _compiled(function) if self.compiled and torch.is_grad_enabled() else function

    def _layer(self, weights: dict[str, Tensor], layer: int) -> model.Layer:
        w = model.layer_weights(weights, layer)
        if not self.norm_scaling:
            return w
        scale = (layer + 1) ** -0.5  # LayerNorm scaling (Sun et al. 2025): the output of both pre-norms, by depth
        return w._replace(attention_norm=w.attention_norm * scale, mlp_norm=w.mlp_norm * scale)

    def _sum_gradients(self) -> None:
        """Over all processes; what the plan leaves out has a gradient of 0, so that every weight counts the same updates."""
        for leaf in self.leaves.values():
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            _sum_over_processes(leaf.grad)


@lru_cache(maxsize=2)
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For each shape anew: code for any shape rounds in another way, so a resumed run would differ in the last bit."""
    return torch.compile(function, dynamic=False)


def _visit(x_BTD: Tensor, w: model.Layer, cos: Tensor, sin: Tensor, mask: Tensor | None, spec: Spec) -> Tensor:
    x_BTD = x_BTD + model.attention(x_BTD, w, spec, (cos, sin), mask=mask)
    return x_BTD + model.mlp(x_BTD, w, spec)


def _loss(x_BTD: Tensor, norm: Tensor, head: Tensor, targets_BT: Tensor, counts_BT: Tensor | None, eps: float) -> Tensor:
    logits = F.linear(model.norm(x_BTD, norm, eps), head).float()
    losses = F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return losses.sum() if counts_BT is None else (losses * counts_BT.flatten()).sum()


def _stored(spec: Spec, weights: Mapping[str, Tensor]) -> list[str]:
    """The names that hold memory of their own: fused ones and those that are no view of a fused one."""
    views = {name for name in spec.shapes() if weights[name]._is_view()}
    return [name for name in weights if name not in views]


def _split(batch: Batch, parts: int) -> list[Batch]:
    rows = [
        np.array_split(a, parts) if a is not None else [None] * parts for a in (batch.ids, batch.targets, batch.loss_mask, batch.documents)
    ]
    return [Batch(*part) for part in zip(*rows, strict=True)]  # type: ignore[arg-type]


def _counted(batch: Batch) -> int:
    return int(batch.targets.size if batch.loss_mask is None else batch.loss_mask.sum())


def _document_mask(documents_BT: Tensor) -> Tensor:
    """Which keys a position sees: its own document's, up to itself, ``[B, 1, T, T]``."""
    same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()


def _sum_over_processes(value: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
