"""How names of tasks and groups become tasks."""

import pytest

from loopkit.data.tasks import PAPER
from loopkit.errors import UsageError
from loopkit.evaluation.groups import GROUPS, Asked, expand, notes


def test_the_paper_has_five_groups_with_its_numbers_of_examples() -> None:
    assert {name: group.shots for name, group in GROUPS.items()} == {
        "paper/closed-book": 0,
        "paper/open-book": 0,
        "paper/completion": 0,
        "paper/math-word": 5,
        "paper/primitives": 5,
    }
    assert expand("paper/primitives") == expand("copy-random, primitives") == [Asked(name, 5, True) for name in PAPER]


def test_names_become_tasks_once_each() -> None:
    assert expand(" hellaswag, paper/completion,copy-words ,gsm8k,") == [
        Asked("hellaswag", None, False),
        Asked("lambada_openai", 0, False),
        Asked("copy-words", 5, True),
        Asked("gsm8k", None, False),
    ]
    assert {each.shots for each in expand("paper/math-word,copy-words,gsm8k", shots=2)} == {2}


def test_a_generated_task_without_its_number() -> None:
    with pytest.raises(UsageError, match="var-math needs a number"):
        expand("var-math")


def test_what_differs_from_the_paper_is_said() -> None:
    assert [note.split(":")[0] for note in notes("hellaswag, paper/open-book")] == ["paper/open-book"]
    assert "QuAC" in notes("paper/open-book")[0]
    assert sum(len(group.tasks) for name, group in GROUPS.items() if name != "paper/primitives") + 8 == 22  # tasks of section 3.2
    assert not notes("paper/completion")
