"""Speed of training as ratios against peers, measured in turn within one run: ``make bench``.

Peers: a plain loop in the style of nanoGPT and transformers' Llama, both with torch.compile and fused AdamW. Each takes its steps in a
process of its own, and the processes take turns. On a GPU: ``python benchmarks/training.py --device cuda``.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from loopkit import cost
from loopkit.optimizer import Optimizer
from loopkit.run import Batch
from loopkit.spec import Spec, preset

RATE = 1e-3
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # loopkit's own setting, for the peers too: on a busy machine they would crawl
Take = Callable[[], float]  # one step; the loss


@dataclass(frozen=True)
class Size:
    """What is trained, and on what."""

    device: str
    dtype: str
    preset: str
    rows: int
    length: int

    @property
    def spec(self) -> Spec:
        """The model."""
        return preset(self.preset)

    def batch(self) -> Batch:
        """The same random tokens for all."""
        ids = np.random.default_rng(0).integers(0, self.spec.vocab_size, (self.rows, self.length + 1)).astype(np.int32)
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy())


SIZES = {"cpu": Size("cpu", "float32", "micro", 8, 256), "cuda": Size("cuda", "bfloat16", "smollm-360m", 4, 2048)}


def loopkit(size: Size, backend: str, compiled: bool) -> Take:
    """This project's learner."""
    from loopkit import backend as backends
    from loopkit.checkpoint.initial import initialize

    weights = initialize(size.spec)
    state = {"weights": weights} | {part: {name: 0 * array for name, array in weights.items()} for part in ("first", "second")}
    learner = backends.load(backend).learner(
        size.spec,
        state,
        0,
        Optimizer(),
        device=size.device,
        dtype=size.dtype,
        micro_batches=1,
        checkpointing=False,
        compiled=compiled,
        norm_scaling=False,
    )
    batch, plan = size.batch(), size.spec.plan
    return lambda: learner.step(batch, plan, RATE)[0]


