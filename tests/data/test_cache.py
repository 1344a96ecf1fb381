"""The token cache: every document once, made anew when the text changes or a file is torn, and only then."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from loopkit.data import cache as cache_module
from loopkit.data.cache import open_cache
from loopkit.data.sources import File
from loopkit.data.tokenizers import byte_codec, word_codec
from loopkit.errors import LoopkitError, UsageError

DOCUMENTS = [f"document {i} " * (i % 7 + 1) for i in range(300)]


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    return File(str(file))


@pytest.fixture
def builds(monkeypatch):
    """The names of the caches built so far."""
    built = []
    build = cache_module._build

    def counted(path, *rest):
        built.append(path.name)
        build(path, *rest)

    monkeypatch.setattr(cache_module, "_build", counted)
    return built


def texts(cache):
    codec = byte_codec()
    parts = [cache.tokens[a:b] for a, b in zip(cache.starts, cache.starts[1:], strict=False)]
    assert all(part[0] == codec.end_id and codec.end_id not in part[1:] for part in parts)
    return [codec.decode(part[1:]) for part in parts]


def test_every_document_once(source, tmp_path):
    cache = open_cache(source, byte_codec(), tmp_path / "cache")
    assert sorted(texts(cache)) == sorted(DOCUMENTS)
    assert texts(cache) != DOCUMENTS
    assert cache.tokens.dtype == np.uint16
    assert (np.diff(cache.hashes.astype(object)) >= 0).all()
    assert {file.name for file in next((tmp_path / "cache").iterdir()).iterdir()} == {
        "tokens.bin",
        "starts.npy",
        "hashes.npy",
        "cache.json",
    }


def test_large_vocabularies_take_four_bytes(source, tmp_path):
    codec = word_codec(f"w{'a' * (i % 9)}{i}" for i in range(70_000))
    assert open_cache(source, codec, tmp_path / "cache").tokens.dtype == np.uint32


def test_made_once_and_again_when_the_file_changes(source, tmp_path, builds):
    for _ in range(3):
        open_cache(source, byte_codec(), tmp_path / "cache")
    assert len(builds) == 1
    open_cache(source, word_codec(["document"]), tmp_path / "cache")  # another tokenizer, another cache
    assert len(set(builds)) == 2
    with Path(source.path).open("a") as file:
        file.write('\n{"text": "one more"}')
    assert "one more" in texts(open_cache(source, byte_codec(), tmp_path / "cache"))
    assert len(builds) == 3
    os.utime(source.path, ns=(1, 1))
    open_cache(source, byte_codec(), tmp_path / "cache")
    open_cache(source, byte_codec(), tmp_path / "cache")
    assert len(builds) == 4
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the old ones are gone


@pytest.mark.parametrize("name", ["tokens.bin", "starts.npy", "hashes.npy", "cache.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, None])
def test_a_torn_cache_is_made_again(source, tmp_path, builds, name, keep):
    open_cache(source, byte_codec(), tmp_path / "cache")
    file = tmp_path / "cache" / builds[0] / name
    if keep is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    assert sorted(texts(open_cache(source, byte_codec(), tmp_path / "cache"))) == sorted(DOCUMENTS)
    assert len(builds) == 2


def test_another_process_may_win_the_race(source, tmp_path, monkeypatch):
    build = cache_module._build

    def loses(*arguments):
        build(*arguments)
        raise OSError("Directory not empty")

    monkeypatch.setattr(cache_module, "_build", loses)
    assert len(texts(open_cache(source, byte_codec(), tmp_path / "cache"))) == len(DOCUMENTS)


def test_a_folder_that_cannot_be_written(source, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(LoopkitError, match="cannot write the token cache"):
        open_cache(source, byte_codec(), tmp_path / "cache")


def test_a_limit_of_tokens(source, tmp_path):
    cache = open_cache(source, byte_codec(), tmp_path / "cache", limit=1000)
    assert len(cache.tokens) == 1000
    assert len(open_cache(source, byte_codec(), tmp_path / "cache").tokens) > 1000


def test_the_held_out_share(source, tmp_path):
    """Stable, growing with the share, by what a document says: other documents do not move it."""
    cache = open_cache(source, byte_codec(), tmp_path / "cache")
    counts = [cache.heldout(share) for share in (0, 1e-9, 0.1, 0.5, 0.999999)]
    assert counts == sorted(counts)
    assert counts[:2] == [0, 1]
    assert 15 < counts[2] < 50
    assert counts[4] == len(DOCUMENTS) - 1 or counts[4] == len(DOCUMENTS) - 0
    held = set(texts(cache)[: counts[2]])
    other = File(str(tmp_path / "b.jsonl"))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in [*DOCUMENTS[::-1], *(["new"] * 9)]))
    more = open_cache(other, byte_codec(), tmp_path / "cache")
    assert held == set(texts(more)[: more.heldout(0.1)]) - {"new"}
    for bad in (-0.1, 1, float("nan")):
        with pytest.raises(UsageError, match="0 or more and below 1"):
            cache.heldout(bad)


def test_one_document_cannot_be_split(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    cache = open_cache(File(str(tmp_path / "a.txt")), byte_codec(), tmp_path / "cache")
    assert cache.heldout(0) == 0
    with pytest.raises(UsageError, match="single document"):
        cache.heldout(0.1)
