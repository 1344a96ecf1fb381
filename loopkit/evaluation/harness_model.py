"""The LM evaluation harness's view of a live model. Importing this module imports lm_eval: do so inside functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from loopkit.errors import LoopkitError, UsageError
from loopkit.inference.scoring import MEMORY, Request
from loopkit.progress import Progress, quiet
from loopkit.run import Run
from loopkit.session import Model

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]  # context and continuation

FORKED = 1024  # tokens
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names of one setting, the first one counts
NEUTRAL = {"top_p": 1.0, "top_k": 0, "num_beams": 1, "repetition_penalty": 1.0}  # values that change nothing


class Scores:
    """Log-likelihoods under several runs: what is asked under one is computed for all of them at once.

    ``progress`` is told how many requests are done, of those that have to be computed.
    """

    def __init__(self, model: Model, runs: Sequence[Run], memory: int = MEMORY, progress: Progress = quiet) -> None:
        self.model, self.runs, self.memory, self.progress = model, runs, memory, progress
        self._found: dict[Pair, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, pairs: Sequence[Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each pair the summed log-likelihoods in nats and whether the continuation is greedy, both ``[runs]``."""
        self._compute([pair for pair in dict.fromkeys(pairs) if pair not in self._found])
        return [self._found[pair] for pair in pairs]

    def _compute(self, pairs: Sequence[Pair]) -> None:
        requests, done = _requests(pairs), 0
        self.progress(done, len(pairs))
        for batch in self.model.score(requests, self.runs, self.memory):
            for score in batch:
                request = requests[score.request]
                for column, continuation in enumerate(request.options):
                    self._found[request.prompt, continuation] = score.log_likelihood[:, column], score.greedy[:, column]
                done += len(request.options)
                self.progress(done, len(pairs))


def _requests(pairs: Sequence[Pair]) -> list[Request]:
    """Continuations of one context fork from it, as many as share a row of ``FORKED`` tokens: its attention grows with its square."""
    found: list[Request] = []
    last: dict[Ids, int] = {}
    for context, continuation in pairs:
        at = last.get(context)
        if at is not None and found[at].length + len(continuation) - len(context) <= FORKED:
            found[at] = Request(context, (*found[at].options, continuation))
        else:
            last[context] = len(found)
            found.append(Request(context, (continuation,)))
    return found


@dataclass(frozen=True)
class Generation:
    """How a task wants text continued."""

    until: tuple[str, ...]
    max_tokens: int
    temperature: float


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """One of the runs of ``scores`` as the harness asks it; ``truncated`` counts prompts that lost their beginning.

    Tokens, windows and truncation are those of the harness's own ``hf`` model. It draws no bars: ``scores.progress`` is told instead.
    """

    def __init__(self, scores: Scores, index: int, seed: int = 0) -> None:
        super().__init__()
        self.scores, self.index, self.seed = scores, index, seed
        self.model = scores.model
        self.truncated = 0

    @property
    def max_length(self) -> int:
        """Positions of the model."""
        return self.model.spec.max_position_embeddings

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token. Raises LoopkitError where the tokenizer names none."""
        return self._special("eos_token")

    @property
    def prefix_token_id(self) -> int:
        """What an empty context becomes: the token that begins a text, or else the one that ends it."""
        return self._special("bos_token", "eos_token")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; with None the tokenizer decides what to begin with, unless the text begins with it already."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._prefix)
        return self.model.tokenizer.encode(string, special=add_special_tokens)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations, by the harness's own code without its bar over tokens."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows of the model's length where they are longer."""
        windows = [self._windows(*request.args) for request in requests]
        found = iter(self._loglikelihood_tokens([("", *window) for each in windows for window in each]))
        return [sum(next(found)[0] for _ in each) for each in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first stop string, without it."""
        written: list[str] = []
        self.scores.progress(0, len(requests))
        for number, request in enumerate(requests):
            written.append(self._continue(request.args[0], generation(request.args[1]), self.seed + number))
            self.scores.progress(len(written), len(requests))
        return written

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._fit(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [(float(log[self.index]), bool(greedy[self.index])) for log, greedy in self.scores(pairs)]

    def _fit(self, context: Ids, continuation: Ids) -> Pair:
        """The pair without what does not fit at its beginning; the last token is only predicted and needs no position."""
        room = self.max_length + 1 - len(continuation)
        if not continuation or room < 1:
            raise UsageError(
                f"the task asks for the likelihood of {len(continuation)} tokens; this model can score 1 to {self.max_length} at a time"
            )
        self.truncated += len(context) > room
        return context[-room:], continuation

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        pairs: Iterable[Any] = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return [make_disjoint_window(pair) for pair in pairs]

    def _continue(self, context: str, wanted: Generation, seed: int) -> str:
        ids, room = self.tok_encode(context) or [self.prefix_token_id], self.max_length - wanted.max_tokens
        if room < 1:
            raise UsageError(f"the task asks for {wanted.max_tokens} new tokens, the model has {self.max_length} positions in all")
        self.truncated += len(ids) > room
        tokenizer, new, text = self.model.tokenizer, list[int](), ""
        for token in self.model.generate_ids(ids[-room:], self.scores.runs[self.index], wanted.max_tokens, wanted.temperature, seed):
            if token in tokenizer.end_ids:
                break
            new.append(token)
            text = tokenizer.core.decode(new, skip_special_tokens=True)
            if any(stop in text for stop in wanted.until):
                break
        return text[: min((text.index(stop) for stop in wanted.until if stop in text), default=len(text))]

    @property
    def _prefix(self) -> str:
        return self.model.tokenizer.decode([self.prefix_token_id])

    def _special(self, *names: str) -> int:
        special = self.model.tokenizer.special
        ids = [self.model.tokenizer.core.token_to_id(special[name]) for name in names if name in special]
        if not ids or ids[0] is None:
            raise LoopkitError(f"the tokenizer in {self.model.checkpoint.path} names no {' or '.join(names)}, which the harness needs")
        return int(ids[0])


def generation(settings: dict[str, Any]) -> Generation:
    """A task's ``generation_kwargs``, 256 new tokens and temperature 0 by default. Raises UsageError for what is not supported."""
    left = {name: value for name, value in settings.items() if value is not None and value != NEUTRAL.get(name)}
    until = left.pop("until", ())
    limits = [int(left.pop(name)) for name in LIMITS if name in left]
    temperature = float(left.pop("temperature", 0.0))
    sample = left.pop("do_sample", temperature > 0)
    if left:
        raise UsageError(f"the task sets {', '.join(left)} for generation; loopkit knows until, max_gen_toks, do_sample and temperature")
    if sample and temperature <= 0:
        raise UsageError("the task asks for do_sample without a temperature above 0; set one, e.g. temperature: 0.7")
    stops = (until,) if isinstance(until, str) else tuple(until)
    return Generation(tuple(filter(None, stops)), limits[0] if limits else 256, temperature if sample else 0.0)
