"""An open checkpoint on one backend: all that front ends may touch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loopkit import backend as backends
from loopkit.backend import Backend, Weights
from loopkit.checkpoint.counted import Counted
from loopkit.checkpoint.folder import Checkpoint, open_folder
from loopkit.checkpoint.tokenizer import Tokenizer, open_tokenizer
from loopkit.errors import LoopkitError, UsageError
from loopkit.inference import adaptive, passes, scoring
from loopkit.inference.adaptive import Step, parse_loop
from loopkit.inference.compare import Comparison, candidates, entropy, kl_divergence, log_softmax
from loopkit.inference.modes import canonical, parse_run
from loopkit.inference.scoring import MEMORY, Request, Score
from loopkit.inference.trie import run_all
from loopkit.plan import Plan, check_plan, format_plan, key_value_slots
from loopkit.progress import Progress
from loopkit.run import Rows, Run, Stream, Trace
from loopkit.sampling import Sampling
from loopkit.spec import Spec


def load(
    path: str | Path,
    backend: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> "Model":
    """Open a checkpoint folder on a backend.

    ``backend`` is auto, mlx or torch; ``device`` cuda, mps, metal or cpu, the best there is by default; ``dtype`` float32,
    float16 or bfloat16, by default float32 on a CPU and bfloat16 on an accelerator. ``progress`` hears how many bytes of all have been
    read. Raises LoopkitError.
    """
    checkpoint = open_folder(path)
    chosen = backends.load(backend)
    device = backends.choose_device(chosen, device)
    arrays = Counted(checkpoint.arrays, progress) if progress else checkpoint.arrays
    weights = chosen.put(arrays, device, dtype or chosen.default_dtype(device))
    return Model(checkpoint, chosen, device, weights)


Depth = Plan | str | Run | None  # what to run: a plan, its text (with a mode, 8:12x2@damped, if need be), a Run, or the model's own


class Model:
    """A model on a device. ``plan`` arguments take a Plan, its text or a Run, and default to the model's own plan.

    Ids are integers ``[B, T]``; a single sequence ``[T]`` counts as a batch of one.
    """

    def __init__(self, checkpoint: Checkpoint, backend: Backend, device: str, weights: Weights) -> None:
        self.checkpoint = checkpoint
        self.backend = backend
        self.device = device
        self.weights = weights
        self._tokenizer: Tokenizer | None = None

    @property
    def spec(self) -> Spec:
        """The model's sizes."""
        return self.checkpoint.spec

    @property
    def plan(self) -> Plan:
        """The model's own plan."""
        return self.spec.plan

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer. Raises LoopkitError where it has none."""
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self.checkpoint.path)
        return self._tokenizer

    def run(self, plan: Depth = None) -> Run:
        """The pass that ``plan`` asks for. Raises UsageError where it does not fit."""
        if isinstance(plan, str):
            return parse_run(plan, self.plan)
        if isinstance(plan, Run):
            return replace(plan, plan=check_plan(plan.plan, self.spec.n_layers))
        return Run(self.plan if plan is None else check_plan(tuple(plan), self.spec.n_layers))

    def resolve(self, plan: Depth = None) -> Plan:
        """The order in which the layers run. Raises UsageError where it does not fit."""
        return self.run(plan).plan

    def text(self, plan: Plan | str | None = None) -> str:
        """A short text of a plan on this model."""
        return canonical(plan, self.plan) if isinstance(plan, str) else format_plan(self.resolve(plan), self.plan)

    def prompt_ids(self, text: str, chat: bool = False) -> list[int]:
        """Token ids of a prompt, as a user's message in the model's chat format if ``chat``. Raises UsageError if it is empty."""
        ids = self.tokenizer.encode(self.tokenizer.chat(text), special=False) if chat else self.tokenizer.encode(text)
        if not ids:
            raise UsageError("the text is empty; give at least one token")
        return ids

    def room(self, tokens: int) -> int:
        """How many new tokens the model's positions allow after ``tokens``; the last one needs none."""
        return self.spec.max_position_embeddings - tokens + 1

    def logits(self, ids: np.ndarray, plan: Depth = None) -> np.ndarray:
        """Logits, float32 ``[B, T, V]``."""
        return passes.forward(self.backend, self.weights, self.spec, self._ids(ids), self.run(plan))[0]

    def trace(self, ids: np.ndarray, plan: Depth = None) -> Trace:
        """Logits, the residual stream and what each sublayer added, by visit (see Trace)."""
        run = replace(self.run(plan), capture=True)
        logits, kept = passes.forward(self.backend, self.weights, self.spec, self._ids(ids), run)
        return Trace(run.plan, logits, kept["resid"], kept["attn"], kept["mlp"])

    def nll(self, ids: np.ndarray, plan: Depth = None, documents: np.ndarray | None = None) -> np.ndarray:
        """Negative log-likelihood in nats of each id after the first, float32 ``[B, T - 1]``.

        Where ``documents``, int ``[B, T]`` from 0, numbers them, a position sees its own document only.
        """
        ids = self._ids(ids)
        if ids.shape[1] < 2:
            raise UsageError("the likelihood of a text needs at least two tokens")
        return passes.nll(self.backend, self.weights, self.spec, ids, self.run(plan), documents)

    def score(self, requests: Sequence[Request], plans: Sequence[Depth] = (None,), memory: int = MEMORY) -> Iterator[list[Score]]:
        """Log-likelihoods of continuations under every plan, a batch of requests at a time, longest first.

        Prompts run once for all their options, and what plans share at their beginning once for all of them, with about ``memory``
        bytes for streams and activations. Raises LoopkitError where a request is longer than the model's positions.
        """
        for request in requests:
            self._ids(np.array([*request.prompt, *max(request.options, key=len)[:-1]]))
        return scoring.score(self.backend, self.weights, self.spec, requests, [self.run(plan) for plan in plans], memory)

    def enter(self, ids: np.ndarray) -> Stream:
        """The stream before the first visit."""
        return self.backend.enter(self.weights, self.spec, Rows(self._ids(ids)))

    def advance(self, stream: Stream, run: Run) -> tuple[Stream, dict[str, np.ndarray]]:
        """The stream after the run's visits, few or many, and what it captures: resid, attn, mlp by visit (see Trace)."""
        return self.backend.advance(self.weights, self.spec, stream, run)

    def advance_all(self, stream: Stream, plans: Sequence[Depth]) -> Iterator[tuple[int, Stream]]:
        """The index of each plan and the stream at its end, as they come; what plans share at their beginning runs once."""
        return run_all(lambda each, run: self.advance(each, run)[0], stream, [self.run(plan) for plan in plans])

    def hidden(self, stream: Stream) -> np.ndarray:
        """The stream as it is, float32 ``[B, T, D]``."""
        return self.backend.hidden(stream)

    def unembed(self, stream: Stream, where: np.ndarray) -> np.ndarray:
        """Final norm and head at flat positions ``[N]`` (row times T plus place): logits float32 ``[N, V]``."""
        return self.backend.logits(self.weights, self.spec, stream, where)

    def compare(self, ids: list[int], plan: Plan | str, top: int = 10) -> Comparison:
        """This model's own plan beside another one after the same text; ``top`` next tokens of either."""
        logs: dict[int, np.ndarray] = {}
        nll: dict[int, float | None] = {}
        array = self._ids(np.asarray(ids))
        for index, stream in self.advance_all(self.enter(array), (None, plan)):
            logs[index] = log_softmax(self.unembed(stream, np.array([len(ids) - 1]))[0])
            nll[index] = self._mean_nll(stream, array[0])
        base_log, looped_log = logs[0], logs[1]
        return Comparison(
            base_plan=self.text(),
            looped_plan=self.text(plan),
            tokens=len(ids),
            candidates=candidates(base_log, looped_log, self.tokenizer.decode, top),
            kl=kl_divergence(base_log, looped_log),
            entropy_base=entropy(base_log),
            entropy_looped=entropy(looped_log),
            nll_base=nll[0],
            nll_looped=nll[1],
        )

    def generate(
        self,
        prompt: str | list[int],
        plan: Depth = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        kv_slots: int | None = None,
    ) -> Iterator[str]:
        """Pieces of text that continue ``prompt``, as they come; ends at an end-of-text token, or where the model's positions do.

        The same seed gives the same tokens on every backend, as far as their logits agree.
        """
        ids = self.prompt_ids(prompt) if isinstance(prompt, str) else prompt
        return self.pieces(self.generate_ids(ids, plan, max_tokens, temperature, seed, kv_slots))

    def pieces(self, tokens: Iterable[int]) -> Iterator[str]:
        """Text of tokens as they come, up to an end-of-text token."""
        decoder = self.tokenizer.streaming_decoder()
        for token in tokens:
            if token in self.tokenizer.end_ids:
                break
            piece = decoder(token)
            if piece:
                yield piece

    def generate_until(
        self, prompts: np.ndarray, plan: str, until: str, max_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[Step]:
        """New tokens after ``prompts [B, T]``, for each of which the block that ``plan`` repeats runs until it settles.

        A plan 8:12x8 allows 8 times. ``until`` is a rule such as ``kl<1e-3``, ``same-top1`` or ``latent<0.03`` (see
        loopkit.inference.adaptive). Every row gets what it would get alone, and ends where the model's positions do. Raises UsageError.
        """
        loop, ids = parse_loop(plan, self.plan, until), self._ids(prompts)
        if max_tokens < 1:
            raise UsageError(f"max_tokens must be 1 or more, got {max_tokens}")
        most = min(max_tokens, self.room(ids.shape[1]))
        decoding = self.backend.decoding(self.weights, self.spec, len(loop.plan), len(ids), ids.shape[1] + most)
        sampling = Sampling(temperature, seed)
        return adaptive.generate(self.backend, self.weights, self.spec, decoding, loop, ids, most, sampling)

    def generate_ids(
        self,
        prompt: list[int],
        plan: Depth = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        kv_slots: int | None = None,
    ) -> Iterator[int]:
        """New token ids after ``prompt``, without regard to end-of-text tokens, until the model's positions are used up.

        ``kv_slots`` bounds the key-value slots a layer has, one a visit by default. With fewer, a later visit takes over an earlier
        one's, and earlier positions are seen as that later visit left them: less memory, other tokens.
        """
        run, sampling = self.run(plan), Sampling(temperature, seed)
        ids = [int(token) for token in self._ids(np.asarray(prompt))[0]]
        if max_tokens < 1:
            raise UsageError(f"max_tokens must be 1 or more, got {max_tokens}")
        slots, most = key_value_slots(run.plan, kv_slots), min(max_tokens, self.room(len(ids)))
        return self.backend.stream(self.weights, self.spec, ids, run, slots, most, sampling)

    def _mean_nll(self, stream: Stream, ids: np.ndarray) -> float | None:
        if len(ids) < 2:
            return None
        return -float(self.backend.log_probs(self.weights, self.spec, stream, np.arange(len(ids) - 1), ids[1:])[0].mean())

    def _ids(self, ids: np.ndarray) -> np.ndarray:
        ids = np.atleast_2d(np.asarray(ids))
        if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu":
            raise UsageError(f"ids must be integers [B, T] with at least one token, got {ids.dtype} {list(ids.shape)}")
        if ids.min() < 0 or ids.max() >= self.spec.vocab_size:
            bad = ids.max() if ids.max() >= self.spec.vocab_size else ids.min()
            raise UsageError(f"token {bad} is outside the vocabulary of {self.spec.vocab_size}")
        if ids.shape[1] > self.spec.max_position_embeddings:
            raise LoopkitError(
                f"{ids.shape[1]} tokens do not fit the model's {self.spec.max_position_embeddings} positions; shorten the text"
            )
        return ids
