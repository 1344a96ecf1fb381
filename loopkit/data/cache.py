"""Text tokenised once: a memory-mapped row of tokens on disk, documents in the order of a hash of what they say.

That order puts a held-out share at the front, whatever its size, keeps copies of a document on one side of the split, and
sets documents apart that lay side by side in their source. Files of a cache folder: ``tokens.bin`` (uint16 or uint32, each
document after an end-of-text token), ``starts.npy``, ``hashes.npy``, ``cache.json``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopkit.checkpoint.atomic import new_folder
from loopkit.data.sources import File, Text
from loopkit.data.tokenizers import Codec, Ids
from loopkit.errors import LoopkitError, UsageError

FORMAT = 1
_CHUNK = 256  # documents tokenised at a time


@dataclass(frozen=True)
class Cache:
    """Tokenised documents: document i, its leading end-of-text token included, is ``tokens[starts[i]:starts[i + 1]]``."""

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    name: str

    def heldout(self, share: float) -> int:
        """How many documents, from the front, are held out: those whose hash is below the share, and at least one.

        Raises UsageError where the source has a single document, or the share is not between 0 and 1.
        """
        if not 0 <= share < 1:
            raise UsageError(f"the held-out share must be 0 or more and below 1, got {share}; e.g. 0.01")
        if share == 0:
            return 0
        documents = len(self.hashes)
        if documents < 2:
            raise UsageError(f"{self.name} is a single document, so none can be held out; give more text, or hold out 0")
        return min(max(int(np.searchsorted(self.hashes, np.uint64(share * 2**64))), 1), documents - 1)


def open_cache(source: Text, codec: Codec, folder: Path, limit: int | None = None) -> Cache:
    """The tokenised text of a source, made now where there is none, its source has changed or a file of it is torn.

    ``limit`` stops after so many tokens. Raises UsageError or LoopkitError where the source cannot be read.
    """
    path = folder / _key(source, codec, limit)
    if not _fresh(path, source.fingerprint()):
        try:
            _build(path, source, codec, limit)
        except OSError as error:  # another process may have put its own there first
            if not _fresh(path, source.fingerprint()):
                raise LoopkitError(f"cannot write the token cache {path} ({error.strerror or error})") from error
    return _load(path, str(source))


def _key(source: Text, codec: Codec, limit: int | None) -> str:
    name = str(Path(source.path).expanduser().resolve()) + "#" + source.column if isinstance(source, File) else str(source)
    return blake2b("\0".join((name, codec.fingerprint, str(limit))).encode(), digest_size=12).hexdigest()


def _fresh(path: Path, fingerprint: str) -> bool:
    """Whether a whole cache of this fingerprint is at ``path``; an empty fingerprint fits any."""
    try:
        about = json.loads((path / "cache.json").read_text(encoding="utf-8"))
        starts, hashes = np.load(path / "starts.npy"), np.load(path / "hashes.npy")
        size = (path / "tokens.bin").stat().st_size
        whole = size == about["tokens"] * np.dtype(about["dtype"]).itemsize and starts[-1] == about["tokens"]
        whole &= len(starts) - 1 == len(hashes) == about["documents"]
    except (OSError, ValueError, KeyError, EOFError):
        return False
    return bool(whole) and about["format"] == FORMAT and fingerprint in ("", about["fingerprint"])


def _load(path: Path, name: str) -> Cache:
    about = json.loads((path / "cache.json").read_text(encoding="utf-8"))
    tokens = np.memmap(path / "tokens.bin", np.dtype(about["dtype"]), "r")
    return Cache(tokens, np.load(path / "starts.npy"), np.load(path / "hashes.npy"), name)


def _build(path: Path, source: Text, codec: Codec, limit: int | None) -> None:
    fingerprint = source.fingerprint()  # before reading, so that a change while reading makes the cache stale
    dtype = np.dtype(np.uint16 if codec.vocab_size <= 1 << 16 else np.uint32)
    with new_folder(path, force=True) as folder:
        lengths, hashes = _write(folder / "arrival.bin", _encoded(source, codec, limit), dtype)
        if not lengths:
            raise UsageError(f"{source} has no text in it")
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        _reorder(folder, np.array(lengths, np.int64), order, dtype)
        np.save(folder / "hashes.npy", np.array(hashes, np.uint64)[order])
        about = {"format": FORMAT, "source": str(source), "fingerprint": fingerprint, "tokenizer": codec.fingerprint}
        about |= {"dtype": dtype.name, "tokens": int(sum(lengths)), "documents": len(lengths)}
        (folder / "cache.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _encoded(source: Text, codec: Codec, limit: int | None) -> Iterator[Ids]:
    left = limit
    documents = source.documents()
    while texts := list(islice(documents, _CHUNK)):
        for ids in codec.encode([text for text in texts if text]):
            if left is not None:
                ids = ids[: max(0, left - 1)]
                left -= len(ids) + 1
            if len(ids):
                yield np.concatenate([np.array([codec.end_id], np.int32), ids])
        if left is not None and left <= 1:
            return


def _write(file: Path, documents: Iterator[Ids], dtype: np.dtype[Any]) -> tuple[list[int], list[int]]:
    """Documents one after the other as they come; their lengths and hashes."""
    lengths, hashes = [], []
    with file.open("wb") as out:
        for ids in documents:
            raw = ids.astype(dtype).tobytes()
            out.write(raw)
            lengths.append(len(ids))
            hashes.append(int.from_bytes(blake2b(raw, digest_size=8).digest(), "little"))
    return lengths, hashes


def _reorder(folder: Path, lengths: NDArray[np.int64], order: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """tokens.bin and starts.npy: the documents of arrival.bin in the given order."""
    arrival = np.memmap(folder / "arrival.bin", dtype, "r")
    ends = np.cumsum(lengths)
    with (folder / "tokens.bin").open("wb") as out:
        for i in order:
            out.write(arrival[ends[i] - lengths[i] : ends[i]].tobytes())
    del arrival
    (folder / "arrival.bin").unlink()
    np.save(folder / "starts.npy", np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[order])]))
