"""Sources and mixtures: exact round trips, and one clear line for bad input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.data import hub
from loopkit.data.files import read_pairs
from loopkit.data.mixture import Mixture, Part, mixture_from_tables, parse_mixture
from loopkit.data.sources import File, Hub, Primitives, Stdlib, parse_source
from loopkit.data.tasks import PAPER
from loopkit.errors import LoopkitError, UsageError

words = st.text(min_size=1, max_size=20)
sources = st.one_of(
    st.builds(Primitives, st.lists(st.sampled_from(PAPER), max_size=3).map(tuple)),
    st.just(Stdlib()),
    st.builds(File, words, st.text(max_size=9)),
    st.builds(Hub, words, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9)),
)
weights = st.floats(min_value=1e-300, allow_infinity=False, allow_nan=False)
mixtures = st.lists(st.builds(Part, sources, weights), min_size=1, max_size=4).map(tuple).map(Mixture)


@given(sources)
def test_sources_round_trip(source):
    assert parse_source(str(source)) == source


@given(mixtures)
def test_mixtures_are_read_from_text_and_tables(mixture):
    assert parse_mixture(str(mixture)) == mixture
    assert mixture_from_tables({"source": str(part.source), "weight": part.weight} for part in mixture.parts) == mixture


def test_forms():
    mixture = parse_mixture("0.7*stdlib + 0.3*primitives:copy-words,var-basic-0 + file:my notes.txt + hf:a/b:c@test#body")
    assert [part.source for part in mixture.parts] == [
        Stdlib(),
        Primitives(("copy-words", "var-basic-0")),
        File("my notes.txt"),
        Hub("a/b", "c", "test", "body"),
    ]
    assert [part.weight for part in mixture.parts] == [0.7, 0.3, 1, 1]
    assert sum(mixture.shares) == pytest.approx(1)
    assert str(parse_mixture("stdlib + 2*primitives")) == "stdlib + 2.0*primitives"
    assert Primitives().names == PAPER


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stdlb", "did you mean stdlib"),
        ("", "is no source"),
        ("file:", "is no source"),
        ("stdlib:x", "is no source"),
        ("primitives:copy-wrods", "nearest: copy-words"),
        ("primitives:", "empty task name"),
        ("0*stdlib", "above 0"),
        ("1.2.3*stdlib", "bad weight"),
        ("stdlib + ", "is no source"),
    ],
)
def test_bad_mixtures(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse_mixture(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tables",
    [[], [{"weight": 1.0}], [{"source": "stdlib", "wait": 1}], [{"source": "stdlib", "weight": "1"}], [{"source": "stdlib", "weight": -1}]],
)
def test_bad_tables(tables):
    with pytest.raises(UsageError):
        mixture_from_tables(tables)


def test_the_standard_library():
    source = Stdlib()
    source.check()
    texts = list(source.documents())
    assert sum(map(len, texts)) > 3_000_000
    assert source.fingerprint() == source.fingerprint()


def test_text_files(tmp_path):
    file = tmp_path / "a.txt"
    paragraph = "word " * 200 + "\n\n"
    file.write_text(paragraph * 30)
    texts = list(File(str(file)).documents())
    assert "".join(texts) == paragraph * 30
    assert len(texts) == 4
    assert all(len(text) >= 8192 for text in texts[:-1])
    file.write_text("one\n\nstill one\n<|endoftext|>\ntwo\n")
    assert list(File(str(file)).documents()) == ["one\n\nstill one\n", "two\n"]


def test_jsonl_and_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": "one", "body": "eins", "n": 1}, {"text": "two ☃", "body": "zwei", "n": 2}]
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    for file in (lines, table):
        assert list(File(str(file)).documents()) == ["one", "two ☃"]
        assert list(File(str(file), "body").documents()) == ["eins", "zwei"]
        with pytest.raises(UsageError, match="no column 'txt'; it has text, body, n"):
            File(str(file), "txt").check()
        with pytest.raises(UsageError, match=r"column 'n' .* holds int(64)?, not text"):
            File(str(file), "n").check()
    assert read_pairs(lines, "text", "body") == [("one", "eins"), ("two ☃", "zwei")]
    lines.write_text('{"text": "\\ud800"}')
    assert list(File(str(lines)).documents()) == ["?"]


def test_bad_files(tmp_path):
    def says(name: str, content: bytes | None, column: str = "") -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(LoopkitError) as caught:
            File(str(tmp_path / name), column).check()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no text in it" in says("empty.txt", b"")
    assert "no text in it" in says("blank.txt", b"\n \n")
    assert "no text in it" in says("empty.jsonl", b"\n")
    assert "does not exist; " in says("empti.txt", None)
    assert "empty.txt" in says("empti.txt", None)
    assert "is a folder" in says("", None)
    assert ".txt, .jsonl and .parquet" in says("a.csv", b"a,b")
    assert "no columns" in says("empty.txt", None, "text")
    assert "line 2 is not JSON" in says("bad.jsonl", b'{"text": " "}\n{')
    assert "line 1 is not a JSON object" in says("list.jsonl", b"[1]")
    assert "not UTF-8" in says("latin.txt", "é".encode("latin-1"))
    assert "not a parquet file" in says("bad.parquet", b"nothing of the kind")
    with pytest.raises(UsageError, match="does not exist"):
        File(str(tmp_path / "gone.txt")).fingerprint()
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UsageError, match="no rows"):
        read_pairs(tmp_path / "none.jsonl")


def test_hub_datasets(monkeypatch):
    import datasets

    def load(name, config, split, streaming):
        assert streaming
        if name == "gone":
            raise FileNotFoundError("no such dataset\nmany more lines")
        return [{"text": "one"}, {"text": None}] if split == "train" else []

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(Hub("a/b").documents()) == ["one", ""]
    with pytest.raises(UsageError, match="no column 'body'; it has text"):
        Hub("a/b", column="body").check()
    with pytest.raises(UsageError, match="no rows in split 'test'"):
        Hub("a/b", split="test").check()
    with pytest.raises(LoopkitError, match=r"'gone' cannot be had \(no such dataset\)"):
        Hub("gone").check()


def test_a_hub_out_of_reach_has_no_revision(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    assert hub.revision("a/b") == ""
