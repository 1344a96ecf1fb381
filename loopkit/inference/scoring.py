"""Log-likelihoods of continuations under many plans at once.

The options of one prompt fork from it, so the prompt runs once for all of them; plans that begin alike run once as far as they do;
a plan's last visit computes only the positions that are scored; prompts of about one length share a batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from loopkit.backend import Backend, Weights
from loopkit.inference.trie import run_up_to_last
from loopkit.run import Rows, Run, Stream
from loopkit.spec import Spec

MEMORY = 1 << 30  # bytes


@dataclass(frozen=True)
class Request:
    """Token ids of a prompt (at least one) and of its continuations (at least one token each)."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        assert self.prompt and self.options and all(self.options)

    @property
    def length(self) -> int:
        """Positions that run: the prompt and all of every option but its last token."""
        return len(self.prompt) + sum(len(option) - 1 for option in self.options)


@dataclass(frozen=True)
class Score:
    """What one request got: summed log-likelihoods in nats, float64 ``[runs, options]``, and whether greedy decoding would write
    the option, bool ``[runs, options]``."""

    request: int
    log_likelihood: np.ndarray
    greedy: np.ndarray


def score(
    backend: Backend, weights: Weights, spec: Spec, requests: Sequence[Request], runs: Sequence[Run], memory: int = MEMORY
) -> Iterator[list[Score]]:
    """Scores of all requests, a batch at a time, longest first, with about ``memory`` bytes for streams and activations."""

    def advance(stream: Stream, run: Run) -> Stream:
        return backend.advance(weights, spec, stream, run)[0]

    for batch in batches([request.length for request in requests], batch_tokens(spec, len(runs), memory)):
        rows, where, targets, owner = _rows([requests[i] for i in batch])
        found = np.empty((len(runs), len(where)))
        top = np.empty((len(runs), len(where)), bool)
        for ends, stream, last in run_up_to_last(advance, backend.enter(weights, spec, rows), runs):
            found[ends], top[ends] = backend.log_probs(weights, spec, stream, where, targets, last)
        yield list(_scores(batch, owner, found, top))


def batch_tokens(spec: Spec, runs: int, memory: int) -> int:
    """How many tokens to run at once: numbers of a token's size that live together, and the logits of one chunk."""
    waiting = math.log2(runs) + 2
    numbers = spec.hidden_size * (waiting + 6) + 4 * spec.intermediate_size + 4 * spec.num_attention_heads * spec.head_dim
    logits = 3 * 256 * spec.vocab_size
    return max(1, int((memory / 4 - logits) / numbers))


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of about one length, longest first; each padded to at most ``tokens``, or a single one."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if found and lengths[found[-1][0]] * (len(found[-1]) + 1) <= tokens and lengths[i] > 0.8 * lengths[found[-1][0]]:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def _rows(requests: Sequence[Request]) -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray]:
    """The requests side by side; flat places and targets of all scored tokens; and for each its (request, option)."""
    width = max(request.length for request in requests)
    ids, branch = np.zeros((len(requests), width), np.int64), np.full((len(requests), width), -1)
    where: list[int] = []
    targets: list[int] = []
    owner: list[tuple[int, int]] = []
    for row, request in enumerate(requests):
        at = len(request.prompt)
        ids[row, :at], branch[row, :at] = request.prompt, 0
        for number, option in enumerate(request.options):
            size = len(option) - 1
            ids[row, at : at + size] = option[:-1]
            branch[row, at : at + size] = number + 1 if len(request.options) > 1 else 0
            where += [row * width + place for place in (len(request.prompt) - 1, *range(at, at + size))]
            targets += option
            owner += [(row, number)] * len(option)
            at += size
    forks = bool((branch > 0).any())
    return Rows(ids, branch if forks else None), np.array(where), np.array(targets), np.array(owner)


def _scores(batch: Sequence[int], owner: np.ndarray, found: np.ndarray, top: np.ndarray) -> Iterator[Score]:
    for row, request in enumerate(batch):
        mine = owner[:, 0] == row
        options = owner[mine, 1]
        starts = np.flatnonzero(np.r_[True, options[1:] != options[:-1]])
        yield Score(request, np.add.reduceat(found[:, mine], starts, axis=1), np.logical_and.reduceat(top[:, mine], starts, axis=1))
