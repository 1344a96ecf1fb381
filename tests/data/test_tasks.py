"""Generated tasks: the paper's forms to the letter, seeded, fair, and never shared between training and evaluation."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopkit.data.tasks import PAPER, Instances, Question, Task, draw, families, few_shot, find, questions, training_text
from loopkit.data.tasks import copying as copying_task
from loopkit.data.tasks.assignment import BASIC, CODE, MATH, VALUES
from loopkit.data.tasks.words import english
from loopkit.errors import LoopkitError, UsageError

SOME = (
    *PAPER,
    "copy-random-32",
    "copy-words-200",
    "var-basic-6",
    "p-hop-1",
    "p-hop-16",
    "addition-2",
    "addition-16",
    "recall-0",
    "recall-2",
    "recall-basic-1",
    "recall-code-0",
    "arithmetic-2",
    "word-problem-2",
    "substitution-2",
)


def same_form(example: str, prompt: str) -> bool:
    """Whether two prompts differ in words and numbers only."""

    def form(text: str) -> str:
        return re.sub(r"\b(?!Fill|in|the|blank|print)[a-z]+\b|\d+", "*", text)

    return form(example) == form(prompt)


D1_COPY = "Fill in the blank:\njic dqy sof uzg ewr oxw osp tkj rvw mnu jic dqy sof uzg ewr ___. ->"
D1_DEPTH = {
    0: ("Fill in blank:\n\no=23\nk=3\nt=13\na=1\ne=9\no=___. ->", "23"),
    1: ("Fill in blank:\n\no=2\nk=23\nt=13\na=1\ne=9\nv=k\nc=e\ns=o\ny=t\nr=a\ny=___. ->", "13"),
    2: ("Fill in blank:\n\no=2\nk=23\nt=13\na=1\ne=9\nv=k\nc=e\ns=o\ny=t\nr=a\nb=r\nh=c\nf=y\nx=s\ng=v\nh=___. ->", "9"),
}


def test_copying_has_the_form_of_the_paper(monkeypatch):
    """The very example of D.1 comes out where the draws are its words and start."""
    words = D1_COPY.split("\n")[1].split()[:10]
    task = find("copy-random")
    drawn = [[task.pieces.index(word) - len(copying_task.PIECES) for word in words]]
    monkeypatch.setattr(copying_task, "distinct", lambda random, size: np.array(drawn))
    made = task.make(np.zeros((1, task.draws), np.uint64))
    assert "".join(task.pieces[i] for i in made.prompt[0]) == D1_COPY
    assert [task.pieces[i] for i in made.options[0, :, 0]] == words
    assert task.pieces[made.answers[0, 0]] == "oxw"


@pytest.mark.parametrize("depth", D1_DEPTH)
def test_assignment_has_the_form_of_the_paper(depth):
    example, answer = D1_DEPTH[depth]
    task = find(f"var-basic-{depth}")
    pieces = [re.escape(piece) for piece in sorted({"Fill in blank:\n\n", "=___. ->", *task.pieces} - {""}, key=len, reverse=True)]
    assert "".join(re.findall("|".join(pieces), example)) == example  # the task's pieces can spell it
    assert all(same_form(example, question.prompt) for question in questions(task, "evaluation", 0, 20))
    assert solve(example) == answer


def solve(prompt: str) -> str:
    """Follow a prompt's assignments to the asked variable's value."""
    values: dict[str, str] = {}
    for left, right in re.findall(r"\b([a-z]+) ?= ?([a-z]+|\d+)", prompt):
        values[left] = values.get(right, right)
    asked = re.search(r"([a-z]+)=___|,([a-z]+)=\?|print\(([a-z]+)\)", prompt)
    assert asked
    return values[asked[1] or asked[2] or asked[3]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["basic", "math", "code"]), st.integers(0, 8), st.integers(0, 2**31), st.integers(0, 2**30))
def test_assignment_structure(style, depth, seed, number):
    """Five new variables a level in a permutation of the level below, a top variable asked, the chain gives the answer."""
    [question] = questions(find(f"var-{style}-{depth}"), "train", seed, 1, number)
    lines = re.findall(r"\b([a-z]+) ?= ?([a-z]+|\d+)", question.prompt)
    levels = [lines[i : i + 5] for i in range(0, len(lines), 5)]
    assert len(levels) == depth + 1
    names = [left for left, _ in lines]
    assert len(set(names)) == len(names) == 5 * (depth + 1)
    assert tuple(right for _, right in levels[0]) == question.options
    assert len(set(question.options)) == 5
    assert set(question.options) <= set(VALUES)
    for below, level in pairwise(levels):
        assert sorted(right for _, right in level) == sorted(left for left, _ in below)
    assert solve(question.prompt) == question.options[question.answer]
    asked = re.search(r"([a-z]+)(?:=___|=\?|\))", question.prompt)
    assert asked
    assert asked[1] in {left for left, _ in levels[-1]}


def test_math_and_code_forms():
    """Loopkit's own: the paper's inline example and a Python program."""
    [math], [code] = (questions(find(f"var-{style}-1"), "train", 0, 1) for style in ("math", "code"))
    assert same_form("a=3,b=8,c=1,d=2,e=5,f=a,g=b,h=c,i=d,j=e,c=?", math.prompt)
    program = code.prompt.removesuffix("  #")
    printed: list[object] = []
    exec(program, {"print": printed.append})
    assert printed == [int(code.options[code.answer])]
    assert {MATH.head, CODE.head} == {""} != {BASIC.head}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["copy-random", "copy-words", "copy-words-32"]), st.integers(0, 2**31), st.integers(0, 2**30))
def test_copying_structure(name, seed, number):
    [question] = questions(find(name), "train", seed, 1, number)
    words = question.prompt.removeprefix("Fill in the blank:\n").removesuffix(" ___. ->").split(" ")
    first, again = words[:10], words[10:]
    start = first.index(again[0])
    assert again == first[start : start + 5]
    assert question.options[question.answer] == first[start + 5]
    assert sorted(question.options) == sorted(set(first))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31))
def test_p_hop_structure(p, seed):
    [question] = questions(find(f"p-hop-{p}"), "train", seed, 1)
    letters = question.prompt.removesuffix(" ->").split(" ")
    assert all(a != b for a, b in pairwise(letters))
    at = len(letters) - 1
    for _ in range(p):
        at = max(i for i in range(at) if letters[i] == letters[at]) + 1
    assert question.options[question.answer] == letters[at]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**31))
def test_addition_structure(operands, seed):
    [question] = questions(find(f"addition-{operands}"), "train", seed, 1)
    terms = question.prompt.removesuffix(" =").replace(" ", "").split("+")
    assert len(terms) == operands
    assert all(len(term) == 3 for term in terms)
    assert int(question.options[question.answer].replace(" ", "")) == sum(map(int, terms))
    assert len(set(question.options)) == 5
    assert len({len(option) for option in question.options}) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.sampled_from(["", "-basic", "-math", "-code"]), st.integers(0, 2**31), st.integers(0, 2**30))
def test_recall_structure(depth, style, seed, number):
    """Variables and values, then each once more as what it is worth; what is asked may be any of them. Signs are those of assignment."""
    [question] = questions(find(f"recall{style}-{depth}"), "train", seed, 1, number)
    equals, end_line = {"": (" ", " "), "-basic": ("=", "\n"), "-math": ("=", ","), "-code": (" = ", "\n")}[style]
    *words, asked = re.findall(r"\w+", question.prompt)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    assert question.prompt == end_line.join(equals.join(pair) for pair in [*pairs, (asked, "")]).rstrip()
    count = 5 * (depth + 1)
    values: dict[str, str] = {}
    for left, right in pairs[:count]:
        values[left] = values.get(right, right)
    assert sorted(pairs[count:]) == sorted(values.items())
    assert question.options[question.answer] == values[asked]
    assert question.options == tuple(right for _, right in pairs[:5])


@pytest.mark.parametrize("name", SOME)
def test_training_and_evaluation_never_meet(name):
    """By content: whatever the seeds, a reserved question is never trained on, nor the reverse."""
    task = find(name)
    count = 60 if name == "p-hop-16" else 1000
    for seed in (0, 1):
        trained, asked, shown = (draw(task, split, seed, np.arange(count)).prompt for split in ("train", "evaluation", "examples"))
        assert not task.reserved(trained).any()
        assert task.reserved(asked).all()
        assert task.reserved(shown).all()
    trained_texts = set(training_text(task, 0, 0, count))
    assert not trained_texts & {question.text for question in questions(task, "evaluation", 0, count)}


def test_reservation_goes_by_text_across_tasks():
    """A question that two tasks share is reserved in both or in neither."""
    small, large = find("copy-words-200"), find("copy-words")
    prompt = draw(small, "evaluation", 0, np.arange(50)).prompt
    number = {piece: i for i, piece in enumerate(large.pieces)}
    assert large.reserved(np.vectorize(lambda i: number[small.pieces[i]])(prompt)).all()


def test_a_tiny_task_says_that_it_is_tiny():
    def make(random: np.ndarray) -> Instances:
        zeros = np.zeros((len(random), 1), np.int64)
        return Instances(zeros, np.zeros((len(random), 2, 1), np.int64), zeros[:, 0])

    task = Task("tiny", ("a",), 1, make)
    split = "train" if task.reserved(np.zeros((1, 1), np.int64))[0] else "evaluation"
    with pytest.raises(LoopkitError, match="too few different instances"):
        draw(task, split, 0, np.arange(2))


@pytest.mark.parametrize("name", SOME)
def test_instances_are_a_function_of_seed_and_number(name):
    task = find(name)
    for split in ("train", "evaluation"):
        whole = questions(task, split, 3, 40)
        assert [questions(task, split, 3, 1, i)[0] for i in (39, 7, 0)] == [whole[39], whole[7], whole[0]]
        assert questions(task, split, 4, 40) != whole


@pytest.mark.parametrize("name", SOME)
def test_no_option_is_likelier_by_its_place(name):
    drawn = draw(find(name), "train", 0, np.arange(4000))
    width = drawn.options.shape[1]
    counts = np.bincount(drawn.answer, minlength=width)
    expected = 4000 / width
    assert ((counts - expected) ** 2 / expected).sum() < 3 * width + 15
    assert find(name).chance == 1 / width


def test_few_shot_prompts():
    task = find("var-basic-1")
    asked = questions(task, "evaluation", 0, 8)
    for shots in (0, 1, 5, 9):
        prompted = few_shot(task, 0, 8, shots)
        for question, plain in zip(prompted, asked, strict=True):
            assert question.prompt.endswith(plain.prompt)
            assert (question.options, question.answer) == (plain.options, plain.answer)
            assert question.prompt.count("->") == shots + 1
    more, fewer = few_shot(task, 0, 3, 9), few_shot(task, 0, 3, 5)
    for long, short, plain in zip(more, fewer, asked, strict=False):
        assert long.prompt.startswith(short.prompt.removesuffix(plain.prompt))
    assert few_shot(task, 0, 3, start=5) == few_shot(task, 0, 8)[5:]


def test_no_worked_example_is_the_question_itself():
    task = find("arithmetic-1")
    asked = questions(task, "evaluation", 0, 200)
    for question, plain in zip(few_shot(task, 0, 200, 5), asked, strict=True):
        examples = question.prompt.split("\n\n")[:-1]
        assert len(examples) == 5
        assert not any(example.startswith(plain.prompt + " ") for example in examples)
    for more, fewer in zip(few_shot(task, 0, 200, 6), few_shot(task, 0, 200, 5), strict=True):
        assert more.prompt.split("\n\n")[:5] == fewer.prompt.split("\n\n")[:5]


def test_question_text():
    assert Question("a=1\na=___. ->", ("1", "2"), 0).text == "a=1\na=___. -> 1"


def test_the_words_are_the_same_everywhere():
    words = english()
    assert len(set(words)) == 2048
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in words)
    assert Counter(word[0] for word in words[:200]).most_common(1)[0][1] < 50  # spread over the alphabet
    assert questions(find("copy-words"), "evaluation", 0, 1)[0].text == GOLDEN


GOLDEN = (
    "Fill in the blank:\nhair episode civil learn hedgehog innocent swing special duck phrase "
    "episode civil learn hedgehog innocent ___. -> swing"
)


def test_names():
    assert [find(name).name for name in SOME] == list(SOME)
    for family in families().values():
        assert all(find(example).name == example for example in family.examples)
    with pytest.raises(UsageError, match="nearest: copy-words"):
        find("copy-wrods")
    for bad in ("var-math", "p-hop", "p-hop-0", "addition-1", "copy-words-9", "copy-words-99999", "var-code-500", "var-code-01", ""):
        with pytest.raises(UsageError) as caught:
            find(bad)
        assert "\n" not in str(caught.value)
