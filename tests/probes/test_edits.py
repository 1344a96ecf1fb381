"""Swap, skip and repeat: likelihood and accuracy are those of each edited model on its own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.data.tasks import few_shot, find
from loopkit.errors import UsageError
from loopkit.plan import Plan
from loopkit.probes import repeat, skip, swap
from loopkit.session import Model

EDITS: dict[str, tuple[Callable[..., Any], dict[str, int], Callable[[list[int], int], list[int]], int]] = {
    "swap": (swap, {"size": 1}, lambda p, i: [*p[:i], p[i + 1], p[i], *p[i + 2 :]], 5),
    "swap 2": (swap, {"size": 2}, lambda p, i: [*p[:i], *p[i + 2 : i + 4], *p[i : i + 2], *p[i + 4 :]], 3),
    "skip": (skip, {"size": 1}, lambda p, i: [*p[:i], *p[i + 1 :]], 6),
    "skip 3": (skip, {"size": 3}, lambda p, i: [*p[:i], *p[i + 3 :]], 4),
    "repeat": (repeat, {"size": 2, "times": 3}, lambda p, i: [*p[: i + 2], *p[i : i + 2], *p[i : i + 2], *p[i + 2 :]], 5),
}


@pytest.mark.parametrize("name", EDITS)
def test_likelihoods_are_those_of_the_edited_models(model: Model, hooked: Any, name: str) -> None:
    probe, options, edit, positions = EDITS[name]
    ids = random_ids(model.spec, 2, 12)
    found = probe(model, ids, **options)
    assert found.nll.shape == (2, positions)
    arrays = random_arrays(model.spec)

    def nll(plan: list[int], row: np.ndarray) -> float:
        reference = hooked(model.spec, arrays, tuple(plan))
        logs = reference.torch.from_numpy(reference.logits(row)).log_softmax(-1)
        return float(np.mean([-logs[t, row[t + 1]] for t in range(len(row) - 1)]))

    plan = list(model.plan)
    np.testing.assert_allclose(found.base_nll, [nll(plan, row) for row in ids], rtol=0, atol=1e-4)
    expected = [[nll(edit(plan, i), row) for i in range(positions)] for row in ids]
    np.testing.assert_allclose(found.nll, expected, rtol=0, atol=1e-4)
    assert found.right.size == 0


def answers(model: Model, questions: Any, plan: Plan) -> list[bool]:
    """Option by option, each text on its own."""
    right = []
    for question in questions:
        start = len(model.tokenizer.encode(question.prompt))
        texts = [np.array(model.tokenizer.encode(f"{question.prompt} {option}")) for option in question.options]
        scores = [-model.nll(ids, plan)[0, start - 1 :].astype(np.float64).sum() for ids in texts]
        right.append(int(np.argmax(scores)) == question.answer)
    return right


def test_accuracies_are_those_of_one_text_at_a_time(model: Model) -> None:
    questions = few_shot(find("var-basic-0"), 1, 4, 1)
    found = swap(model, random_ids(model.spec, 1, 12), questions=questions)
    plan = model.plan
    expected = [answers(model, questions, (*plan[:i], plan[i + 1], plan[i], *plan[i + 2 :])) for i in range(5)]
    np.testing.assert_array_equal(found.right.T, expected)
    np.testing.assert_array_equal(found.base_right, answers(model, questions, plan))
    assert [chart.title for chart in found.charts] == ["Swapping neighbours: change of NLL", "Swapping neighbours: accuracy"]


def test_edits_of_what_is_the_same_change_nothing(backend: Any, make: Any) -> None:
    arrays = random_arrays(make(backend).spec)
    for name in list(arrays):
        if name.startswith("model.layers.2."):
            arrays[name] = arrays[name.replace("layers.2.", "layers.1.")]
    model = make(backend, arrays=arrays)  # layers 1 and 2 are the same, visits 1 to 4
    found = swap(model, random_ids(model.spec, 2, 12))
    np.testing.assert_array_equal(found.nll[:, 1:4], np.tile(found.base_nll[:, None], (1, 3)))
    assert (np.abs(found.nll[:, [0, 4]] - found.base_nll[:, None]) > 1e-6).all()


def test_blocks_that_do_not_fit(model: Model) -> None:
    ids = random_ids(model.spec, 1, 12)
    for probe, size in ((swap, 4), (skip, 6), (repeat, 7), (swap, 0)):
        with pytest.raises(UsageError, match=f"blocks of {size} do not fit a plan of 6 visits"):
            probe(model, ids, size=size)
    with pytest.raises(UsageError, match="times must be 1"):
        repeat(model, ids, size=2, times=0)
    with pytest.raises(UsageError, match="2 tokens or more"):
        skip(model, ids[:, :1])
