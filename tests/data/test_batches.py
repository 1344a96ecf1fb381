"""Batches: a pure function of seed and step, every token once an epoch, the same rows for any number of processes."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loopkit.data.batches import BLOCK, Batches, block_counts
from loopkit.data.counter import key
from loopkit.data.loading import Packing, finetuning_batches, make_codec, open_batches
from loopkit.data.mixture import parse_mixture
from loopkit.data.packing import PackedRows
from loopkit.data.tasks import PAPER, find, questions
from loopkit.data.tokenizers import bpe_codec, byte_codec
from loopkit.errors import UsageError


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A jsonl file of 200 documents."""
    file = tmp_path_factory.mktemp("text") / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": f"<{i}>" + "abc" * (i % 50)}) for i in range(200)))
    return file


@pytest.fixture(scope="module")
def open_mixture(text):
    """Batches of a mixture in a cache of the tests' own; FILE stands for the text file."""

    def opened(mixture: str, form: str = "byte", split="train", heldout=0.1, rows=8, length=64, **options) -> Batches:
        parsed = parse_mixture(mixture.replace("FILE", f"file:{text}"))
        codec = bpe_codec(["copy fill the blank"] * 9, 280) if form == "bpe" else make_codec(form, parsed, characters=10_000)
        packing = Packing(rows, length, heldout=heldout, **options)
        return open_batches(parsed, codec, packing, split, text.parent / "cache")

    return opened


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True) if x is not None or y is not None)


MIXTURES = ("FILE", "primitives", "0.7*FILE + 0.3*primitives:copy-words-200,p-hop-4")


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("form", ["byte", "word", "bpe"])
def test_a_step_is_the_same_in_any_order(open_mixture, mixture, form):
    """Called backwards, twice, in another object: the same batch; another seed: another."""
    options = {"documents": True, "answers": True, "rows": 4}
    first, second = open_mixture(mixture, form, **options), open_mixture(mixture, form, **options)
    steps = [0, 1, 5, 1000, 10**7]
    forwards = [first.at(step) for step in steps]
    backwards = [second.at(step) for step in reversed(steps)][::-1]
    assert all(map(same, forwards, backwards))
    assert same(first.at(5), forwards[2])
    assert not same(forwards[0], forwards[1])
    assert not same(open_mixture(mixture, form, seed=1, **options).at(0), forwards[0])


@pytest.mark.parametrize("mixture", MIXTURES)
def test_shapes_and_targets(open_mixture, mixture):
    batch = open_mixture(mixture).at(3)
    assert batch.ids.shape == batch.targets.shape == (8, 64)
    assert batch.ids.dtype == batch.targets.dtype == np.int32
    assert batch.loss_mask is None
    assert batch.documents is None
    assert (batch.ids[:, 1:] == batch.targets[:, :-1]).all()


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_rows_of_the_larger_batch(open_mixture, mixture, world):
    small, large = open_mixture(mixture, rows=4), open_mixture(mixture, rows=4 * world)
    for step in (0, 7):
        parts = np.concatenate([small.at(step, rank, world).ids for rank in range(world)])
        assert np.array_equal(parts, large.at(step).ids)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 30), st.integers(0, 2**31), st.integers(0, 5))
def test_an_epoch_has_every_token_once_as_a_target(tokens, length, seed, epoch):
    rows = PackedRows(np.arange(tokens), length, key("test", seed))
    ids, mask = rows.rows(np.arange(epoch * rows.size, (epoch + 1) * rows.size))
    assert mask is None
    assert ids.shape == (rows.size, length + 1)
    assert ((ids[:, 1:] - ids[:, :-1]) % tokens == 1 % tokens).all()  # runs of the text, the end joined to the beginning
    seen = Counter(ids[:, 1:].reshape(-1).tolist())
    if tokens >= length:
        assert set(seen.values()) == {1}
        assert len(seen) == rows.size * length > tokens - length
    if tokens % length == 0:
        assert len(seen) == tokens


def test_epochs_reshuffle_and_move_the_cut():
    rows = PackedRows(np.arange(640), 64, key("test"))
    first, second = rows.rows(np.arange(10))[0], rows.rows(np.arange(10, 20))[0]
    assert first[:, 0].tolist() != second[:, 0].tolist()
    assert set((first[:, 0] % 64).tolist()) != set((second[:, 0] % 64).tolist())


