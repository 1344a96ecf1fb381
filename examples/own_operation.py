"""Add an operation to both backends: the entropy of each next-token distribution, computed where the weights are.

    loopkit convert smollm2-135m-instruct smol
    python examples/own_operation.py smol --plan 8:12x2

``model.logits`` would bring every number of ``[B, T, V]`` back as numpy; this brings one a position. An operation is a function of
(weights, spec, stream, ...) in each library, numpy in and out, with one test that holds the two against each other: here the largest
difference is printed. Inside the package both would be called ``entropy``, one in backends/loopkit_torch/__init__.py and one in
backends/loopkit_mlx/__init__.py, and ``Backend`` in loopkit/backend.py would get the line that says what they do.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import loopkit
from loopkit.backend import available
from loopkit.run import Stream
from loopkit.session import Model
from loopkit.spec import Spec


def torch_entropy(weights: dict[str, Any], spec: Spec, stream: Stream) -> np.ndarray:
    """Nats, float32 ``[B, T]``."""
    import torch
    from loopkit_torch.model import unembed

    with torch.inference_mode():
        logs_BTV = unembed(weights, spec, stream.x).log_softmax(-1)
        return -(logs_BTV.exp() * logs_BTV).sum(-1).cpu().numpy()


def mlx_entropy(weights: dict[str, Any], spec: Spec, stream: Stream) -> np.ndarray:
    """The same."""
    import mlx.core as mx
    from loopkit_mlx.model import unembed

    logits_BTV = unembed(weights, spec, stream.x)
    logs_BTV = logits_BTV - mx.logsumexp(logits_BTV, axis=-1, keepdims=True)
    return np.array(-(mx.exp(logs_BTV) * logs_BTV).sum(-1))


OPERATIONS: dict[str, Callable[[dict[str, Any], Spec, Stream], np.ndarray]] = {"torch": torch_entropy, "mlx": mlx_entropy}


def entropy(model: Model, ids: np.ndarray, plan: str | None = None) -> np.ndarray:
    """Entropy in nats of the token after each position, float32 ``[B, T]``."""
    stream, _ = model.advance(model.enter(ids), model.run(plan))
    return OPERATIONS[model.backend.name](model.weights, model.spec, stream)


def main() -> None:
    """The entropies on every backend that is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--plan")
    asked = parser.parse_args()
    found = []
    for name in available():
        model = loopkit.load(asked.checkpoint, name, dtype="float32")
        ids = np.array([model.prompt_ids("The river rose in the night, and in the morning the bridge was gone.")])
        found.append(entropy(model, ids, asked.plan))
        shown = " ".join(f"{value:.2f}" for value in found[-1][0, :8])
        print(f"{name}: plan {model.text(asked.plan)}, mean {found[-1].mean():.4f} nats, the first positions {shown}")
    print(f"largest difference {max(np.abs(each - found[0]).max() for each in found):.1e}")


if __name__ == "__main__":
    main()
