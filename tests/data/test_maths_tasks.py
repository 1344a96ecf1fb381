"""Generated arithmetic, word problems and chains of substitutions: what plain Python makes of the text is the right answer."""

import ast
import json
import re
from collections import Counter
from operator import add, mul, sub
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from recipes import small

from loopkit.data.tasks import Split, draw, find, questions
from loopkit.data.tasks.word_problems import CHANGES, COMPARED, CONTAINERS, QUESTIONS, STARTS, THINGS
from loopkit.data.words import closed_words
from loopkit.errors import UsageError

SIZES = {"arithmetic": (1, 2, 5), "substitution": (1, 2, 5, 24), "word-problem": (1, 2, 5)}
NAMES = [f"{family}-{size}" for family, sizes in SIZES.items() for size in sizes]
SPLITS: tuple[Split, ...] = ("train", "evaluation")
SIGNS = {ast.Add: add, ast.Sub: sub, ast.Mult: mul}


def evaluate(node: ast.expr, steps: list[int]) -> int:
    """The value of an expression; those of its operations, in the order in which they are done, are added to ``steps``."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        return node.value
    assert isinstance(node, ast.BinOp)
    left, right = evaluate(node.left, steps), evaluate(node.right, steps)
    steps.append(SIGNS[type(node.op)](left, right))
    return steps[-1]


def arithmetic(prompt: str) -> list[int]:
    steps: list[int] = []
    evaluate(ast.parse(prompt.removesuffix(" ="), mode="eval").body, steps)
    return steps


def substitution(prompt: str) -> list[int]:
    """The values on the way to the asked variable, each of which is made of the one before."""
    *lines, question = prompt.split("; ")
    values, made_of = dict[str, int](), dict[str, str]()
    for line in lines:
        name, right = line.split(" = ")
        assert name not in values
        for source in re.findall("[a-z]", right):
            right, made_of[name] = right.replace(source, str(values[source])), source
        values[name] = evaluate(ast.parse(right, mode="eval").body, [])
    chain = [question.removesuffix(" = ?")]
    while chain[-1] in made_of:
        chain.append(made_of[chain[-1]])
    assert len(set(values) - set(chain)) == 1  # one line leads nowhere
    return [values[name] for name in reversed(chain[:-1])]


def word_problem(prompt: str) -> list[int]:
    """What the asked container holds after each step."""
    first, *steps, question = re.findall(r"[^.?]+[.?]", prompt)
    held = [number(first)]
    for step in steps:
        fewer = re.search("taken|removed|fall|fewer", step)
        assert bool(fewer) != bool(re.search("put|added|more [a-z]+ than", step))
        held.append(held[-1] - number(step) if fewer else held[-1] + number(step))
    container, other = re.search(r"(?:A|in a) (\w+)(?: holds|\.)", first), re.search(r"A (\w+) holds", steps[-1])
    thing = re.search(r"\d+ (\w+)(?:\.| in)", first)
    assert container
    assert thing
    asked = other or container
    assert re.search(rf"How many {thing[1]} .*\b{asked[1]}\b", question)
    return held[1:]


def number(sentence: str) -> int:
    """The amount in a sentence, the product where it speaks of packs."""
    return int(np.prod([int(each) for each in re.findall(r"\d+", sentence)]))


SOLVERS = {"arithmetic": arithmetic, "substitution": substitution, "word-problem": word_problem}


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_what_the_text_says(name: str) -> None:
    family, size = name.rsplit("-", 1)
    for split in SPLITS:
        for question in questions(find(name), split, 0, 300):
            steps = SOLVERS[family](question.prompt)
            assert len(steps) == int(size), question.prompt
            assert all(0 <= step <= 99 for step in steps), question.prompt
            assert question.options[question.answer] == str(steps[-1]), question.prompt


@pytest.mark.parametrize("name", NAMES)
def test_options_are_neighbours(name: str) -> None:
    for question in questions(find(name), "train", 1, 300):
        numbers = sorted(map(int, question.options))
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert numbers[0] >= 0


@pytest.mark.parametrize("name", NAMES)
def test_options_alone_say_little(name: str) -> None:
    """Whoever picks the option that is most often an answer, or the middle one, is right less than 3 times in 10."""
    drawn = draw(find(name), "train", 0, np.arange(20_000))
    often = np.bincount(drawn.answers[:10_000, 0], minlength=100)
    assert (often[drawn.options[10_000:, :, 0]].argmax(axis=1) == drawn.answer[10_000:]).mean() < 0.28
    ranks = (drawn.options[:, :, 0] < drawn.answers).sum(axis=1)
    assert np.bincount(ranks).max() / len(ranks) < 0.25


def test_the_smallest_and_their_words() -> None:
    """The numbers in docs/evaluation.md: every sum, difference and product that there is of small numbers, and the vocabulary."""
    trained, asked = (len(np.unique(draw(find("arithmetic-1"), split, 0, np.arange(40_000)).prompt, axis=0)) for split in SPLITS)
    products = sum(min(50, 99 // factor) for factor in range(2, 10))
    assert trained + asked == 50 * 20 + sum(min(first, 20) for first in range(1, 51)) + products == 1988
    assert asked == 129
    assert len(closed_words([find(name) for name in NAMES])) == 188


@pytest.mark.parametrize(("name", "least"), [("arithmetic-2", 1600), ("word-problem-1", 1900), ("substitution-1", 1900)])
def test_there_are_enough_to_hold_some_out(name: str, least: int) -> None:
    assert len({question.prompt for question in questions(find(name), "evaluation", 0, 2000)}) > least


def test_every_sentence_is_said() -> None:
    told = " ".join(question.prompt for question in questions(find("word-problem-2"), "train", 0, 1000))
    templates = [*(template for _, template in (*STARTS, *CHANGES, *COMPARED)), *QUESTIONS]
    fields = {"amount": r"\d+", "packs": r"\d+", "things": "|".join(THINGS)}
    for template in templates:
        pattern = re.sub(r"\\{(\w+)\\}", lambda field: f"(?:{fields.get(field[1], '|'.join(CONTAINERS))})", re.escape(template))
        assert len(re.findall(pattern, told)) > 20, template
    counts = Counter(re.findall(r"\w+", told))
    assert all(counts[word] for word in (*THINGS, *CONTAINERS))


def test_all_signs_and_sides() -> None:
    prompts = [question.prompt for question in questions(find("arithmetic-3"), "train", 0, 500)]
    for form in (r"^\d+ \+ \(", r"^\d+ \* \(", r"\) \+ \d+ =", r"\) - \d+ =", r"\) \* \d+ ="):
        assert sum(bool(re.search(form, prompt)) for prompt in prompts) > 20, form


def test_bad_numbers() -> None:
    for name, said in (
        ("arithmetic", "needs a number of 1"),
        ("word-problem-0", "needs a number of 1"),
        ("substitution-25", "substitution-24"),
    ):
        with pytest.raises(UsageError, match=said):
            find(name)


def test_the_examples_in_the_docs_are_the_first_held_out_questions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([a-z-]+-\d+)` \|.*\| `([^|]+)` \|$", page, re.M))
    assert set(shown) >= {"arithmetic-2", "word-problem-2", "substitution-2"}
    for name, text in shown.items():
        assert questions(find(name), "evaluation", 0, 1)[0].text.replace("\n", "⏎") == text


def test_training_and_evaluation_by_command(run: Run, tmp_path: Path) -> None:
    """A word-level nano model on a mixture of all three, then its score."""
    mix = "0.4*primitives:word-problem-1 + 0.3*primitives:arithmetic-2 + 0.3*primitives:substitution-2"
    (tmp_path / "recipe.toml").write_text(small(f"data.mix={mix}", "schedule.steps=3").toml())
    assert run("train", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--backend", "torch").code == 0
    asked = ("--tasks", "word-problem-1,arithmetic-2", "--shots", 0, "--count", 8, "--backend", "torch", "--json")
    rows = json.loads(run("eval", tmp_path / "run", *asked).out)
    assert [(row["task"], row["questions"], row["chance"]) for row in rows] == [("word-problem-1", 8, 0.2), ("arithmetic-2", 8, 0.2)]
