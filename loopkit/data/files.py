"""Documents in files: plain text, one JSON object a line, parquet."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loopkit.errors import LoopkitError, UsageError

END_LINE = "<|endoftext|>"  # a line so in a text file separates its documents
MIN_CHARACTERS = 8192  # of a document cut from a text file
COLUMN = "text"


def read_documents(path: Path, column: str = "") -> Iterator[str]:
    """The documents of a file; ``column`` of jsonl and parquet is ``text`` where not given.

    Raises UsageError at a missing or empty file, an unknown kind, a column that is not there; LoopkitError at a file that
    cannot be read.
    """
    reader = reader_of(path, column)
    try:
        empty = True
        for document in reader(path, column or COLUMN):
            if document.strip():
                empty = False
                yield document
    except UnicodeDecodeError as error:
        raise LoopkitError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); convert it first") from error
    except OSError as error:
        raise LoopkitError(f"{path} cannot be read ({error.strerror or error})") from error
    if empty:
        raise UsageError(f"{path} has no text in it")


def read_pairs(path: Path, prompt: str = "prompt", answer: str = "answer") -> list[tuple[str, str]]:
    """Prompts and answers for fine-tuning: two columns of a jsonl file. Raises as ``read_documents``."""
    reader_of(path, prompt)
    pairs = [(_string(row, prompt, where), _string(row, answer, where)) for where, row in _rows(path)]
    if not pairs:
        raise UsageError(f"{path} has no rows in it")
    return pairs


def reader_of(path: Path, column: str) -> Callable[[Path, str], Iterator[str]]:
    """What reads this kind of file. Raises UsageError at a missing file, a folder, another kind, a column of plain text."""
    if not path.exists():
        near = sorted(each.name for each in path.parent.glob(f"*{path.suffix}"))[:5] if path.suffix and path.parent.is_dir() else []
        raise UsageError(f"{path} does not exist" + (f"; {path.parent} has {', '.join(near)}" if near else ""))
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a .txt, .jsonl or .parquet file")
    if path.suffix == ".txt" and column:
        raise UsageError(f"a text file has no columns; write file:{path}")
    readers = {".txt": _text, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UsageError(f"{path} is no kind of file that can be read; .txt, .jsonl and .parquet can")
    return readers[path.suffix]


def _text(path: Path, _: str) -> Iterator[str]:
    """A text file's documents: between ``<|endoftext|>`` lines, and cut at the first blank line after 8192 characters.

    The cuts keep memory small and let part of a single book be held out.
    """
    lines: list[str] = []
    characters = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            ended = line.strip() == END_LINE
            if not ended:
                lines.append(line)
                characters += len(line)
            if ended or (characters >= MIN_CHARACTERS and not line.strip()):
                yield "".join(lines)
                lines, characters = [], 0
    yield "".join(lines)


def _jsonl(path: Path, column: str) -> Iterator[str]:
    for where, row in _rows(path):
        yield "" if column in row and row[column] is None else _string(row, column, where)  # null is no text, as in parquet


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise LoopkitError(f"{path} line {number} is not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise LoopkitError(f"{path} line {number} is not a JSON object")
            yield f"{path} line {number}", row


def _string(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise UsageError(f"{where} has no column {column!r}; it has {', '.join(map(str, row)) or 'none'}")
    if not isinstance(row[column], str):
        raise UsageError(f"column {column!r} of {where} holds {type(row[column]).__name__}, not text")
    text: str = row[column]
    return text.encode("utf-8", "replace").decode()  # JSON can spell half characters, UTF-8 cannot


def _parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise LoopkitError(f"{path} is not a parquet file ({str(error).splitlines()[0]})") from error
    with file:
        check_column(column, file.schema_arrow.names, str(path))
        kind = file.schema_arrow.field(column).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise UsageError(f"column {column!r} of {path} holds {kind}, not text")
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            yield from (text or "" for text in batch.column(0).to_pylist())


def check_column(column: str, columns: list[str], where: str) -> None:
    """Raises UsageError that lists the columns where ``column`` is none of them."""
    if column not in columns:
        raise UsageError(f"{where} has no column {column!r}; it has {', '.join(columns)}")
