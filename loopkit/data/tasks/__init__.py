"""Generated tasks: one file a task, found by name."""

from loopkit.data.tasks.registry import PAPER, Family, families, find, named, register
from loopkit.data.tasks.task import Instances, Question, Split, Task, draw, few_shot, questions, training_text

__all__ = [
    "PAPER",
    "Family",
    "Instances",
    "Question",
    "Split",
    "Task",
    "draw",
    "families",
    "few_shot",
    "find",
    "named",
    "questions",
    "register",
    "training_text",
]
