"""Options and fixtures that several test files share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from loopkit.checkpoint.convert import convert


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default="all", choices=["all", "torch", "mlx"], help="the backend to test")
    parser.addoption("--device", default=None, help="the device to test on: cuda, mps, metal, cpu")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # tiny models: two busy threads on two busy cores wait for each other


@pytest.fixture(scope="session")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real model, SmolLM2-135M-Instruct, as a float32 checkpoint folder (540 MB, gone when the tests end)."""
    folder = tmp_path_factory.mktemp("smollm") / "smollm2-135m-instruct"
    yield convert("smollm2-135m-instruct", folder)
    shutil.rmtree(folder, ignore_errors=True)