def plain(size: Size) -> Take:
    """A small Llama of torch's own modules in a plain loop."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    spec = size.spec
    heads, groups, width = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
    angles = torch.arange(size.length)[:, None] * torch.from_numpy(spec.rope_frequencies())
    cos, sin = torch.cat([angles.cos()] * 2, -1).to(size.device), torch.cat([angles.sin()] * 2, -1).to(size.device)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(spec.hidden_size, spec.rms_norm_eps), nn.RMSNorm(spec.hidden_size, spec.rms_norm_eps)
            self.qkv = nn.Linear(spec.hidden_size, (heads + 2 * groups) * width, bias=False)
            self.out = nn.Linear(heads * width, spec.hidden_size, bias=False)
            self.gate = nn.Linear(spec.hidden_size, spec.intermediate_size, bias=False)
            self.up = nn.Linear(spec.hidden_size, spec.intermediate_size, bias=False)
            self.down = nn.Linear(spec.intermediate_size, spec.hidden_size, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            split = self.qkv(self.norm1(x)).unflatten(-1, (-1, width)).transpose(1, 2).split([heads, groups, groups], 1)
            y = F.scaled_dot_product_attention(rotated(split[0]), rotated(split[1]), split[2], is_causal=True, enable_gqa=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            y = self.norm2(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    class Llama(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
            self.blocks = nn.ModuleList(Block() for _ in range(spec.n_layers))
            self.norm = nn.RMSNorm(spec.hidden_size, spec.rms_norm_eps)
            nn.init.normal_(self.embed.weight, std=0.02)

        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            logits = F.linear(self.norm(x), self.embed.weight)
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return _loop(size, Llama())


def transformers(size: Size) -> Take:
    """Its Llama in the same loop."""
    import torch
    import torch.nn.functional as F
    from transformers import LlamaConfig, LlamaForCausalLM

    class Llama(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = LlamaForCausalLM(LlamaConfig(**size.spec.to_config()))

        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            logits = self.model(ids, use_cache=False).logits
            return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return _loop(size, Llama())


def _loop(size: Size, model: Any) -> Take:
    """nanoGPT's step: compiled model, mixed precision where the type is a half one, clipping, fused AdamW."""
    import torch

    model = model.to(size.device)
    compiled = torch.compile(model)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wanted] for wanted in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), fused=True)
    batch = size.batch()

    def take() -> float:
        ids, targets = (torch.from_numpy(part.astype(np.int64)).to(size.device) for part in (batch.ids, batch.targets))
        with torch.autocast(size.device, torch.bfloat16, enabled=size.dtype == "bfloat16"):
            loss = compiled(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss.item()

    return take


PEERS: dict[str, Callable[[Size], Take]] = {
    "torch": lambda size: loopkit(size, "torch", False),
    "torch compiled": lambda size: loopkit(size, "torch", True),
    "mlx": lambda size: loopkit(size, "mlx", False),
    "plain loop": plain,
    "transformers": transformers,
}

OURS = ("torch", "torch compiled", "mlx")


def work(peer: str, size: Size, pipe: Connection) -> None:
    """In a process of its own: so many steps for each number that comes, their seconds back; 0 asks for the peak memory in GB."""
    take = PEERS[peer](size)
    losses = [take() for _ in range(3)]
    assert losses[-1] < losses[0], f"{peer} does not learn"
    pipe.send(losses)
    while steps := pipe.recv():
        start = time.perf_counter()
        for _ in range(steps):
            take()
        pipe.send((time.perf_counter() - start) / steps)
    pipe.send(_peak(size.device))


def _peak(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def step_times(peers: list[str], size: Size, rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Median seconds a step and peak memory in GB of each peer; all take ``steps`` steps in turn every round."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for peer in peers:
        pipes[peer], theirs = context.Pipe()
        context.Process(target=work, args=(peer, size, theirs), daemon=True).start()
        pipes[peer].recv()
    times: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            times[peer].append(_ask(pipes[peer], steps))
    return {peer: (statistics.median(times[peer]), _ask(pipes[peer], 0)) for peer in peers}


def _ask(pipe: Connection, steps: int) -> float:
    pipe.send(steps)
    return float(pipe.recv())


def growth(rounds: int, steps: int = 60) -> dict[str, float]:
    """Whole LIDAS runs in 6 stages over 85% of the steps beside whole baseline runs: wall time and training FLOPs."""
    base = ["model.preset=micro", f"schedule.steps={steps}", "data.rows=8", "data.length=128", "schedule.warmup=2"]
    grown = [*base, "growth.operator=lidas", "growth.block=2", f"growth.steps={steps * 85 // 100}"]
    run(base)
    found = [(run(grown), run(base)) for _ in range(rounds)]
    wall = statistics.median(mine[0] / theirs[0] for mine, theirs in found)
    work = found[0][0][1] / found[0][1][1]
    return {"LIDAS over the baseline, wall time": wall, "LIDAS over the baseline, FLOPs": work, "wall time over FLOPs": wall / work}


def growth_step() -> dict[str, float]:
    """The slowest growth step of a run at mini."""
    settings = ["model.preset=mini", "growth.operator=lidas", "growth.block=4", "schedule.steps=10", "schedule.warmup=0"]
    return {"growth step at mini, seconds": run([*settings, "data.rows=1", "data.length=64"])[2]}


def run(settings: list[str]) -> tuple[float, float, float]:
    """A run without evaluation and with one checkpoint at its end: wall seconds, FLOPs, seconds of its slowest growth step."""
    from loopkit import backend as backends
    from loopkit.training.events import Grown, Step
    from loopkit.training.folder import RunFolder
    from loopkit.training.loop import Hardware
    from loopkit.training.recipe import Recipe, override
    from loopkit.training.start import begin, train

    recipe = override(Recipe(), [*settings, "train.evaluate_every=0", "train.save_every=0"])
    hardware = Hardware(backends.load("torch"), "cpu", "float32")
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        ready = begin(recipe, folder, hardware)
        start = time.perf_counter()
        events = list(train(ready, folder, hardware))
        wall = time.perf_counter() - start
    flops = [event.flops for event in events if isinstance(event, Step)][-1]
    return wall, flops, max((event.seconds for event in events if isinstance(event, Grown)), default=0.0)


def compared(peers: list[str], size: Size, rounds: int) -> dict[str, float]:
    """Tokens and FLOPs a second and peak memory of each, and how ours do beside the better peer."""
    tokens = size.rows * size.length
    flops = cost.training_flops(size.spec, [(size.spec.plan, tokens)], size.length)
    times = step_times(peers, size, rounds, 2 if size.device == "cpu" else 10)
    figures: dict[str, float] = {}
    for peer, (seconds, peak) in times.items():
        figures |= {f"{peer}: tokens/s": tokens / seconds, f"{peer}: GFLOP/s": flops / seconds / 1e9, f"{peer}: peak memory, GB": peak}
    best = min(times[peer][0] for peer in peers if peer not in OURS)
    figures |= {f"{peer} over the better peer": best / times[peer][0] for peer in peers if peer in OURS}
    if "mlx" in times:
        figures["mlx over torch"] = times["torch"][0] / times["mlx"][0]
    return figures


def main() -> None:
    """Print every figure, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size = SIZES[arguments.device]
    show(compared([name for name in PEERS if size.device == "cpu" or name != "mlx"], size, arguments.rounds))
    if size.device == "cpu":
        show(growth(arguments.rounds // 2 + 1))
        show(growth_step())


def show(figures: dict[str, float]) -> None:
    """A line each."""
    for name, value in figures.items():
        print(f"{name:<45} {value:10.3f}", flush=True)


if __name__ == "__main__":
    main()