def test_held_out_documents_are_never_trained_on(open_mixture):
    def documents(batches: Batches) -> set[bytes]:
        [rows] = batches.sources.values()
        joined = rows.tokens.astype(np.uint16)
        return {part.tobytes() for part in np.split(joined, np.flatnonzero(joined == 0))[1:]}

    train, held = (documents(open_mixture("FILE", split=split)) for split in ("train", "evaluation"))
    assert not train & held
    assert len(train | held) == 200
    assert 8 < len(held) < 40
    assert held == documents(open_mixture("FILE", split="evaluation", seed=5))  # runs of any seed compare
    with pytest.raises(UsageError, match="held out to evaluate on"):
        open_mixture("FILE", split="evaluation", heldout=0.0)
    in_order = open_mixture("FILE", split="evaluation", rows=2)
    [rows] = in_order.sources.values()
    assert rows.rows(np.arange(1))[0][0].tolist() == rows.tokens[:65].tolist()


def test_generated_evaluation_rows_are_other_questions(open_mixture):
    codec = byte_codec()

    def asked(split):
        text = "".join(codec.decode(row) for row in open_mixture("primitives:var-basic-0", split=split, length=512).at(0).ids)
        return {part for part in text.replace("<|endoftext|>", "\n\n").split("Fill in blank:\n\n") if "->" in part}

    assert len(asked("train")) > 50
    assert not asked("train") & asked("evaluation")


def test_the_mixture_keeps_its_shares(open_mixture):
    batches = open_mixture("3*FILE + primitives:copy-words-200 + 2*primitives:addition-2")
    numbers = np.arange(2 * BLOCK)
    source, within = batches._assign(numbers)
    for block in (source[:BLOCK], source[BLOCK:]):
        assert np.bincount(block).tolist() == [2048, 683, 1365]
    for i in range(3):
        assert within[source == i].tolist() == list(range((source == i).sum()))  # each source's rows in their order
    assert 3 < np.bincount(source[:12], minlength=3)[0] < 12  # well mixed


class Numbers:
    """Rows of one source that hold their own number."""

    def rows(self, numbers):
        return np.repeat(numbers[:, None], 3, axis=1), None


def numbered_batches(shares: dict[str, float], rows: int) -> Batches:
    return Batches(dict.fromkeys(shares, Numbers()), tuple(shares.values()), rows, 0, 0)


weights = st.dictionaries(st.sampled_from("abcd"), st.floats(0.05, 1), min_size=1)


@settings(max_examples=40)
@given(weights, weights, st.integers(0, 120), st.integers(1, 90), st.integers(1, 3))
def test_a_later_mixture_goes_on_with_rows_not_read_before(first, second, began, rows, world):
    before = numbered_batches(first, rows)
    after = numbered_batches(second, rows).after(before, began)
    given = {name: [] for name in first | second}
    for step in range(began + 60):
        batches = before if step < began else after
        for rank in range(world):
            numbers = np.arange(rows) + (step * world + rank) * rows
            for name, row in zip(batches._assign(numbers)[0], batches.at(step, rank, world).ids[:, 0], strict=True):
                given[list(batches.sources)[name]].append(int(row))
    for found in given.values():
        assert found == list(range(len(found)))


def test_the_same_mixture_goes_on_as_if_nothing_were_said(open_mixture):
    before = open_mixture(MIXTURES[2])
    after = open_mixture(MIXTURES[2]).after(before, 300)
    assert all(same(before.at(step), after.at(step)) for step in (300, 301, 1000))


def test_a_source_in_two_parts_gives_each_row_once(open_mixture):
    task = "primitives:copy-words-200"
    twice = open_mixture(f"0.5*{task} + 0.2*FILE + 0.1*{task},addition-2 + 0.2*FILE")
    assert next(iter(twice.sources)) == "copy-words-200"
    assert twice.shares == pytest.approx((0.55, 0.4, 0.05))


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6))
def test_block_counts_add_up(shares):
    assume(min(shares) / sum(shares) > 1.01 / BLOCK)
    counts = np.array(block_counts(shares))
    assert counts.sum() == BLOCK
    assert abs(counts / BLOCK - np.array(shares) / sum(shares)).max() < 1 / BLOCK


def test_a_share_too_small_is_refused(open_mixture):
    with pytest.raises(UsageError, match="1/4096"):
        open_mixture("FILE + 1e-9*primitives").at(0)


def test_documents_of_a_row(open_mixture):
    batch = open_mixture("FILE", documents=True).at(0)
    assert batch.documents is not None
    assert (batch.documents[:, 0] == 0).all()
    begins = batch.ids[:, 1:] == 0
    assert (np.diff(batch.documents, axis=1) == begins).all()


