"""Write your own probe: one function that reads a trace, one that takes sublayers away, both for any plan on any backend.

    loopkit convert smollm2-135m-instruct smol
    python examples/own_probe.py smol --plan 8:12x2

For each visit it prints how far the stream turns (the angle between what enters and what leaves, degrees, mean over positions) and
what the visit's attention is worth (KL of the next-token distributions with and without it, nats, mean over positions).
"""

import argparse

import numpy as np

import loopkit
from loopkit.inference.compare import log_softmax
from loopkit.session import Model

TEXT = "The river rose in the night, and in the morning the bridge was gone. The children had to walk the long way round to school."


def turns(model: Model, ids: np.ndarray, plan: str | None) -> np.ndarray:
    """Degrees by which each visit turns the stream, ``[visits]``: a probe that only looks."""
    stream = model.trace(ids, plan=plan).resid  # [visits + 1, B, T, D]
    unit = stream / np.linalg.norm(stream, axis=-1, keepdims=True)
    cosine = (unit[:-1] * unit[1:]).sum(-1).clip(-1, 1)
    return np.degrees(np.arccos(cosine)).mean((1, 2))


def worth(model: Model, ids: np.ndarray, plan: str | None) -> np.ndarray:
    """KL(whole || without the visit's attention), ``[visits]``: a probe that takes something away.

    A gate multiplies what a sublayer writes at each position; the first is kept, since models use it as a place to attend to.
    """
    order = model.resolve(plan)
    gate = (np.arange(ids.shape[1]) == 0).astype(np.float32)
    whole = log_softmax(model.logits(ids, plan=order))
    found = []
    for visit in range(len(order)):
        without = log_softmax(model.logits(ids, plan=loopkit.Run(order, gate={(visit, "attention"): gate})))
        found.append((np.exp(whole) * (whole - without)).sum(-1).mean())
    return np.array(found)


def main() -> None:
    """Both probes as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--plan")
    asked = parser.parse_args()
    model = loopkit.load(asked.checkpoint)
    ids = np.array([model.prompt_ids(TEXT)])
    print("visit  layer   turns  attention's worth")
    rows = zip(model.resolve(asked.plan), turns(model, ids, asked.plan), worth(model, ids, asked.plan), strict=True)
    for visit, (layer, turn, value) in enumerate(rows):
        print(f"{visit:5}  {layer:5}  {turn:6.1f}  {value:17.4f}")


if __name__ == "__main__":
    main()
