"""The tuned lens (Belrose et al. 2023): an affine translator a visit, trained so that an early exit says what the model says.

h -> h + W h + b for the stream h that enters a visit, then the model's own final norm and head. W and b begin at zero, so weight decay
pulls to the logit lens. On disk: lens.safetensors and config.json, and the tuned-lens project's own config.json and params.pt.
"""

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from loopkit.checkpoint import tensors
from loopkit.checkpoint.atomic import new_folder
from loopkit.checkpoint.folder import read_json
from loopkit.data.tasks import Question
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.statistics import wilson
from loopkit.plan import Plan
from loopkit.probes.common import Array, order, prompts, watched
from loopkit.probes.exits import DEPTH, Bare, curve, exit_answers, exits
from loopkit.probes.result import Chart, Curve, Headline, Result
from loopkit.progress import Progress, quiet
from loopkit.session import Depth, Model


@dataclass(frozen=True, eq=False)
class Lens:
    """``weight [visits, D, D]`` and ``bias [visits, D]`` for the streams that enter each visit of ``plan``, the hash of the unembedding
    they were made for, and how many positions they were trained on."""

    weight: np.ndarray
    bias: np.ndarray
    plan: str
    unembedding: str
    positions: int

    def apply(self, visits: int, x: Array) -> Array:
        """The stream ``[..., D]`` after so many visits, translated."""
        return x + x @ self.weight[visits].T + self.bias[visits]  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class TunedLens(Result):
    """Exits through the lens: ``kl`` and ``overlap [examples, visits + 1]`` as in LogitLens, beside the bare exit's; ``right`` and
    ``bare_right [questions, visits + 1]``: questions answered right; ``positions``: how many the lens was trained on."""

    probe: ClassVar[str] = "tuned-lens"
    positions: int
    kl: np.ndarray
    overlap: np.ndarray
    bare_kl: np.ndarray
    bare_overlap: np.ndarray
    right: np.ndarray
    bare_right: np.ndarray

    @property
    def headline(self) -> Headline:
        """KL over all early exits, tuned and bare, and the accuracy at the end."""
        found: Headline = {
            "mean KL": float(self.kl[:, :-1].mean()),
            "mean KL, logit lens": float(self.bare_kl[:, :-1].mean()),
            "positions trained on": float(self.positions),
        }
        return found | ({"final accuracy": float(self.right[:, -1].mean())} if self.right.size else {})

    @property
    def charts(self) -> tuple[Chart, ...]:
        """KL, overlap, and the paper's figure 2 C: accuracy of the early exit, as it is and over the final one."""
        found: list[Chart] = [
            curve("Tuned lens: KL(final || exit)", "nats", self.kl),
            curve("Tuned lens: top-5 overlap with the final top 5", "share", self.overlap),
        ]
        if self.right.size:
            share = self.right.mean(0)
            limits = np.array([wilson(int(each.sum()), len(each)) for each in self.right.T])
            found.append(Curve("Tuned lens: early-exit accuracy", DEPTH, "share right", share, limits[:, 0], limits[:, 1]))
            found.append(Curve("Tuned lens: early-exit accuracy, normalised", DEPTH, "over the final", share / (share[-1] or np.nan)))
        return tuple(found)


def evaluate_lens(
    model: Model, ids: np.ndarray, lens: Lens, plan: Depth = None, *, questions: Sequence[Question] = (), progress: Progress = quiet
) -> TunedLens:
    """KL, top-5 overlap and accuracy of early exits through a trained lens, beside the bare ones (paper, appendix E).

    ids ``[B, T]`` must not be those that the lens was trained on. Raises UsageError where the lens is of another model or plan.
    """
    visits = order(model, plan)
    check(lens, model, visits)
    found = np.array([[*exits(model, row, visits, lens), *exits(model, row, visits, Bare())] for row in watched(prompts(ids), progress)])
    right, bare = (exit_answers(model, questions, visits, translator) for translator in (lens, Bare()))
    kl, overlap, bare_kl, bare_overlap = found.swapaxes(0, 1)
    return TunedLens(model.text(visits), lens.positions, kl, overlap, bare_kl, bare_overlap, right, bare)


def check(lens: Lens, model: Model, plan: Plan) -> None:
    """Raises UsageError where a lens was made for another unembedding or plan."""
    if lens.unembedding != unembedding_hash(model):
        raise UsageError("this lens was made for another model (its unembedding differs); train one for this model")
    if lens.plan != model.text(plan):
        raise UsageError(
            f"this lens was made for plan {lens.plan}, not {model.text(plan)}; probe with --plan {lens.plan}, or train another"
        )


def unembedding(model: Model) -> Array:
    """The head's matrix, float32 ``[V, D]``. Raises UsageError where it is packed."""
    name = "model.embed_tokens.weight" if model.spec.tie_word_embeddings else "lm_head.weight"
    array = model.checkpoint.arrays[name]
    if array.dtype.kind == "u":
        raise UsageError("a tuned lens needs an unembedding that is not packed; use the checkpoint as it was before --quantize")
    return np.asarray(array, dtype=np.float32)


def unembedding_hash(model: Model) -> str:
    """SHA-256 of the unembedding's float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(unembedding(model)).tobytes()).hexdigest()


def save_lens(lens: Lens, folder: Path, about: dict[str, Any] | None = None, state: dict[str, np.ndarray] | None = None) -> None:
    """Write a lens folder whole, over an older one; ``about`` goes into config.json, ``state`` beside the translators."""
    with new_folder(folder, force=True) as new:
        tensors.write(new / "lens.safetensors", {"weight": lens.weight, "bias": lens.bias, **(state or {})})
        config = {"plan": lens.plan, "unembedding_sha256": lens.unembedding, "trained_positions": lens.positions, **(about or {})}
        (new / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def open_lens(folder: Path) -> Lens:
    """The lens that ``save_lens`` wrote. Raises LoopkitError where there is none."""
    if not (folder / "config.json").exists():
        raise LoopkitError(f"{folder} holds no lens; train one with: loopkit probe tuned-lens CKPT --out DIR, it is then in DIR/CKPT/lens")
    config, arrays = read_json(folder / "config.json"), tensors.read(folder / "lens.safetensors")
    try:
        return Lens(
            np.array(arrays["weight"]), np.array(arrays["bias"]), config["plan"], config["unembedding_sha256"], config["trained_positions"]
        )
    except KeyError as error:
        raise LoopkitError(
            f"{folder} holds no lens ({error} is missing); train it again with: loopkit probe tuned-lens CKPT --out DIR"
        ) from error


@dataclass(frozen=True)
class ProjectConfig:
    """config.json of the tuned-lens project (version 0.2)."""

    base_model_name_or_path: str
    d_model: int
    num_hidden_layers: int
    bias: bool
    base_model_revision: None
    unembed_hash: str
    lens_type: str = "linear_tuned_lens"


def export_lens(lens: Lens, model: Model, folder: Path) -> None:
    """Write config.json and params.pt as the tuned-lens project reads them, a translator for each visit. Needs torch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise LoopkitError("params.pt is torch's own format; install it with: pip install torch") from error
    visits, width = lens.bias.shape
    printed = np.array_str(unembedding(model), precision=1)  # that project's own hash
    config = ProjectConfig(model.checkpoint.path.name, width, visits, True, None, hashlib.sha256(printed.encode()).hexdigest())
    state = {f"{v}.{name}": torch.tensor(each[v]) for v in range(visits) for name, each in (("weight", lens.weight), ("bias", lens.bias))}
    with new_folder(folder, force=True) as new:
        torch.save(state, new / "params.pt")
        (new / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n", encoding="utf-8")
