"""Looking inside models: each probe a function ``(model, ids, plan=None, ...)`` of a loopkit.session.Model, numpy out (docs/probes.md)."""

from loopkit.probes.edits import repeat, skip, swap
from loopkit.probes.effects import depth_score, future_effects, local_effects
from loopkit.probes.exits import logit_lens, top5_overlap
from loopkit.probes.fixed_point import fixed_point
from loopkit.probes.lens import Lens, evaluate_lens, export_lens, open_lens, save_lens
from loopkit.probes.lens_training import Budget, train_lens, tuned_lens
from loopkit.probes.norms import residual_norms, sublayers
from loopkit.probes.period import find_period
from loopkit.probes.prompts import Prompts, read_prompts, training_ids
from loopkit.probes.registry import PROBES, find_probe
from loopkit.probes.similarity import block_similarity

__all__ = [
    "PROBES",
    "Budget",
    "Lens",
    "Prompts",
    "block_similarity",
    "depth_score",
    "evaluate_lens",
    "export_lens",
    "find_period",
    "find_probe",
    "fixed_point",
    "future_effects",
    "local_effects",
    "logit_lens",
    "open_lens",
    "read_prompts",
    "repeat",
    "residual_norms",
    "save_lens",
    "skip",
    "sublayers",
    "swap",
    "top5_overlap",
    "train_lens",
    "training_ids",
    "tuned_lens",
]
