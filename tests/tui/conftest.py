"""The app's tests import each other's helpers and write nothing outside of their own folders."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from strategies import random_arrays

from loopkit.checkpoint.folder import write_folder
from loopkit.data.tokenizers import byte_codec
from loopkit.spec import Spec

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, caches and the hub's cache of this test alone."""
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


RECIPE = """
[model]
hidden_size = 32
intermediate_size = 64
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
layout = "4"
[data]
mix = "primitives:copy-words-32"
tokenizer = "word"
length = 48
rows = 4
[schedule]
steps = STEPS
warmup = 5
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The file of a recipe of so many steps, some milliseconds each."""

    def write(steps: int) -> Path:
        file = tmp_path_factory.mktemp("recipe") / "recipe.toml"
        file.write_text(RECIPE.replace("STEPS", str(steps)))
        return file

    return write


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random checkpoint with a tokenizer."""
    folder = tmp_path_factory.mktemp("nano")
    spec = Spec(48, 64, 4, 2, 12, 300, "6", max_position_embeddings=4096)
    (folder / "tokenizer").mkdir()
    byte_codec().save(folder / "tokenizer")
    return write_folder(folder / "nano", spec, random_arrays(spec), tokenizer=folder / "tokenizer")
