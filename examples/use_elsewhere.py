"""Write a looped checkpoint and use it in transformers, mlx-lm and lm-eval: the same likelihood from each of them.

    loopkit convert smollm2-135m-instruct smol
    python examples/use_elsewhere.py smol looped --plan 8:12x2

The folder shares the repeated layers and carries the code that runs it, which is why the tools must be told to trust it. As commands:

    mlx_lm.generate --model looped --trust-remote-code --prompt "The capital of France is"
    lm_eval --model hf --model_args pretrained=looped,trust_remote_code=True --tasks lambada_openai

Tools that are not installed are left out.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import loopkit
from loopkit.checkpoint.export import export
from loopkit.inference.compare import log_softmax
from loopkit.plan import parse_plan

CONTEXT, CONTINUATION = "The capital of France is", " Paris, of course."


def from_logits(logits: np.ndarray, ids: list[int], start: int) -> float:
    """Log-likelihood in nats of ``ids`` from ``start`` on, from logits ``[T, V]``."""
    return float(log_softmax(logits)[np.arange(start - 1, len(ids) - 1), ids[start:]].sum())


def in_loopkit(folder: str) -> float:
    """With loopkit itself, on its default backend."""
    model = loopkit.load(folder, dtype="float32")
    ids = model.prompt_ids(CONTEXT + CONTINUATION)
    return from_logits(model.logits(np.array([ids]))[0], ids, len(model.prompt_ids(CONTEXT)))


def in_transformers(folder: str) -> float:
    """With transformers, which loads the folder's modeling_looped.py."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    ids = tokenizer(CONTEXT + CONTINUATION)["input_ids"]
    with torch.inference_mode():
        return from_logits(model(torch.tensor([ids])).logits[0].numpy(), ids, len(tokenizer(CONTEXT)["input_ids"]))


def in_mlx_lm(folder: str) -> float:
    """With mlx-lm, which loads the folder's mlx_looped.py."""
    import loopkit_mlx  # noqa: F401  (on Linux it gives MLX a fast matrix product)
    import mlx.core as mx
    import mlx_lm

    model, tokenizer = mlx_lm.load(folder, tokenizer_config={"trust_remote_code": True}, trust_remote_code=True)
    ids = tokenizer.encode(CONTEXT + CONTINUATION)
    return from_logits(np.array(model(mx.array([ids]))[0].astype(mx.float32)), ids, len(tokenizer.encode(CONTEXT)))


def in_lm_eval(folder: str) -> float:
    """With the evaluation harness's own model for Hugging Face folders."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, trust_remote_code=True, dtype="float32", device="cpu")
    asked = Instance("loglikelihood", doc={}, arguments=(CONTEXT, CONTINUATION), idx=0)
    return float(model.loglikelihood([asked], disable_tqdm=True)[0][0])


TOOLS: dict[str, Callable[[str], float]] = {
    "loopkit": in_loopkit,
    "transformers": in_transformers,
    "mlx_lm": in_mlx_lm,
    "lm_eval": in_lm_eval,
}


def main() -> None:
    """Write the folder, then one line a tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out", help="the looped folder to write")
    parser.add_argument("--plan", default="8:12x2")
    asked = parser.parse_args()
    model = loopkit.load(asked.checkpoint)
    export(model.checkpoint, asked.out, plan=parse_plan(asked.plan, model.plan), unrolled=False)
    for name, likelihood in TOOLS.items():
        if find_spec(name):
            print(f"{name}: log p({CONTINUATION!r}) = {likelihood(asked.out):.4f}", flush=True)


if __name__ == "__main__":
    main()