@pytest.mark.parametrize("form", ["byte", "word", "bpe"])
@pytest.mark.parametrize("name", [*PAPER, "addition-2", "p-hop-4"])
def test_answers_are_what_the_loss_counts(open_mixture, form, name):
    """The masked targets of a row spell the answers of its questions, in each tokenizer's own way of making rows."""
    batches = open_mixture(f"primitives:{name}", form, rows=3, length=700, answers=True)
    codec = batches.sources[name].asked.codec
    batch = batches.at(1)
    assert batch.loss_mask is not None
    first = batches._assign(np.arange(3, 6))[1]
    for row, number in enumerate(first):
        asked = questions(find(name), "train", 0, 6, int(number) << 20)
        answers = codec.decode(batch.targets[row][batch.loss_mask[row]])
        expected = "".join(question.text[len(question.prompt) :] for question in asked)
        short = min(len(answers.replace(" ", "")), len(expected.replace(" ", "")))
        assert short > 0
        assert answers.replace(" ", "")[:short] == expected.replace(" ", "")[:short]


@pytest.mark.parametrize("shots", [0, 2, 5])
def test_rows_of_text_and_of_pieces_are_the_same(open_mixture, shots):
    """Both ways of making rows write the same documents, of so many worked examples and a question."""
    texts = [
        open_mixture("primitives:var-basic-0", form, length=900, rows=2, shots=shots).sources["var-basic-0"].rows(np.arange(2))[0]
        for form in ("byte", "bpe")
    ]
    pieces, bpe = byte_codec().decode(texts[0][0]), bpe_codec(["copy fill the blank"] * 9, 280).decode(texts[1][0])
    assert pieces[:700] == bpe[:700]
    first, *others = pieces.split("<|endoftext|>")
    assert first == ""
    assert {document.count("Fill in blank") for document in others[:-1]} == {shots + 1}


def test_fine_tuning_rows():
    codec = byte_codec()
    asked = questions(find("var-basic-0"), "train", 0, 10)
    batches = finetuning_batches(asked, codec, Packing(rows=2, length=130, documents=True))
    seen = []
    for step in range(3):
        batch = batches.at(step)
        assert batch.loss_mask is not None
        for row in range(2):
            counted = codec.decode(batch.targets[row][batch.loss_mask[row]])
            read = [part for part in codec.decode(batch.ids[row]).split("<|endoftext|>") if part]
            assert counted == "".join(part[part.index("->") + 2 :] + "<|endoftext|>" for part in read)
            seen += read
    assert Counter(seen[:10]) == Counter(question.text for question in asked)  # an epoch asks each once
    assert same(batches.at(1), batches.at(1))
    pairs = finetuning_batches([("2+2=", "4")], codec, Packing(rows=1, length=8)).at(0)
    assert pairs.loss_mask is not None
    assert codec.decode(pairs.targets[0][pairs.loss_mask[0]]) == "4<|endoftext|>"
    merged = bpe_codec(["of France: Paris"] * 9, 300)
    for pair in (("of France: ", "Paris"), ("of France:", " Paris")):
        batch = finetuning_batches([pair], merged, Packing(rows=1, length=16)).at(0)
        assert batch.loss_mask is not None
        assert merged.decode(batch.targets[0][batch.loss_mask[0]]) == " Paris<|endoftext|>"
    with pytest.raises(UsageError, match="raise the sequence length"):
        finetuning_batches(asked, codec, Packing(rows=2, length=20))
    with pytest.raises(UsageError, match="at least one example"):
        finetuning_batches([], codec, Packing(rows=2, length=20))


def test_text_shorter_than_a_row_comes_round(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    mixture = parse_mixture(f"file:{tmp_path}/a.txt")
    batch = open_batches(mixture, byte_codec(), Packing(2, 10, heldout=0), cache=tmp_path / "cache").at(0)
    assert byte_codec().decode(batch.ids[0]).count("abc") >= 1


def test_bad_packings():
    for wrong in ({"rows": 0, "length": 8}, {"rows": 1, "length": 0}):
        with pytest.raises(UsageError, match="must be 1 or more"):
            Packing(**wrong)
    with pytest.raises(UsageError, match="2 tokens or more"):
        Packing(1, 8, limit=1)
    with pytest.raises(UsageError, match="shots must be 0 or more"):
        Packing(1, 8, shots=-1)
