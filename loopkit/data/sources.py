"""Where text comes from, each kind a frozen value with one text form.

- ``primitives`` or ``primitives:copy-words,var-basic-0``: generated questions, endless and seeded;
- ``stdlib``: the Python installation's own library, one document a file;
- ``file:PATH``: .txt, .jsonl or .parquet, ``#COLUMN`` where the column is not ``text``;
- ``hf:NAME``, ``hf:NAME:CONFIG@SPLIT#COLUMN``: any dataset on the Hugging Face hub, streamed.
"""

import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote, unquote

from loopkit.data import hub
from loopkit.data.files import read_documents, reader_of
from loopkit.data.tasks import PAPER, find
from loopkit.errors import LoopkitError, UsageError

KINDS = ("primitives", "stdlib", "file", "hf")
EXAMPLES = "examples: primitives, primitives:copy-words,var-basic-0, stdlib, file:a.txt, file:b.jsonl#body, hf:roneneldan/TinyStories"
_SAFE = "/\\:,@!$&'()=~.-_"  # characters that need no %-escape in a name or path
_NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Primitives:
    """Generated questions of the named tasks in equal parts; without names, the eleven of the paper (appendix D.1)."""

    tasks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "primitives" + (":" + ",".join(self.tasks) if self.tasks else "")

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that are drawn from."""
        return self.tasks or PAPER

    def check(self) -> None:
        """Raises UsageError at a task that does not exist."""
        for name in self.names:
            find(name)


@dataclass(frozen=True)
class Stdlib:
    """The text of Python's standard library: its .py files in the order of their names, without test suites."""

    def __str__(self) -> str:
        return "stdlib"

    def check(self) -> None:
        """Raises LoopkitError where the installation has no library text."""
        if not self._files():
            raise LoopkitError(f"no .py files under {self._root()}: this Python carries no library text; use a file: source")

    def documents(self) -> Iterator[str]:
        """One document a file."""
        for file in self._files():
            yield file.read_text(encoding="utf-8", errors="replace")

    def fingerprint(self) -> str:
        """Changes when the Python version or a file does."""
        return platform.python_version() + " " + _stamp(self._files())

    def _root(self) -> Path:
        return Path(sysconfig.get_paths()["stdlib"])

    def _files(self) -> list[Path]:
        root = self._root()
        return [file for file in sorted(root.rglob("*.py")) if not _NOT_LIBRARY & set(file.relative_to(root).parts)]


@dataclass(frozen=True)
class File:
    """A text, jsonl or parquet file."""

    path: str
    column: str = ""

    def __str__(self) -> str:
        return "file:" + quote(self.path, _SAFE) + ("#" + quote(self.column, _SAFE) if self.column else "")

    def check(self) -> None:
        """Reads the first document. Raises UsageError at a missing or empty file, an unknown kind, a column not there."""
        next(self.documents())

    def documents(self) -> Iterator[str]:
        """The documents of the file. Raises UsageError as ``check`` does, LoopkitError at a broken line."""
        return read_documents(Path(self.path).expanduser(), self.column)

    def fingerprint(self) -> str:
        """Changes when the file does. Raises UsageError where it is not there."""
        path = Path(self.path).expanduser()
        reader_of(path, self.column)
        return _stamp([path.resolve()])


@dataclass(frozen=True)
class Hub:
    """A dataset of the Hugging Face hub."""

    name: str
    config: str = ""
    split: str = ""
    column: str = ""

    def __str__(self) -> str:
        parts = (("", self.name), (":", self.config), ("@", self.split), ("#", self.column))
        return "hf:" + "".join(mark + quote(part, "/._-") for mark, part in parts if part)

    def check(self) -> None:
        """Reads the first document. Raises LoopkitError where the dataset cannot be had, UsageError at a missing column."""
        next(self.documents())

    def documents(self) -> Iterator[str]:
        """The column's texts, streamed."""
        return hub.read_documents(self.name, self.config, self.split or "train", self.column or "text")

    def fingerprint(self) -> str:
        """The dataset's revision; empty where the hub cannot be reached, which matches any cache of it."""
        return hub.revision(self.name)


Text = Stdlib | File | Hub
Source = Primitives | Text


def parse_source(text: str) -> Source:
    """The source of a text form; ``str`` of it parses back. Raises UsageError that offers the nearest kind or task."""
    kind, colon, rest = text.strip().partition(":")
    if kind == "stdlib" and not colon:
        return Stdlib()
    if kind == "primitives":
        return _primitives(rest if colon else None, text)
    if kind == "file" and rest:
        path, _, column = rest.partition("#")
        return File(unquote(path), unquote(column))
    if kind == "hf" and rest:
        return _hub(rest)
    near = get_close_matches(kind, KINDS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near and near[0] != kind else ""
    raise UsageError(f"{text!r} is no source of text; {hint}{EXAMPLES}")


def _primitives(rest: str | None, text: str) -> Primitives:
    if rest is None:
        return Primitives()
    names = tuple(name.strip() for name in rest.split(","))
    if not all(names):
        raise UsageError(f"{text!r} has an empty task name; e.g. primitives:copy-words,var-basic-0")
    source = Primitives(names)
    source.check()
    return source


def _hub(rest: str) -> Hub:
    rest, _, column = rest.partition("#")
    rest, _, split = rest.partition("@")
    name, _, config = rest.partition(":")
    return Hub(unquote(name), unquote(config), unquote(split), unquote(column))


def _stamp(files: list[Path]) -> str:
    digest = blake2b(digest_size=16)
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
