from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import loopkit
from loopkit.checkpoint.folder import write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.data.tasks import Question, few_shot, find
from loopkit.data.tokenizers import byte_codec, word_codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.choice import accuracies, answer, request
from loopkit.session import Model
from loopkit.spec import preset


@pytest.fixture(scope="module", params=["torch", "mlx"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("choice")
    spec = preset("nano").with_layout("1-1x2-1")
    byte_codec().save(folder)
    return loopkit.load(write_folder(folder / "model", spec, initialize(spec), tokenizer=folder), request.param)


def obvious(model: Model, prompt: str, option: str, plan: str | None) -> float:
    """One text at a time, each token's probability looked up."""
    ids, start = model.tokenizer.encode(prompt + option), len(model.tokenizer.encode(prompt))
    logits = model.logits(np.array([ids]), plan)[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(sum(logs[t - 1, ids[t]] for t in range(start, len(ids))))


def right(model: Model, questions: Sequence[Question], plans: Sequence[str | None] = (None,)) -> list[list[bool]]:
    """Whether each question is answered right, by plan."""
    found = [[False] * len(questions) for _ in plans]
    for batch in answer(model, questions, plans):
        for column, number in enumerate(batch.questions):
            for row in range(len(plans)):
                found[row][number] = bool(batch.right[row, column])
    return found


def test_the_likeliest_option_is_chosen_under_every_plan(model: Model) -> None:
    questions = few_shot(find("var-basic-0"), 3, 6, 1)
    plans = (None, "1:3x2", "1:3x2@damped")
    expected = [
        [int(np.argmax([obvious(model, q.prompt, " " + option, plan) for option in q.options])) == q.answer for q in questions]
        for plan in plans
    ]
    assert right(model, questions, plans) == expected


def test_the_probability_is_that_among_the_options(model: Model) -> None:
    question = few_shot(find("var-basic-0"), 3, 1)[0]
    (found,) = answer(model, [question], ["1:3x2"])
    scores = np.exp([obvious(model, question.prompt, " " + option, "1:3x2") for option in question.options])
    assert found.probability[0, 0] == pytest.approx(scores[question.answer] / scores.sum(), rel=1e-4)


def test_options_share_what_they_can(model: Model) -> None:
    question = Question("a b", ("cd", "ce", "x"), 0)
    found = request(model, question)
    assert [found.prompt + option for option in found.options] == [
        tuple(model.tokenizer.encode(text)) for text in ("a b cd", "a b ce", "a b x")
    ]
    assert found.prompt == tuple(model.tokenizer.encode("a b"))


def test_a_word_without_an_id_is_not_asked(tmp_path: Path) -> None:
    spec = preset("nano").with_layout("1")
    word_codec(["a", "b", "?"]).save(tmp_path)
    model = loopkit.load(write_folder(tmp_path / "model", spec, initialize(spec), tokenizer=tmp_path), "torch")
    assert request(model, Question("a b ?", ("a", "b"), 0)).options
    with pytest.raises(UsageError, match="does not know 'c'"):
        request(model, Question("a b ?", ("a", "c"), 0))
    with pytest.raises(UsageError, match="does not know"):
        accuracies(model, "copy-words-32", count=2)


def test_an_option_needs_tokens_of_its_own(tmp_path: Path) -> None:
    word_codec(["a", "b"]).save(tmp_path)
    spec = preset("nano")
    model = loopkit.load(write_folder(tmp_path / "model", spec, initialize(spec), tokenizer=tmp_path))
    assert request(model, Question("", ("a", "b"), 0)).prompt == (0,)
    with pytest.raises(UsageError, match="no tokens of its own"):
        request(model, Question("a", ("", "b"), 0))


def test_the_right_answer_is_right_wherever_it_stands(model: Model) -> None:
    options = ("a", "b", "c")
    likeliest = int(np.argmax([obvious(model, "x", " " + option, None) for option in options]))
    (answers,) = right(model, [Question("x", options, number) for number in range(3)])
    assert answers == [number == likeliest for number in range(3)]


def test_the_same_seed_asks_the_same(model: Model) -> None:
    first, again, other = (accuracies(model, "copy-random", count=20, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert 0 <= other.share <= 1
    assert first.chance == 0.1


def test_mistakes(model: Model) -> None:
    with pytest.raises(UsageError, match="copy-words"):
        accuracies(model, "copy-wrods")
    with pytest.raises(UsageError, match="at least one question"):
        accuracies(model, "copy-words", count=0)
    with pytest.raises(LoopkitError, match="positions"):
        accuracies(model, "copy-words", count=1, shots=200)
