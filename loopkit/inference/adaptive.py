"""Adaptive looping: for each new token a block runs again until what it does has settled.

What "settled" means after pass k (the field's defaults: Huginn, arXiv 2502.05171, section 6):

- ``kl<1e-3``: KL(p_(k-1) || p_k) of the next-token distributions, in nats, is below 1e-3;
- ``same-top1``: both have the same likeliest token;
- ``latent<0.03``: the stream s after the block has moved by ||s_k - s_(k-1)|| / ||s_k|| < 0.03, s_0 being what enters the block.

So kl and same-top1 run the block at least twice, latent at least once. Each pass has key-value slots of its own; a token that left
after r passes leaves in the slots of the passes that it did not run what its r-th pass wrote. All of a prompt but its last token
runs the block as often as it may.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from loopkit.backend import Backend, Decoding, Weights
from loopkit.errors import UsageError
from loopkit.inference.compare import log_softmax
from loopkit.plan import LISTING, Plan, parse_repeats, repeat
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

Criterion = Literal["kl", "same-top1", "latent"]
EXAMPLES = "examples: kl<1e-3, same-top1, latent<0.03"


@dataclass(frozen=True)
class Until:
    """When a block has run often enough: its criterion falls below ``threshold``. same-top1 counts 1 for a change and 0 for none."""

    criterion: Criterion
    threshold: float = 0.5

    def __str__(self) -> str:
        return self.criterion if self.criterion == "same-top1" else f"{self.criterion}<{self.threshold:g}"


@dataclass(frozen=True)
class Loop:
    """The layers before, in and after a block that runs up to ``most`` times."""

    before: Plan
    block: Plan
    after: Plan
    most: int
    until: Until

    @property
    def plan(self) -> Plan:
        """All passes: one key-value slot for each of its visits."""
        return self.before + self.block * self.most + self.after

    def first(self, number: int) -> int:
        """The first visit of pass 1, 2, ..., or of what comes after the last one."""
        return len(self.before) + (number - 1) * len(self.block)

    def source(self, counts: np.ndarray) -> np.ndarray:
        """From which slot each takes over after tokens that ran the block ``counts [B]`` times: int ``[slots, B]``."""
        slots = np.repeat(np.arange(len(self.plan))[:, None], len(counts), 1)
        for number in range(1, self.most + 1):
            here = slice(self.first(number), self.first(number + 1))
            slots[here] -= len(self.block) * np.maximum(number - counts, 0)
        return slots


@dataclass(frozen=True)
class Step:
    """One new token a row: ids and passes, int ``[B]``; the criterion after each pass, ``[passes, B]``, NaN where it was not needed."""

    tokens: np.ndarray
    counts: np.ndarray
    values: np.ndarray


def parse_until(text: str) -> Until:
    """``kl<1e-3``, ``same-top1`` or ``latent<0.03``. Raises UsageError."""
    name, less, number = (part.strip() for part in text.partition("<"))
    criterion = next((each for each in get_args(Criterion) if each == name), None)
    if criterion is None or bool(less) == (criterion == "same-top1"):
        raise UsageError(f"no stopping rule {text!r}; {EXAMPLES}")
    if not less:
        return Until(criterion)
    if not re.fullmatch(r"\d*\.?\d+(e[+-]?\d+)?", number) or float(number) <= 0:
        raise UsageError(f"the threshold of {text!r} must be a number above 0; {EXAMPLES}")
    return Until(criterion, float(number))


def parse_loop(plan: str, base: Plan, until: str | Until) -> Loop:
    """The block that a plan text such as ``8:12x8`` repeats, up to 8 times. Raises UsageError where it is not one plain block."""
    if ":" not in plan or plan.startswith(LISTING) or "@" in plan or "," in plan:
        raise UsageError(f"--until needs one block and the most it may run, plainly, got {plan!r}; e.g. 8:12x8")
    (block,) = parse_repeats(plan)
    repeat(base, *block)  # does it fit?
    rule = parse_until(until) if isinstance(until, str) else until
    return Loop(base[: block.start], base[block.start : block.stop], base[block.stop :], block.times, rule)


def generate(
    backend: Backend, weights: Weights, spec: Spec, decoding: Decoding, loop: Loop, prompts: np.ndarray, limit: int, sampling: Sampling
) -> Iterator[Step]:
    """Up to ``limit`` new tokens after each of ``prompts [B, T]``, all of one length; every row gets what it would get alone.

    ``decoding`` is a fresh one with ``len(loop.plan)`` slots and room for ``T + limit`` tokens. Every row draws with the same noise.
    """
    if prompts.shape[1] > 1:
        head = prompts[:, :-1]
        decoding.advance(decoding.enter(head), Run(loop.plan), 0)
        decoding.keep(loop.source(np.full(len(head), loop.most)))
    ids = prompts[:, -1:]
    for number in range(limit):
        logits, counts, values = _settle(backend, weights, spec, decoding, loop, ids)
        if sampling.temperature > 0:
            logits = logits + sampling.noise(number, logits.shape[-1])
        tokens = logits.argmax(-1)
        yield Step(tokens, counts, values)
        ids = tokens[:, None]


def _settle(
    backend: Backend, weights: Weights, spec: Spec, decoding: Decoding, loop: Loop, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits ``[B, V]`` of the next token, how often each row ran the block ``[B]``, and the criterion ``[passes, B]``."""
    rows = np.arange(len(ids))
    active, counts, values = np.ones(len(ids), bool), np.zeros(len(ids), int), []
    logits = np.zeros((len(ids), spec.vocab_size), np.float32)
    stream = decoding.advance(decoding.enter(ids), Run(loop.before), 0)
    now = backend.hidden(stream)
    for number in range(1, loop.most + 1):
        before, logits_before = now, logits
        stream = decoding.advance(stream, _from(before, loop.block), loop.first(number))
        now = np.where(active[:, None, None], backend.hidden(stream), before)
        counts[active] = number
        moved = _moved(before, now)
        if loop.until.criterion != "latent" or number == loop.most or (moved < loop.until.threshold)[active].any():
            end = decoding.advance(stream, _from(now, loop.after), loop.first(loop.most + 1))
            logits = np.where(active[:, None], backend.logits(weights, spec, end, rows), logits)
        value = moved if loop.until.criterion == "latent" else _changed(loop.until.criterion, number, logits_before, logits)
        values.append(np.where(active, value, np.nan))
        active = active & ~(value < loop.until.threshold)
        if not active.any():
            break
    decoding.keep(loop.source(counts))
    return logits, counts, np.array(values)


def _from(x: np.ndarray, layers: Plan) -> Run:
    """A run of the layers that starts with the stream ``x [B, 1, D]``."""
    return Run(layers, overwrite={0: x})


def _moved(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """How far the stream has gone, relative to its length: ``[B]``."""
    return np.asarray(np.linalg.norm(now - before, axis=-1)[:, 0] / np.linalg.norm(now, axis=-1)[:, 0])


def _changed(criterion: Criterion, number: int, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """KL(before || now) of the rows, or whether their likeliest tokens differ: ``[B]``; infinite after the first pass."""
    if number == 1:
        return np.full(len(now), np.inf)
    if criterion == "same-top1":
        return np.asarray(before.argmax(-1) != now.argmax(-1), float)
    p, q = log_softmax(before), log_softmax(now)
    return np.asarray((np.exp(p) * (p - q)).sum(-1))
