"""The paper's claims as data, each with what decides it (``rules``). Written from the paper before anything was measured, and not tuned."""

import summaries as s
from jobs import LOOP
from rules import MATHS, Claim, Side, against

GROWN_AND_LOOPED = ("lidas", "full", "middle")
ZERO = Side(s.primitives, "")
CLAIMS = (
    Claim(
        "iso-param", "Figure 1", "Running few layers several times beats a plain model of as many layers.", "3.2, figure 1, table 1",
        "accuracy on the primitives, looped model less the plain one of its parameters",
        (*against(s.primitives, ["full"], "iso-full"), *against(s.primitives, ["middle"], "iso-middle")),
    ),
    Claim(
        "half-unique", "Figure 1", "With about half of the baseline's unique layers a looped model is ahead of it on primitives.", "3.2",
        "accuracy on the primitives, Loop(e-Lxk-d) less baseline", against(s.primitives, ["middle"], "baseline"),
    ),
    Claim(
        "best-loop", "Figure 1", "Of the looped models, the one that loops in the middle is best.", "3.2",
        "accuracy on the primitives and minus NLL, Loop(e-Lxk-d) less Loop(Lxk)",
        (*against(s.primitives, ["middle"], "full"), *against(s.nll, ["middle"], "full", lower=True)),
    ),
    Claim(
        "loop-nll", "Table 1", "At equal effective depth looped models model language less well than the baseline.", "3.2, table 1",
        "held-out NLL, looped model less baseline", against(s.nll, ["full", "middle"], "baseline"),
    ),
    Claim(
        "grown", "Table 1", "Grown models reason better than the baseline for about 80% of its training compute.", "3.2, figure 1, table 1",
        "accuracy on the primitives, grown less baseline; training FLOPs, baseline less grown",
        (*against(s.primitives, ["midas", "lidas"], "baseline"), *against(s.training_flops, ["midas", "lidas"], "baseline", lower=True)),
    ),
    Claim(
        "lidas", "Table 1", "LIDAS gains more than MIDAS.", "3.2, table 1", "accuracy on the primitives, LIDAS less MIDAS",
        against(s.primitives, ["lidas"], "midas"),
    ),
    Claim(
        "depth-score", "Figure 2", "Grown and looped models depend on later visits than the baseline.", "4.1, figure 2 A",
        "depth score, model less baseline", against(s.depth_score, GROWN_AND_LOOPED, "baseline"),
    ),
    Claim(
        "late-overlap", "Figure 2", "Their late exits share less of the final top 5 than the baseline's.", "4.1, figure 2 B",
        "top-5 overlap over the upper half of the visits, baseline less model",
        against(s.late_overlap, GROWN_AND_LOOPED, "baseline", lower=True),
    ),
    Claim(
        "late-exit", "Figure 2", "The baseline's early-exit accuracy levels off early, theirs rises until late visits.", "4.1, figure 2 C",
        "share of the final accuracy that exits in the upper half still lack, model less baseline",
        against(s.late_gain, GROWN_AND_LOOPED, "baseline"),
    ),
    Claim(
        "norm-growth", "Figure 3", "The stream grows more slowly than in the baseline.", "4.1, figure 3",
        "logarithm of the norm's growth over depth, baseline less model", against(s.norm_growth, GROWN_AND_LOOPED, "baseline", lower=True),
    ),
    Claim(
        "attention-cycle", "Figure 3", "What attention contributes repeats with the block's length.", "4.1, figure 3",
        "autocorrelation of attention's contribution one block apart, model less baseline",
        against(s.attention_cycle, GROWN_AND_LOOPED, "baseline"),
    ),
    Claim(
        "aggregation", "Figure 4", "Once a block there is a visit that depends on most of those before it.", "4.1, figure 4",
        "autocorrelation of the mean local effect on each visit one block apart, model less baseline",
        against(s.aggregation, ("lidas", "middle"), "baseline"),
    ),
    Claim(
        "swap", "Figure 5", "A swap in the middle hurts the fully looped model more than the others.", "4.1, figure 5",
        "accuracy lost by swapping neighbours in the middle half, Loop(Lxk) less other",
        against(s.swap_loss, ("baseline", "lidas", "middle"), "full", lower=True),
    ),
    Claim(
        "repeat-grown", "Figure 6", "Running a middle block again helps grown models more than the baseline.", "4.2, figure 6",
        "change in accuracy with a block of the middle half run twice, grown less baseline",
        against(s.repeat_gain, ("midas", "lidas"), "baseline"),
    ),
    Claim(
        "repeat-count", "Figure 6", "Two or three runs of the block are best; more do not help.", "4.2, figure 6",
        "accuracy at two and three runs of the third block less that at one, and less that at four",
        tuple((Side(s.two_or_three, model), Side(other, model)) for model in ("midas", "lidas") for other in (s.once, s.four)),
    ),
    Claim(
        "context", "Figure 7", "Worked examples help grown and looped models more than the baseline.", "5.1, figure 7",
        "accuracy gained from the fewest to the most examples, model less baseline", against(s.context_gain, GROWN_AND_LOOPED, "baseline"),
    ),
    Claim(
        "tuning", "Figure 8", "Fine-tuning helps grown and looped models more than the baseline.", "5.1, figure 8",
        "accuracy gained by fine-tuning, mean over numbers of examples, model less baseline",
        against(s.tuning_gain, GROWN_AND_LOOPED, "baseline"),
    ),
    Claim(
        "maths", "Table 2", "A maths-heavy cooldown improves the reasoning of all models.", "5.2, tables 2 and 3",
        "reasoning after the cooldown with maths less after the plain one",
        tuple((Side(s.maths_gain, model), ZERO) for model in ("baseline", "lidas", "middle")),
    ),
    Claim(
        "maths-lidas", "Table 3", "LIDAS gains most from it.", "5.2, table 3", "gain in reasoning, LIDAS less other",
        tuple((Side(s.maths_gain, "lidas"), Side(s.maths_gain, model)) for model in ("baseline", "middle")),
    ),
    Claim(
        "strongest", "Table 3", "LIDAS, cooled down on maths with a middle block looped, reasons best.", "5.3, table 3",
        "reasoning, LIDAS with maths and loop less other",
        tuple((Side(s.reasoning, f"lidas{MATHS}{LOOP}"), Side(s.reasoning, other))
              for other in (f"lidas{MATHS}", f"baseline{MATHS}{LOOP}", f"middle{MATHS}{LOOP}")),
    ),
    Claim(
        "loop-modest", "Table 3", "One repeat more in the cooldown brings the looped model less than the others.", "5.3, table 3",
        "gain in reasoning by the loop, other less Loop(e-Lxk-d)", against(s.loop_gain, ("baseline", "lidas"), "middle"),
    ),
    Claim(
        "retrofit-safe", "Figure 9", "After a cooldown with one repeat, more repeats do less harm.", "5.3, figure 9",
        "accuracy lost by four runs of the block, before less after",
        tuple((Side(s.repeat_loss, f"{model}{MATHS}"), Side(s.repeat_loss, f"{model}{MATHS}{LOOP}")) for model in ("baseline", "lidas")),
    ),
    Claim(
        "retrofit-lidas", "Figure 9", "Adapted LIDAS makes the most of further repeats.", "5.3, figure 9",
        "accuracy at two to four runs of the block, adapted LIDAS less adapted other",
        against(s.two_to_four, [f"lidas{MATHS}{LOOP}"], f"baseline{MATHS}{LOOP}")
        + against(s.two_to_four, [f"lidas{MATHS}{LOOP}"], f"middle{MATHS}{LOOP}"),
    ),
)  # fmt: skip
