"""Writing so that a reader sees the whole new thing or the old one, never a half: temporary name, fsync, rename."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopkit.errors import UsageError

_CHECKPOINTS = re.compile(  # names of the files that checkpoints have here and at Hugging Face
    r"config\.json|model.*\.safetensors(\.index\.json)?|.*token.*\.(json|model)|vocab\.json|merges\.txt|chat_template\.jinja"
    r"|generation_config\.json|(modeling|mlx)_looped\.py|__pycache__|README\.md|LICENSE|\.gitattributes|\.DS_Store|\.cache"
)


@contextmanager
def new_folder(path: Path, force: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends well and vanishes when it does not.

    Raises UsageError where ``path`` exists and ``force`` is not set; with ``force`` the old folder goes after the new one
    is whole.
    """
    if not (force and path.is_dir()):
        refuse_existing(path, force=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.part"
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same number, as in a container
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        _sync(temporary)
        _replace(temporary, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path, force: bool) -> None:
    """Raises UsageError where something is at ``path`` already; with ``force`` where that is neither empty nor the files of a checkpoint
    and no more."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder; choose another name")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; choose another name, or --force to replace it")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(f"{path} is the folder you are in, or one around it; choose another name")
    if path.is_symlink():
        raise UsageError(f"{path} is a link to {path.resolve()}; name that, or choose another name")
    if path.is_dir() and any(path.iterdir()):
        other = sorted(each.name for each in path.iterdir() if not _CHECKPOINTS.fullmatch(each.name))
        if other or not any(path.glob("model*.safetensors")):
            what = f"{path} holds {other[0] if other else 'no weights'}"
            raise UsageError(f"{what}, so it is not a checkpoint alone, and --force replaces nothing else; choose another name")


def write_text(path: Path, text: str) -> None:
    """One file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(text, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _replace(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    path.rename(old)
    new.rename(path)
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
