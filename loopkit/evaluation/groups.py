"""The paper's 22 benchmarks (section 3.2) as groups of task names, and how names become tasks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from loopkit.data.tasks import PAPER, families, find
from loopkit.errors import UsageError

OWN_SHOTS = 5  # worked examples before a generated question unless asked otherwise (paper, section 3.2)


@dataclass(frozen=True)
class Group:
    """Tasks with their number of worked examples; ``note`` says where the group differs from the paper's."""

    tasks: tuple[str, ...]
    shots: int
    note: str = ""


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "paper/closed-book": Group(
            ("triviaqa", "tydiqa_nocontext_en", "nq_open", "webqs"),
            0,
            "tydiqa_nocontext_en is loopkit's: the harness has no TyDiQA without context",
        ),
        "paper/open-book": Group(
            ("tydiqa_goldp_en", "squadv2", "drop", "quac", "coqa"), 0, "quac is loopkit's: the harness has no QuAC; TyDiQA is English"
        ),
        "paper/completion": Group(("lambada_openai", "hellaswag"), 0),
        "paper/math-word": Group(
            ("svamp", "asdiv", "mawps"), 5, "svamp and mawps are loopkit's, in the form of asdiv: the harness has neither"
        ),
        "paper/primitives": Group(PAPER, 5, "the paper does not say which eight of these it counts; all depths of section D.1 are asked"),
    }
)


@dataclass(frozen=True)
class Asked:
    """A task to run: one of loopkit's ``own`` generated ones or the harness's; ``shots`` None leaves them to the harness's task."""

    name: str
    shots: int | None
    own: bool


def expand(names: str, shots: int | None = None) -> list[Asked]:
    """The tasks of a comma-separated list of task and group names, each once; ``shots`` overrides every other number of examples.

    Raises UsageError for a generated task with a bad number, or where there is no name.
    """
    found: dict[str, Asked] = {}
    for name in _names(names):
        group = GROUPS.get(name)
        for task in group.tasks if group else (name,):
            found.setdefault(task, _asked(task, shots, group.shots if group else None))
    if not found:
        raise UsageError("no task is named; e.g. copy-words,lambada_openai")
    return list(found.values())


def notes(names: str) -> list[str]:
    """What to know about the groups among the names."""
    asked = _names(names)
    return [f"{name}: {group.note}" for name, group in GROUPS.items() if group.note and name in asked]


def _names(names: str) -> list[str]:
    """The list's parts; primitives alone, as other commands call it, is the paper's group, too."""
    parts = filter(None, (part.strip() for part in names.split(",")))
    return ["paper/primitives" if part == "primitives" else part for part in parts]


def _asked(name: str, shots: int | None, usual: int | None) -> Asked:
    own = re.sub(r"-\d+$", "", name) in families()
    if own:
        find(name)
    known = shots if shots is not None else usual
    return Asked(name, OWN_SHOTS if own and known is None else known, own)
