from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit.checkpoint.folder import write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.data.tasks import Question, few_shot, find
from loopkit.data.tokenizers import byte_codec
from loopkit.errors import UsageError
from loopkit.evaluation.choice import accuracy, choose, loglikelihoods, wilson
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


@pytest.mark.parametrize("plan", [None, "1:3x2"])
def test_likelihoods_are_those_of_one_text_at_a_time(model: Model, plan: str | None) -> None:
    pairs = [("a b c a", " b"), ("a b c a", " bcd"), ("long prompt, " * 9, " x"), ("é", " ü"), ("abc", "d")]
    assert loglikelihoods(model, pairs, plan) == pytest.approx([obvious(model, *pair, plan) for pair in pairs], abs=1e-4)


def test_the_likeliest_option_is_chosen(model: Model) -> None:
    questions = few_shot(find("var-basic-0"), 3, 6, 1)
    expected = []
    for question in questions:
        scores = [obvious(model, question.prompt, " " + option, None) for option in question.options]
        expected.append(int(np.argmax(scores)) == question.answer)
    assert choose(model, questions).tolist() == expected


def test_the_right_answer_is_right_wherever_it_stands(model: Model) -> None:
    options = ("a", "b", "c")
    likeliest = int(np.argmax([obvious(model, "x", " " + option, None) for option in options]))
    answers = [choose(model, [Question("x", options, answer)])[0] for answer in range(3)]
    assert answers == [answer == likeliest for answer in range(3)]


def test_the_same_seed_asks_the_same(model: Model) -> None:
    first, again, other = (accuracy(model, "copy-random", None, 20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert 0 <= other.share <= 1
    assert first.chance == 0.1


@given(st.integers(1, 300), st.data())
def test_intervals_hold_the_share_and_narrow(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    wider = wilson(correct, total, 3.0)
    assert wider[0] <= low + 1e-12
    assert high <= wider[1] + 1e-12


def test_the_interval_is_wilsons() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I, method 3


def test_mistakes(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="copy-words"):
        accuracy(model, "copy-wrods")
    with pytest.raises(UsageError, match="at least one question"):
        accuracy(model, "copy-words", count=0)
    with pytest.raises(UsageError, match="no tokens of its own"):
        loglikelihoods(model, [("abc", "")])
