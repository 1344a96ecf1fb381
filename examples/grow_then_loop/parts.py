"""The paper's figures and tables in its order: what each shows, in words of our own, and what ours is drawn from."""

from collections.abc import Callable
from dataclasses import dataclass

import figures
from summaries import Table

from loopkit.report import Block

PAPER = "From Growing to Looping: A Unified View of Iterative Computation in LLMs (arXiv 2602.16490)"


@dataclass(frozen=True)
class Part:
    """A figure or table of the paper: where it is and what it ``says``, how ours is drawn, and the ``results`` that it needs."""

    name: str
    says: str
    draw: Callable[[Table], list[Block]]
    results: tuple[str, ...]


PARTS = (
    Part(
        "Figure 1",
        "Section 3.2: accuracy on the reasoning primitives against parameters, inference and training compute, for plain, looped and "
        "grown models of up to 1.7B parameters. Looping pays where parameters are scarce, growing where training compute is.",
        figures.figure_1,
        ("compare",),
    ),
    Part(
        "Table 1",
        "Section 3.2: all models on 22 benchmarks in five groups. Here only generated questions are asked: the primitives, and word "
        "problems for the paper's group of them; NLL is on held-out text of the training mixture.",
        figures.table_1,
        ("compare",),
    ),
    Part(
        "Figure 2",
        "Section 4.1: three measures of how much late layers matter: the depth score, the top-5 overlap of early exits, early-exit "
        "accuracy through a tuned lens. The depth score says how far up the visits lie whose removal changes the output most. "
        "By all three, grown and looped models use late layers more.",
        figures.figure_2,
        ("probe-depth-score", "probe-top5-overlap", "probe-tuned-lens"),
    ),
    Part(
        "Figure 3",
        "Section 4.1: the residual stream of grown and looped models grows more slowly, and attention's share of it has a cycle as long as "
        "the block (four layers there).",
        figures.figure_3,
        ("probe-residual-norms", "probe-sublayers"),
    ),
    Part(
        "Figure 4",
        "Section 4.1: removing one layer's contribution from the input of one later layer. In LIDAS and Loop(4-4x4-4) every fourth layer "
        "reacts to most of those below it.",
        figures.figure_4,
        ("probe-local-effects",),
    ),
    Part(
        "Figure 5",
        "Section 4.1: swapping two neighbours in the middle costs Loop(4x6) far more than the others.",
        figures.figure_5,
        ("probe-swap",),
    ),
    Part(
        "Figure 6",
        "Section 4.2: grown models gain up to a factor of two on a primitive when a middle block of four layers runs again, though they "
        "were never trained to loop; the baseline hardly gains.",
        figures.figure_6,
        ("sweep-baseline", "sweep-midas", "sweep-lidas", "sweep-middle"),
    ),
    Part(
        "Figure 7",
        "Section 5.1: more worked examples in the prompt help grown and looped models, the baseline often not. A model that answers nearly "
        "all without examples has nothing to gain here.",
        figures.figure_7,
        ("context",),
    ),
    Part(
        "Figure 8",
        "Section 5.1: fine-tuned on 64 examples LIDAS and Loop(4-4x4-4) leave chance behind, the baseline has not after 128. There both "
        "tasks are tuned on together, here each on its own, with other examples for each seed.",
        figures.figure_8,
        ("finetune",),
    ),
    Part(
        "Table 2",
        "Section 5.2: the cooldown with 20% of maths in place of 6%, from two sources. Both help; the better one is used from there "
        "on, here the first.",
        figures.table_2,
        ("compare", "cooldown"),
    ),
    Part(
        "Table 3",
        "Sections 5.2 and 5.3: the maths cooldown for three models, with and without one repeat more of a middle block (retrofitted "
        "recurrence). LIDAS gains most from both.",
        figures.table_3,
        ("compare", "cooldown", "repeats", "repeats-middle"),
    ),
    Part(
        "Figure 9",
        "Section 5.3: more repeats of that block at inference. Models that cooled down with one repeat bear up to three better.",
        figures.figure_9,
        ("repeats", "repeats-middle"),
    ),
)
