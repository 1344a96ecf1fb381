"""What the harness loads beside quac.yaml: dialogues as questions, and their F1 (Choi et al. 2018, section 5.1)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from string import punctuation
from typing import Any

NO_ANSWER = "CANNOTANSWER"
AGREEMENT = 0.4  # questions on which people agree less are left out


def questions(dataset: Any) -> Any:
    """A row for each question of each dialogue that people agree on."""
    return dataset.map(_flat, batched=True, batch_size=16, remove_columns=dataset.column_names)


def score(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """F1 of the answer, the better for each of several references left out once, so that people and models are measured alike."""
    return {"f1": held_out_f1(results[0].strip(), doc["references"])}


def held_out_f1(answer: str, references: Sequence[str]) -> float:
    """The mean over references of the best F1 with the others; with one reference the F1 with that."""
    if len(references) == 1:
        return f1(answer, references[0])
    return fmean(max(f1(answer, other) for other in _without(references, i)) for i in range(len(references)))


def agreement(references: Sequence[str]) -> float:
    """The mean over references of the best F1 with another; 1 with one reference."""
    if len(references) == 1:
        return 1.0
    return fmean(max(f1(each, other) for other in _without(references, i)) for i, each in enumerate(references))


def f1(one: str, other: str) -> float:
    """Harmonic mean of precision and recall of words, as SQuAD counts them: lower case, no punctuation, no articles."""
    words, others = _words(one), _words(other)
    shared = (Counter(words) & Counter(others)).total()
    return 2 * shared / (len(words) + len(others)) if shared else 0.0


def references_of(answers: Sequence[str]) -> list[str]:
    """That there is no answer, where at least half of the people say so; else the answers of the others."""
    given = [answer for answer in answers if answer != NO_ANSWER]
    return given if 2 * len(given) > len(answers) else [NO_ANSWER]


def _flat(batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    rows = [
        {"title": title, "section": section, "context": paragraph["context"], **turn}
        for title, section, paragraphs in zip(batch["title"], batch["section_title"], batch["paragraphs"], strict=True)
        for paragraph in paragraphs
        for turn in _turns(paragraph["qas"])
        if agreement(turn["references"]) >= AGREEMENT
    ]
    return {name: [row[name] for row in rows] for name in ("title", "section", "context", "dialogue", "question", "references")}


def _turns(asked: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each question with the dialogue before it, in which the answers are those that were given in it."""
    dialogue = ""
    for each in asked:
        references = references_of([answer["text"] for answer in each["answers"]])
        yield {"dialogue": dialogue, "question": each["question"], "references": references}
        dialogue += f"Q: {each['question']}\n\nA: {each['orig_answer']['text']}\n\n"


def _words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def _without(references: Sequence[str], index: int) -> list[str]:
    return [*references[:index], *references[index + 1 :]]
