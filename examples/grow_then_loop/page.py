"""The story as one page: what was done, all claims with their verdicts, then the paper's figures and tables beside ours."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from claims import CLAIMS
from dry_run import costs
from jobs import Job, Story
from measures import read
from parts import PAPER, PARTS, Part
from rules import MISSING, NOISY, NOT_REPRODUCED, REPRODUCED, Claim, Outcome, outcomes, verdict
from runner import spoken, times
from summaries import Table

from loopkit.data.tasks import find
from loopkit.report import Block, Folded, Page, write_page
from loopkit.report import Table as Rows


def write(story: Story) -> Path:
    """Write OUT/page.html from what is finished, and give its path."""
    table = Table(story.size, read(story.out))
    judged = [(claim, outcomes(claim, table)) for claim in CLAIMS]
    sections: list[tuple[str, Sequence[Block]]] = [("What this is", _introduction(story)), ("The claims", _summary(judged))]
    sections += [(part.name, _part(part, story, table, judged)) for part in PARTS]
    return write_page(story.out / "page.html", Page("Grow first, loop later", sections, f"python {story.command}"))


def _introduction(story: Story) -> list[Block]:
    size, jobs, taken = story.size, story.jobs, times(story.out)
    data, schedule = size.recipe.data, size.recipe.schedule
    done = sum(job.done for job in jobs)
    return [
        "A looped model runs the same layers several times, so it is deeper than its parameters say: Loop(4-4x4-4) runs four layers, four "
        "others four times, and four more; each run of a layer is a visit. A grown model is trained shallow first and made deeper on the "
        "way by copying its middle layers (MIDAS copies the middle one of its blocks, LIDAS as many layers around the exact middle); "
        f"at the end all its layers are its own. The paper, {PAPER}, finds that both come to compute alike, and that a grown model can "
        "be looped afterwards. This page repeats its experiments at a small scale and says of each claim whether it held here.",
        f"Size {size.name}: {size.about}. {size.depth} visits, blocks of {size.block}, {schedule.steps} steps of {data.rows} rows of "
        f"{data.length} tokens, seeds {', '.join(map(str, size.seeds))}. All models of a seed see the same data in the same order: "
        f"{data.mix}. In the cooldowns with maths, {size.maths_share:.0%} of the rows are maths of one source: "
        + "; ".join(f"{name} is {source}" for name, source in size.maths.items()) + ". "
        f"Questions are asked after {size.shots or 'no'} worked examples; guessing answers "
        + ", ".join(f"{find(name).chance:.0%} of {name}" for name in size.primitives) + ".",
        f"{done} of {len(jobs)} commands are finished; those that ended took {spoken(sum(taken.values()))}, added up: by the clock it is "
        "less where several ran at a time. "
        + ("" if done == len(jobs) else "What is missing is marked, and the same command makes it."),
        _models(story),
    ]  # fmt: skip


def _models(story: Story) -> Rows:
    known, seed = costs(story), story.size.seeds[0]
    rows = []
    for model in story.size.models.values():
        cost = known[f"train {model.name} seed {seed}"]
        options = shlex.join(model.options) or "the recipe as it is"
        rows.append((model.label, options, f"{cost.unique:,}", f"{cost.tokens:.3g}", f"{cost.flops:.3g}"))
    return Rows(("model", "loopkit train options", "unique parameters", "tokens", "training FLOPs"), rows, "Each is trained once a seed.")


def _summary(judged: Sequence[tuple[Claim, list[Outcome]]]) -> list[Block]:
    verdicts = Counter(verdict(found) for _, found in judged)
    counted = ", ".join(f"{verdicts[name]} {name}" for name in (REPRODUCED, NOT_REPRODUCED, NOISY, MISSING) if verdicts[name])
    rule = (
        f"{len(judged)} claims: {counted}. Each was fixed from the paper before anything was measured. A claim is one or more comparisons "
        "of two numbers, which each seed has; both models of a seed are asked the same questions. Where the 95% interval of the mean "
        "difference over seeds (Student's t) lies on the claimed side a comparison is reproduced, on the other side it is not, else there "
        "is too much noise to tell. A claim is reproduced where all of its comparisons are, and not reproduced where one of them is not. "
        "Where there is nothing to find, one comparison in forty still counts as reproduced "
        "by chance. A verdict is about models of this size on this data; at another size it may be another."
    )
    rows = [(claim.says, claim.where, verdict(found), claim.figure) for claim, found in judged]
    return [rule, Rows(("the paper says", "section", "here", "see"), rows)]


def _part(part: Part, story: Story, table: Table, judged: Sequence[tuple[Claim, list[Outcome]]]) -> list[Block]:
    jobs = [job for job in story.jobs if job.made.parent.name in part.results]
    drawn, open_jobs = part.draw(table), [job for job in jobs if not job.done]
    blocks: list[Block] = [f"The paper: {part.says}", *drawn]
    if open_jobs:
        blocks.append(f"Missing here: {len(open_jobs)} of {len(jobs)} commands are not finished, the next is {open_jobs[0].name}.")
    for claim, found in judged:
        if claim.figure == part.name:
            blocks += [f"{claim.says} {verdict(found).capitalize()}. Measured as: {claim.measured} ({claim.where}).", _comparisons(found)]
    return [*blocks, Folded("The commands behind it, of the first seed", _commands(jobs, story.size.seeds[0]))]


def _comparisons(found: Sequence[Outcome]) -> Rows:
    rows = [
        (
            each.name, len(each.differences), None if each.mean is None else f"{each.mean:+.4g}",
            "" if each.interval is None else f"{each.interval[0]:+.4g} to {each.interval[1]:+.4g}", each.verdict,
        )
        for each in found
    ]  # fmt: skip
    return Rows(("claimed", "seeds", "difference", "95% interval", "verdict"), rows)


def _commands(jobs: Sequence[Job], seed: int) -> str:
    """The commands of one seed."""
    return "\n".join(shlex.join(["loopkit", *job.arguments, *job.hardware]) for job in jobs if job.name.endswith(f" seed {seed}"))
