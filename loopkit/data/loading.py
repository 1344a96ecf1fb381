"""From a mixture and a tokenizer's name to batches."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path

import numpy as np

from loopkit.checkpoint.bundled import cache_folder
from loopkit.data.batches import Batches
from loopkit.data.cache import Cache, open_cache
from loopkit.data.counter import key
from loopkit.data.finetuning import pair_rows
from loopkit.data.generated import Asked, TaskRows
from loopkit.data.generated_text import TextTaskRows
from loopkit.data.mixture import Mixture
from loopkit.data.packing import PackedRows, Rows
from loopkit.data.sources import Primitives, Source
from loopkit.data.tasks import Question, Split, Task, find, training_text
from loopkit.data.tasks.task import ANSWER, JOIN
from loopkit.data.tokenizers import WORD, Codec, bpe_codec, byte_codec, checkpoint_codec, word_codec
from loopkit.data.words import closed_words, common_words
from loopkit.errors import UsageError

FORMS = "byte, word, word:8192, bpe:4096, or a folder with a tokenizer.json"
SAMPLE = 10_000_000  # characters of text that a tokenizer is made from


@dataclass(frozen=True)
class Packing:
    """How rows are made: ``rows`` a step (and process) of ``length`` tokens, in the order of ``seed``."""

    rows: int
    length: int
    seed: int = 0
    documents: bool = False  # number the documents of a row, for masking
    answers: bool = False  # of generated questions, count only the answers in the loss
    heldout: float = 0.01  # share of a source's documents
    shots: int = 5  # of generated questions, worked examples ahead of the last one of a document
    limit: int | None = None  # tokens taken of each source

    def __post_init__(self) -> None:
        for name in ("rows", "length"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.shots < 0:
            raise UsageError(f"shots must be 0 or more, got {self.shots}")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"limit must be 2 tokens or more, got {self.limit}")


def open_batches(mixture: Mixture, codec: Codec, packing: Packing, split: Split = "train", cache: Path | None = None) -> Batches:
    """Batches of a mixture; text is tokenised into the ``cache`` folder (the user's by default) where it is not yet.

    ``split="evaluation"`` gives held-out documents, unshuffled, and held-out questions; ``heldout=0`` trains on everything.
    Raises UsageError or LoopkitError where a source cannot be read.
    """
    sources: dict[str, Rows] = {}
    shares: Counter[str] = Counter()
    for part, share in zip(mixture.parts, mixture.shares, strict=True):
        rows = _rows(part.source, codec, packing, split, cache or cache_folder())
        sources |= rows  # a source of two parts goes through its rows once, with the shares of both
        shares.update(dict.fromkeys(rows, share / len(rows)))
    return Batches(sources, tuple(shares.values()), packing.rows, packing.seed, codec.end_id, packing.documents)


def finetuning_batches(examples: list[tuple[str, str]] | list[Question], codec: Codec, packing: Packing) -> Batches:
    """Batches of whole examples with the loss on the answers only. Raises UsageError where one does not fit a row."""
    texts = (each.text if isinstance(each, Question) else "".join(each) for each in examples)
    _check_known(codec, texts, "the examples to fine-tune on")
    rows = pair_rows(examples, codec, packing.length, key("examples", packing.seed))
    return Batches({"examples": rows}, (1.0,), packing.rows, packing.seed, codec.end_id, packing.documents)


def make_codec(form: str, mixture: Mixture, later: Mixture | None = None, characters: int = SAMPLE) -> Codec:
    """The tokenizer of a text form: ``byte``, ``word``, ``word:N``, ``bpe:N`` or a checkpoint folder.

    ``word`` has every word of the tasks of the mixture and of a ``later`` one, and the N (8192) commonest of the mixture's text; ``bpe:N``
    is trained on the mixture.
    """
    if form == "byte":
        return byte_codec()
    if match := re.fullmatch(r"word(?::([1-9]\d*))?", form):
        texts = chain.from_iterable(_texts(part.source, characters) for part in mixture.parts if not isinstance(part.source, Primitives))
        tasks = [*_tasks(mixture), *(_tasks(later) if later else ())]
        return word_codec(closed_words(tasks) | common_words(texts, int(match[1] or 8192)))
    if match := re.fullmatch(r"bpe:([1-9]\d*)", form):
        shares = zip(mixture.parts, mixture.shares, strict=True)
        texts = chain.from_iterable(_texts(part.source, int(characters * share)) for part, share in shares)
        return bpe_codec(texts, int(match[1]))
    if Path(form).is_dir():
        return checkpoint_codec(Path(form))
    raise UsageError(f"{form!r} is no tokenizer; {FORMS}")


def _rows(source: Source, codec: Codec, packing: Packing, split: Split, cache: Path) -> dict[str, Rows]:
    if isinstance(source, Primitives):
        return {name: _task_rows(find(name), codec, packing, split) for name in source.names}
    opened = open_cache(source, codec, cache, packing.limit)
    stream = key("rows", packing.seed, str(source))
    return {str(source): PackedRows(_part(opened, packing.heldout, split), packing.length, stream, shuffle=split == "train")}


def _task_rows(task: Task, codec: Codec, packing: Packing, split: Split) -> Rows:
    _check_known(codec, (*task.pieces, ANSWER, JOIN), task.name)
    asked = Asked(task, codec, packing.length, packing.seed, split, packing.answers, packing.shots + 1)
    return TextTaskRows(asked) if codec.kind == "other" else TaskRows(asked)


def _check_known(codec: Codec, texts: Iterable[str], where: str) -> None:
    """Raises UsageError where there is a word of which a word-level tokenizer would make ``<unk>``."""
    if codec.kind != "word":
        return
    words = {word for text in texts for word in re.findall(WORD, text)}
    unknown = sorted(words - set(codec.core.get_vocab(with_added_tokens=True)))
    if unknown:
        raise UsageError(
            f"the word tokenizer does not know {unknown[0]!r} of {where}; name what holds it in data.mix of the run that makes the"
            f" tokenizer, or train with --tokenizer byte"
        )


def _part(cache: Cache, share: float, split: Split) -> np.ndarray:
    cut = cache.starts[cache.heldout(share)]
    if split != "train" and cut == 0:
        raise UsageError(f"nothing of {cache.name} is held out to evaluate on; hold out a share such as 0.01")
    return cache.tokens[cut:] if split == "train" else cache.tokens[:cut]


def _tasks(mixture: Mixture) -> list[Task]:
    return [find(name) for part in mixture.parts if isinstance(part.source, Primitives) for name in part.source.names]


def _texts(source: Source, characters: int) -> Iterator[str]:
    """The first documents of a source, up to so many characters; of tasks, questions in turn."""
    for text in _questions(source) if isinstance(source, Primitives) else source.documents():
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def _questions(source: Primitives) -> Iterator[str]:
    for block, name in enumerate(cycle(source.names)):
        yield JOIN.join(training_text(find(name), 0, block * 64, 64))
