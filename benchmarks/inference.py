"""Speed of inference as ratios against peers, measured in turn within one run: ``make bench``.

Peers: transformers (torch), mlx-lm, and the machine's own matmul and memory rates. Medians of several interleaved rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROUNDS, PROMPT, NEW = 5, 300, 32
COMPILES_AFTER = 520  # tokens, after which torch's decoding on a CPU is compiled
IDS = np.random.default_rng(0).integers(1000, 40000, PROMPT).tolist()


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each call, all of them in turn every round, after one unmeasured round."""
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in times) for name in calls}


def torch_inference(folder: Path) -> dict[str, float]:
    """Ours beside transformers on torch: prefill, decode, what a loop costs, and the machine's own rates."""
    import torch
    from transformers import AutoModelForCausalLM

    import loopkit
    from loopkit import cost

    model = loopkit.load(folder, "torch", "cpu")
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([IDS])
    short = IDS[:32]

    def peer_decode(new: int) -> None:
        peer.generate(ids[:, :32], max_new_tokens=new, min_new_tokens=new, do_sample=False)

    def peer_prefill() -> None:
        with torch.inference_mode():
            peer(ids, logits_to_keep=1, use_cache=True)

    list(model.generate_ids(short, max_tokens=COMPILES_AFTER))
    a = torch.randn(1024, 1024)
    flat = torch.randn(100_000_000)
    looped = model.resolve("8:12x4")
    times = medians(
        {
            "prefill": lambda: list(model.generate_ids(IDS, max_tokens=1)),
            "prefill transformers": peer_prefill,
            "decode 1": lambda: list(model.generate_ids(short, max_tokens=1)),
            "decode": lambda: list(model.generate_ids(short, max_tokens=1 + NEW)),
            "decode transformers 1": lambda: peer_decode(1),
            "decode transformers": lambda: peer_decode(1 + NEW),
            "looped 1": lambda: list(model.generate_ids(short, looped, max_tokens=1)),
            "looped": lambda: list(model.generate_ids(short, looped, max_tokens=1 + NEW)),
            "matmul": lambda: a @ a.T,
            "memory": lambda: flat.sum(),
        }
    )
    ours, theirs = (NEW / (times[f"{w}"] - times[f"{w} 1"]) for w in ("decode", "decode transformers"))
    flops = (
        PROMPT * cost.token_flops(model.spec, None, (PROMPT + 1) / 2) - 2 * (PROMPT - 1) * model.spec.hidden_size * model.spec.vocab_size
    )
    bytes_a_token = 4 * cost.parameters(model.spec)
    bandwidth = 4 * len(flat) / times["memory"]
    layers = cost.visit_flops(model.spec, 48)
    base = cost.token_flops(model.spec, None, 48)
    return {
        "prefill tokens/s": PROMPT / times["prefill"],
        "prefill over transformers": times["prefill transformers"] / times["prefill"],
        "prefill share of the matmul rate": flops / times["prefill"] / (2 * 1024**3 / times["matmul"]),
        "decode tokens/s": ours,
        "decode over transformers": ours / theirs,
        "decode share of the memory rate": ours * bytes_a_token / bandwidth,
        "looped decode over base": (times["looped"] - times["looped 1"]) / (times["decode"] - times["decode 1"]),
        "looped work over base": (base + 12 * layers) / base,
    }


def mlx_inference(folder: Path) -> dict[str, float]:
    """Ours beside mlx-lm on MLX with the same BLAS."""
    import loopkit

    model = loopkit.load(folder, "mlx", "cpu")
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.generate import generate_step

    peer, _ = load(str(folder))
    peer.set_dtype(mx.float32)
    short = mx.array(IDS[:32])

    def peer_decode(new: int) -> None:
        for _ in generate_step(short, peer, max_tokens=new):
            pass

    times = medians(
        {
            "prefill": lambda: model.logits(np.array([IDS])),
            "decode 1": lambda: list(model.generate_ids(IDS[:32], max_tokens=1)),
            "decode": lambda: list(model.generate_ids(IDS[:32], max_tokens=1 + NEW)),
            "decode mlx-lm 1": lambda: peer_decode(1),
            "decode mlx-lm": lambda: peer_decode(1 + NEW),
        }
    )
    ours, theirs = (NEW / (times[w] - times[f"{w} 1"]) for w in ("decode", "decode mlx-lm"))
    return {"prefill seconds": times["prefill"], "decode tokens/s": ours, "decode over mlx-lm": ours / theirs}


def mlx_prefill(folder: Path) -> dict[str, float]:
    """One prefill with whatever BLAS the environment asks for."""
    import loopkit

    model = loopkit.load(folder, "mlx", "cpu")
    model.logits(np.array([IDS[:8]]))
    return {"prefill seconds": seconds(lambda: model.logits(np.array([IDS])))}


def start_up() -> dict[str, float]:
    """Seconds until help is there, the median of nine."""
    command = [Path(sys.executable).parent / "loopkit", "--help"]
    return {"loopkit --help seconds": medians({"help": lambda: subprocess.run(command, capture_output=True, check=True)}, 9)["help"]}


PARTS = {"torch": torch_inference, "mlx": mlx_inference, "mlx-prefill": mlx_prefill}


def in_process(part: str, folder: Path, **environment: str) -> dict[str, float]:
    """A part in a process of its own, since each backend brings its own BLAS and threads."""
    command = [sys.executable, __file__, "--part", part, "--model", str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return dict(json.loads(out.stdout.splitlines()[-1]))


def main() -> None:
    """Print every figure, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.model)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        from loopkit.checkpoint.convert import convert

        folder = arguments.model or convert("smollm2-135m-instruct", Path(scratch) / "smol")
        figures = {"": start_up(), "torch": in_process("torch", folder), "mlx": in_process("mlx", folder)}
        shipped = in_process("mlx-prefill", folder, LOOPKIT_MLX_BLAS="reference")["prefill seconds"]
        figures["mlx"]["prefill over MLX as its wheel ships"] = shipped / figures["mlx"]["prefill seconds"]
    for part, values in figures.items():
        for name, value in values.items():
            print(f"{part + ' ' + name:<45} {value:10.3f}")


if __name__ == "__main__":
    main()
