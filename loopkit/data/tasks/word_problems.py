"""Word problems: things in a container, N times more or fewer of them, how many are there? Five neighbouring numbers.

``A box holds 3 apples. 4 more are put in. 2 are taken out. How many apples are in the box?`` A story begins with an amount or with
packs of an amount; each step puts some in or takes some out; the last one may instead compare with another container, which is
then asked about. Amounts are 2 to 9, packs 2 to 5, and what is there is never below 0 or above 99.
"""

import re
from collections.abc import Sequence

import numpy as np

from loopkit.data.counter import Bits, Ints, below, distinct
from loopkit.data.tasks.numbers import NUMBERS, OPTION_DRAWS, near, one_of, within
from loopkit.data.tasks.registry import number_of, register
from loopkit.data.tasks.task import Instances, Task

THINGS = ("apples", "beads", "books", "buttons", "coins", "eggs", "nails", "nuts", "pens", "pins", "shells", "stamps", "stones", "tickets")
CONTAINERS = ("bag", "basket", "bowl", "box", "case", "chest", "crate", "drawer", "jar", "sack", "tin", "tray")
STARTS = (  # each sentence after what it does to the number that is there
    (1, "A {container} holds {amount} {things}."),
    (1, "There are {amount} {things} in a {container}."),
    (1, "A {container} holds {packs} packs of {amount} {things}."),
    (1, "There are {packs} packs of {amount} {things} in a {container}."),
)
CHANGES = (
    (1, " {amount} more are put in."),
    (1, " {amount} more are added."),
    (1, " Then {amount} {things} are put into the {container}."),
    (1, " {packs} packs of {amount} {things} are added."),
    (-1, " {amount} are taken out."),
    (-1, " {amount} of them are removed."),
    (-1, " Then {amount} {things} are taken from the {container}."),
    (-1, " {amount} fall out."),
)
COMPARED = (
    (1, " A {other} holds {amount} more {things} than the {container}."),
    (-1, " A {other} holds {amount} fewer {things} than the {container}."),
)
QUESTIONS = (
    " How many {things} are in the {asked}?",
    " How many {things} does the {asked} hold?",
    " How many {things} are there in the {asked}?",
)
Sentences = tuple[tuple[int, str], ...]

_FIELD = re.compile(r"(\{\w+\})")
_TEMPLATES = (*(template for _, template in (*STARTS, *CHANGES, *COMPARED)), *QUESTIONS)
_PARTS = tuple(sorted({part for template in _TEMPLATES for part in _FIELD.split(template)} | {""}))
PIECES = (*NUMBERS, *THINGS, *CONTAINERS, *(part for part in _PARTS if not _FIELD.match(part)))
_CODES = {part: -1 - number if _FIELD.match(part) else PIECES.index(part) for number, part in enumerate(_PARTS)}  # fields are negative
_STORY_DRAWS, _STEP_DRAWS = 4, 3  # two containers, things, question; which sentence, packs, amount


@register("word-problem", "word-problem-1", "word-problem-2", "word-problem-4")
def word_problem(number: int | None) -> Task:
    """What is left after ``number`` steps."""
    steps = number_of("word-problem", number, 1)
    draws = _STORY_DRAWS + (steps + 1) * _STEP_DRAWS + OPTION_DRAWS
    return Task(f"word-problem-{steps}", PIECES, draws, lambda random: _make(random, steps))


def _make(random: Bits, steps: int) -> Instances:
    story, for_sentences, for_options = np.split(random, [_STORY_DRAWS, random.shape[1] - OPTION_DRAWS], axis=1)
    container, other = distinct(story[:, :2], len(CONTAINERS)).T + PIECES.index(CONTAINERS[0])
    named = {"container": container, "other": other, "things": below(story[:, 2], len(THINGS)) + PIECES.index(THINGS[0])}
    value, told = np.zeros(len(random), np.int64), []
    plot = (STARTS, *[CHANGES] * (steps - 1), CHANGES + COMPARED)
    for sentences, words in zip(plot, np.split(for_sentences, steps + 1, axis=1), strict=True):
        kind, value, said = _sentence(words, value, sentences, named)
        told.append(said)
    named["asked"] = np.where(kind >= len(CHANGES), other, container)
    question = _fill(_rows(QUESTIONS)[below(story[:, 3], len(QUESTIONS))], named)
    return Instances(np.concatenate([*told, question], axis=1), *near(for_options, value))


def _sentence(random: Bits, value: Ints, sentences: Sentences, named: dict[str, Ints]) -> tuple[Ints, Ints, Ints]:
    """Which of the sentences is said, what is there after it, and its pieces."""
    packs, amount = below(random[:, 1], 4) + 2, below(random[:, 2], 8) + 2
    changes = [sign * amount * (packs if "{packs}" in template else 1) for sign, template in sentences]
    results = value + np.stack(changes)
    kind = one_of(random[:, 0], within(results))
    said = _fill(_rows([template for _, template in sentences])[kind], named | {"packs": packs, "amount": amount})
    return kind, results[kind, np.arange(len(value))], said


def _rows(templates: Sequence[str]) -> Ints:
    """The codes of each template's parts, filled up with empty pieces to the longest."""
    rows = [[_CODES[part] for part in _FIELD.split(template)] for template in templates]
    longest = max(map(len, rows))
    return np.array([row + [_CODES[""]] * (longest - len(row)) for row in rows])


def _fill(rows: Ints, fields: dict[str, Ints]) -> Ints:
    """Rows of pieces with values in place of their fields."""
    for name, values in fields.items():
        rows = np.where(rows == _CODES[f"{{{name}}}"], values[:, None], rows)
    return rows
