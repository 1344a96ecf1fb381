"""An open checkpoint on one backend: all that front ends may touch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loopkit import backend as backends
from loopkit.backend import Backend, Weights
from loopkit.checkpoint.folder import Checkpoint, open_folder
from loopkit.checkpoint.tokenizer import Tokenizer, open_tokenizer
from loopkit.errors import LoopkitError, UsageError
from loopkit.inference.compare import Comparison, candidates, entropy, kl_divergence, log_softmax
from loopkit.plan import Plan, check_plan, format_plan, parse_plan
from loopkit.run import Run, Trace
from loopkit.sampling import Sampling
from loopkit.spec import Spec


def load(path: str | Path, backend: str = "auto", device: str | None = None, dtype: str | None = None) -> "Model":
    """Open a checkpoint folder on a backend.

    ``backend`` is auto, mlx or torch; ``device`` cuda, mps, metal or cpu, the best there is by default; ``dtype`` float32,
    float16 or bfloat16, by default float32 on a CPU and bfloat16 on an accelerator. Raises LoopkitError.
    """
    checkpoint = open_folder(path)
    chosen = backends.load(backend)
    device = backends.choose_device(chosen, device)
    weights = chosen.put(checkpoint.arrays, device, dtype or chosen.default_dtype(device))
    return Model(checkpoint, chosen, device, weights)


class Model:
    """A model on a device. ``plan`` arguments take a Plan or its text and default to the model's own plan.

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

    def resolve(self, plan: Plan | str | None) -> Plan:
        """A plan from a plan, its text, or None for the model's own. Raises UsageError where it does not fit."""
        if plan is None:
            return self.plan
        return parse_plan(plan, self.plan) if isinstance(plan, str) else check_plan(tuple(plan), self.spec.n_layers)

    def prompt_ids(self, text: str, chat: bool = False) -> list[int]:
        """Token ids of a prompt, as a user's message in the model's chat format if ``chat``. Raises UsageError if it is empty."""
        ids = self.tokenizer.encode(self.tokenizer.chat(text), special=False) if chat else self.tokenizer.encode(text)
        if not ids:
            raise UsageError("the text is empty; give at least one token")
        return ids

    def logits(self, ids: np.ndarray, plan: Plan | str | None = None) -> np.ndarray:
        """Logits, float32 ``[B, T, V]``."""
        return self.backend.forward(self.weights, self.spec, self._ids(ids), Run(self.resolve(plan)))[0]

    def trace(self, ids: np.ndarray, plan: Plan | str | None = None, run: Run | None = None) -> Trace:
        """Logits, the residual stream and what each sublayer added, by visit (see Trace). ``run`` says more than a plan can."""
        run = run or Run(self.resolve(plan), capture=True)
        logits, kept = self.backend.forward(self.weights, self.spec, self._ids(ids), run)
        return Trace(run.plan, logits, kept["resid"], kept["attn"], kept["mlp"])

    def nll(self, ids: np.ndarray, plan: Plan | str | None = None) -> np.ndarray:
        """Negative log-likelihood in nats of each id after the first, float32 ``[B, T - 1]``."""
        ids = self._ids(ids)
        if ids.shape[1] < 2:
            raise UsageError("the likelihood of a text needs at least two tokens")
        return self.backend.nll(self.weights, self.spec, ids, Run(self.resolve(plan)))

    def compare(self, ids: list[int], plan: Plan | str, top: int = 10) -> Comparison:
        """This model's own plan beside another one after the same text; ``top`` next tokens of either."""
        looped, array = self.resolve(plan), self._ids(np.asarray(ids))
        base_log, looped_log = (log_softmax(self.logits(array, which)[0, -1]) for which in (self.plan, looped))
        nll = [float(self.nll(array, which).mean()) if len(ids) > 1 else None for which in (self.plan, looped)]
        return Comparison(
            base_plan=format_plan(self.plan, self.plan),
            looped_plan=format_plan(looped, self.plan),
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
        plan: Plan | str | None = None,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str]:
        """Pieces of text that continue ``prompt``, as they come; ends at an end-of-text token.

        The same seed gives the same tokens on every backend, as far as their logits agree.
        """
        ids = self.prompt_ids(prompt) if isinstance(prompt, str) else prompt
        decoder = self.tokenizer.streaming_decoder()
        for token in self.generate_ids(ids, plan, max_tokens, temperature, seed):
            if token in self.tokenizer.end_ids:
                break
            piece = decoder(token)
            if piece:
                yield piece

    def generate_ids(
        self, prompt: list[int], plan: Plan | str | None = None, max_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[int]:
        """New token ids after ``prompt``, without regard to end-of-text tokens."""
        resolved, sampling = self.resolve(plan), Sampling(temperature, seed)
        ids = [int(token) for token in self._ids(np.asarray(prompt))[0]]
        if max_tokens < 1:
            raise UsageError(f"max_tokens must be 1 or more, got {max_tokens}")
        return self.backend.stream(self.weights, self.spec, ids, resolved, max_tokens, sampling)

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
