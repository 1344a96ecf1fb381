"""Tokenizers: exact text for bytes and BPE, a token a word, and a folder that reads back as the same tokenizer."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopkit.checkpoint.tokenizer import open_tokenizer
from loopkit.data.generated import piece_table
from loopkit.data.loading import make_codec
from loopkit.data.mixture import parse_mixture
from loopkit.data.tasks import PAPER, draw, find, questions
from loopkit.data.tasks.task import texts
from loopkit.data.tokenizers import END, Codec, bpe_codec, byte_codec, checkpoint_codec, word_codec
from loopkit.data.words import closed_words, common_words
from loopkit.errors import LoopkitError, UsageError

TASKS = (*PAPER, "p-hop-2", "addition-3", "var-basic-6", "arithmetic-3", "word-problem-3", "substitution-3")
SAMPLE = ["def f(x):\n    return x + 1\n", "naïve café 1234 ☃", "one two three " * 50]


@pytest.fixture(scope="module")
def bpe() -> Codec:
    return bpe_codec(SAMPLE * 3, 290)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_bytes_round_trip(text):
    codec = byte_codec()
    [ids] = codec.encode([text])
    assert ids.tolist() == [byte + 1 for byte in text.encode()]
    assert codec.decode(ids) == text
    assert codec.core.encode(text).ids == [0, *ids.tolist()] or END in text  # the saved tokenizer reads it as a document


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_bpe_round_trips_any_text(bpe, text):
    assert bpe.decode(bpe.encode([text])[0]) == text


def test_bpe_learns_and_is_deterministic(bpe):
    assert bpe.vocab_size == 290
    assert len(bpe.encode(["one two three"])[0]) < 8
    assert len(bpe.encode(["1234"])[0]) == 4  # single digits
    assert bpe.fingerprint == bpe_codec(SAMPLE * 3, 290).fingerprint
    with pytest.raises(UsageError, match="at least 257"):
        bpe_codec(SAMPLE, 256)


@pytest.mark.parametrize("name", TASKS)
def test_words_are_tokens(name):
    codec = word_codec(closed_words([find(name)]))
    for question in questions(find(name), "train", 0, 20):
        [ids] = codec.encode([question.text])
        assert len(ids) == len(re.findall(r"\w+|->|\n|[^\w\s]", question.text))
        assert 1 not in ids  # nothing unknown
        if not re.match("var-code|var-math|addition|arithmetic|substitution", name):
            assert codec.decode(ids) == question.text
        assert codec.decode(ids).replace(" ", "") == question.text.replace(" ", "")


def test_words_not_known():
    codec = word_codec(["jic"])
    assert codec.encode(["jic dqy"])[0].tolist() == [2, 1]
    assert common_words(["b b c a"], 2) == {"b", "a"}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("form", ["byte", "word"])
def test_ids_of_pieces_are_ids_of_their_text(name, form):
    """What makes generation fast: no text is ever built."""
    task = find(name)
    codec = make_codec(form, parse_mixture(f"primitives:{name}"))
    prompt = draw(task, "train", 0, np.arange(10)).prompt
    ids, lengths = piece_table(codec, task.pieces).expand(prompt.reshape(-1))
    assert ids.tolist() == np.concatenate(codec.encode(texts(task, prompt))).tolist()
    assert lengths.sum() == len(ids)


@pytest.mark.parametrize("form", ["byte", "word", "bpe"])
def test_a_saved_folder_is_the_same_tokenizer(tmp_path, bpe, form):
    codec = {"byte": byte_codec(), "word": word_codec(["jic", "dqy"]), "bpe": bpe}[form]
    codec.save(tmp_path)
    again = checkpoint_codec(tmp_path)
    assert (again.fingerprint, again.kind, again.end_id, again.vocab_size) == (codec.fingerprint, codec.kind, 0, codec.vocab_size)
    opened = open_tokenizer(tmp_path)
    assert opened.special["bos_token"] == opened.special["eos_token"] == END
    assert opened.end_ids == {0}
    assert opened.encode(f"jic{END}")[-1] == 0
    assert opened.decode([0]) == END
    copied = tmp_path / "copy"
    copied.mkdir()
    again.save(copied)
    assert (copied / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert json.loads((copied / "tokenizer_config.json").read_text())["eos_token"] == END


def test_word_level_streams_as_it_decodes(tmp_path):
    codec = word_codec(closed_words([find("copy-words")]))
    codec.save(tmp_path)
    text = questions(find("copy-words"), "train", 0, 1)[0].text
    step = open_tokenizer(tmp_path).streaming_decoder()
    assert "".join(step(int(i)) or "" for i in codec.encode([text])[0]) == text


@pytest.mark.parametrize("form", ["byte", "word", "bpe"])
def test_no_text_ends_its_document_early(bpe, form):
    codec = {"byte": byte_codec(), "word": word_codec(["a", "endoftext"]), "bpe": bpe}[form]
    assert 0 not in codec.encode([f"a{END}a"])[0]
    assert 0 not in codec.encode_spans([f"a{END}a"])[0][0]


def test_bad_tokenizers(tmp_path):
    mixture = parse_mixture("primitives")
    for form in ("bytes", "bpe", "bpe:0", "word:-1", str(tmp_path / "none")):
        with pytest.raises(UsageError, match="is no tokenizer; byte, word"):
            make_codec(form, mixture)
    with pytest.raises(LoopkitError, match=r"no tokenizer\.json"):
        make_codec(str(tmp_path), mixture)
    bare = json.loads(word_codec(["a"]).core.to_str().replace(END, "[gone]"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(bare))
    with pytest.raises(LoopkitError, match="nor an eos_token"):
        checkpoint_codec(tmp_path)


def test_tokenizers_made_from_a_mixture(tmp_path):
    (tmp_path / "a.txt").write_text("alpha beta beta gamma\n" * 30)
    mixture = parse_mixture(f"file:{tmp_path}/a.txt + primitives:copy-words-32")
    words = make_codec("word:3", mixture)
    assert words.vocab_size == 2 + len(closed_words([find("copy-words-32")]) | {"beta", "alpha"} | {"\n"})
    assert make_codec("bpe:400", mixture, characters=20_000).vocab_size == 400
