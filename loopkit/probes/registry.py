"""Probes by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from types import MappingProxyType

from loopkit.errors import UsageError
from loopkit.probes.edits import Repeat, Skip, Swap, repeat, skip, swap
from loopkit.probes.effects import DepthScore, FutureEffects, LocalEffects, depth_score, future_effects, local_effects
from loopkit.probes.exits import LogitLens, Top5Overlap, logit_lens, top5_overlap
from loopkit.probes.fixed_point import FixedPoint, fixed_point
from loopkit.probes.lens import TunedLens
from loopkit.probes.lens_training import tuned_lens
from loopkit.probes.norms import ResidualNorms, Sublayers, residual_norms, sublayers
from loopkit.probes.result import Result
from loopkit.probes.similarity import BlockSimilarity, block_similarity


@dataclass(frozen=True)
class Probe:
    """``run(model, ids, plan, **options)`` gives a result of ``kind``; ``about`` says in a sentence what it shows."""

    kind: type[Result]
    run: Callable[..., Result]
    about: str

    @property
    def name(self) -> str:
        """Its name on the command line."""
        return self.kind.probe

    @property
    def asks(self) -> bool:
        """Whether it asks questions where its source has some."""
        return "questions" in signature(self.run).parameters


_ALL = (
    Probe(DepthScore, depth_score, "How deep the visits lie that later predictions depend on: change of the output when one is removed."),
    Probe(LogitLens, logit_lens, "What each visit's stream says through the final norm and head, against the final distribution."),
    Probe(TunedLens, tuned_lens, "The same through a trained affine translator a visit, and early-exit accuracy on a primitive."),
    Probe(Top5Overlap, top5_overlap, "Share of the final top 5 tokens already among the top 5 of an early exit."),
    Probe(ResidualNorms, residual_norms, "Norm of the residual stream by visit."),
    Probe(Sublayers, sublayers, "What attention and MLP add, over the norm of the stream they read, and whether that has a period."),
    Probe(
        LocalEffects,
        local_effects,
        "Change of what a visit adds to later positions when another's contribution is taken from its input alone.",
    ),
    Probe(FutureEffects, future_effects, "Change of what a visit adds to later positions when an earlier visit is removed, propagated."),
    Probe(Swap, swap, "Likelihood and accuracy after swapping neighbouring visits or blocks."),
    Probe(Skip, skip, "Likelihood and accuracy after removing each visit or block."),
    Probe(Repeat, repeat, "Likelihood and accuracy when each block runs several times."),
    Probe(BlockSimilarity, block_similarity, "Cosine similarity of weights between layers and of updates between visits."),
    Probe(FixedPoint, fixed_point, "How stream and answers move over the repeats of a looped block: convergence, cycle or drift."),
)
PROBES: Mapping[str, Probe] = MappingProxyType({probe.name: probe for probe in _ALL})


def find_probe(name: str) -> Probe:
    """The probe of a name. Raises UsageError that offers the nearest."""
    if name not in PROBES:
        near = get_close_matches(name, PROBES, n=3, cutoff=0.4) or list(PROBES)
        raise UsageError(f"no probe is called {name!r}; nearest: {', '.join(near)}")
    return PROBES[name]
