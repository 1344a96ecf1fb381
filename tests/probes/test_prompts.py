"""Prompts: one length, seeded, never those that lenses are trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopkit.data.tasks import few_shot, find
from loopkit.errors import UsageError
from loopkit.probes import read_prompts, training_ids
from loopkit.session import Model
from loopkit.spec import Spec


@pytest.fixture(scope="module")
def reader(make: Any) -> Model:
    return make("torch")  # type: ignore[no-any-return]


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Forty documents, each of its own number."""
    lines = "".join(f'{{"text": "{f"document {i:03d} says " * 20}"}}\n' for i in range(40))
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    return f"file:{tmp_path / 'a.jsonl'}"


def test_text_is_cut_and_the_halves_are_apart(reader: Model, texts: str) -> None:
    found = read_prompts(reader, texts, 6, 32)
    assert found.ids.shape == (6, 32)
    assert found.questions == ()
    assert (found.ids[:, 0] == 0).all()  # a document begins with the end of the one before
    heads = [reader.tokenizer.decode(row[1:].tolist())[:12] for row in found.ids]
    trained = [reader.tokenizer.decode(row[1:].tolist())[:12] for row in training_ids(reader, texts, 20, 32)]
    assert all(int(head[-3:]) % 2 == 0 for head in heads)
    assert {int(head[-3:]) for head in trained} == set(range(1, 40, 2))
    np.testing.assert_array_equal(read_prompts(reader, texts, 6, 32).ids, found.ids)
    assert not np.array_equal(read_prompts(reader, texts, 6, 32, seed=1).ids, found.ids)


def test_tasks_give_questions_too(reader: Model) -> None:
    found = read_prompts(reader, "primitives:copy-random,var-math-0", 5, 64, shots=1)
    assert found.ids.shape == (5, 64)
    assert len(found.questions) == 5
    assert {len(question.options) for question in found.questions} == {5, 10}
    train = training_ids(reader, "primitives:copy-random", 5, 64)
    assert not any((row == other).all() for row in found.ids for other in train)


def test_prompts_may_be_longer_than_the_questions_written_at_a_time(reader: Model) -> None:
    short, long = (read_prompts(reader, "primitives:arithmetic-1", 3, length, shots=0) for length in (32, 900))
    assert long.ids.shape == (3, 900)
    np.testing.assert_array_equal(long.ids[:, :32], short.ids)


def test_tasks_take_turns(reader: Model) -> None:
    names = ("copy-random", "var-basic-0", "var-math-0")
    found = read_prompts(reader, f"primitives:{','.join(names)}", 4, 32, shots=0).questions
    asked = [few_shot(find(name), 0, 2, 0) for name in names]
    assert list(found) == [asked[0][0], asked[1][0], asked[2][0], asked[0][1]]


def test_worked_examples_are_as_many_as_fit(make: Any) -> None:
    small = make("torch", Spec(48, 64, 4, 2, 12, 300, "2", max_position_embeddings=200))
    found = read_prompts(small, "primitives:var-math-1", 4, 32).questions
    counts = {question.prompt.count("\n\n") for question in found}
    assert len(counts) == 1
    assert 0 < counts.pop() < 5
    with pytest.raises(UsageError, match=r"with 5 worked examples has .* lower --shots"):
        read_prompts(small, "primitives:var-math-1", 4, 32, shots=5)
    assert read_prompts(small, "primitives:var-math-1", 4, 32, shots=5, asks=False).questions == ()


def test_mistakes(reader: Model, texts: str) -> None:
    with pytest.raises(UsageError, match="20 texts of 32 tokens, 21 are wanted"):
        read_prompts(reader, texts, 21, 32)
    with pytest.raises(UsageError, match="0 texts of 1000 tokens"):
        read_prompts(reader, texts, 1, 1000)
    with pytest.raises(UsageError, match="did you mean primitives"):
        read_prompts(reader, "primitive:copy-words")
    with pytest.raises(UsageError, match="var-math-"):
        read_prompts(reader, "primitives:var-math")
