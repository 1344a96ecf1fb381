"""Decoding with mlx-lm's own loop, on one group of caches a layer that holds one cache a visit."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from loopkit.plan import Plan
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec
from loopkit_mlx import model
from loopkit_mlx.memory import Weights


class Looped:
    """A model as mlx-lm calls it: ids ``[B, T]`` and caches in, logits ``[B, T, V]`` out."""

    def __init__(self, weights: Weights, spec: Spec, run: Run, slots: tuple[int, ...]) -> None:
        self.weights, self.spec, self.run = weights, spec, run
        self.places = _places(run.plan, slots)

    def __call__(self, ids_BT: mx.array, cache: list[Any]) -> mx.array:
        x_BTD = model.embed(self.weights, self.spec, ids_BT)
        slots = [cache[layer][index] for layer, index in self.places]
        x_BTD = model.visits(self.weights, self.spec, x_BTD, self.run, model.View(), slots)
        return model.unembed(self.weights, self.spec, x_BTD)

    def make_cache(self) -> list[Any]:
        """One CacheList a layer with a KVCache for each of its slots, none for a layer that the plan leaves out."""
        from mlx_lm.models.cache import CacheList, KVCache  # takes seconds to import

        counts = [len({place for place in self.places if place[0] == layer}) for layer in range(self.spec.n_layers)]
        return [CacheList(*(KVCache() for _ in range(count))) for count in counts]


def _places(plan: Plan, slots: tuple[int, ...]) -> list[tuple[int, int]]:
    """For each visit its layer and which of that layer's slots it uses, numbered in the order of their first use."""
    own: dict[int, list[int]] = {}
    for layer, slot in zip(plan, slots, strict=True):
        if slot not in own.setdefault(layer, []):
            own[layer].append(slot)
    return [(layer, own[layer].index(slot)) for layer, slot in zip(plan, slots, strict=True)]


class Sampler:
    """Draws token number 0, 1, 2, ... as ``sampling`` says.

    Log-probabilities differ from logits by a constant, so the largest is the same.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling, self.step = sampling, 0

    def __call__(self, logprobs_BV: mx.array) -> mx.array:
        if self.sampling.temperature > 0:
            logprobs_BV = logprobs_BV + mx.array(self.sampling.noise(self.step, logprobs_BV.shape[-1]))
        self.step += 1
        return logprobs_BV.argmax(-1)


def stream(
    weights: Weights, spec: Spec, prompt: list[int], run: Run, slots: tuple[int, ...], limit: int, sampling: Sampling
) -> Iterator[int]:
    """See loopkit.backend.Backend.stream. Take all tokens in one thread: MLX's streams belong to threads."""
    from mlx_lm.generate import generate_step

    looped = Looped(weights, spec, run, slots)
    here = mx.default_stream(mx.default_device())  # mlx-lm's own was made for the device that was the default when it was imported
    whole = {"prefill_step_size": len(prompt)} if len(set(slots)) < len(slots) else {}  # a second piece would see what is overwritten
    given = {"max_tokens": limit, "sampler": Sampler(sampling), "prompt_cache": looped.make_cache(), **whole}
    steps = generate_step(mx.array(prompt), looped, here, **given)
    for token, _ in steps:
        yield token
