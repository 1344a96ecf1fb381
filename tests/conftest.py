"""Options and fixtures that several test files share. A test that asks for ``backend`` runs once for each that is chosen and installed."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # see loopkit_torch
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: two busy threads on two busy cores wait for each other
os.environ.setdefault("MLX_ENABLE_TF32", "0")  # comparisons in full float32
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")  # on a CPU it calls a C++ compiler

import pytest
from commands import Result, Run
from hypothesis import settings

from loopkit import backend as backends
from loopkit.backend import Backend
from loopkit.checkpoint.convert import convert
from loopkit.cli import main

if "mlx" in backends.available():
    import loopkit_mlx  # noqa: F401  (finds a fast BLAS only if nothing else has loaded MLX yet)


settings.register_profile("loopkit", deadline=None)  # a busy machine is no failure
settings.load_profile("loopkit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default="all", choices=["all", "torch", "mlx"], help="the backend to test")
    parser.addoption("--device", default=None, help="the device to test on: cuda, mps, metal, cpu")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run a backend."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _chosen(metafunc.config), indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend under test."""
    return backends.load(request.param)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest, backend: Backend) -> str:
    """The device under test, the CPU by default."""
    wanted = _device(request.config)
    if wanted not in backend.devices():
        pytest.skip(f"backend {backend.name} has no device {wanted} here")
    return wanted


@pytest.fixture(scope="session")
def mlx(request: pytest.FixtureRequest) -> Backend:
    """The MLX backend; skips where it is missing or not chosen."""
    if "mlx" not in _chosen(request.config):
        pytest.skip("needs the MLX backend")
    return backends.load("mlx")


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> list[tuple[Backend, str]]:
    """Both backends, each on the device under test or else the CPU; skips where one is missing or not chosen."""
    if len(_chosen(request.config)) < 2:
        pytest.skip("needs both backends")
    wanted = _device(request.config)
    loaded = [backends.load(name) for name in _chosen(request.config)]
    return [(backend, wanted if wanted in backend.devices() else "cpu") for backend in loaded]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Type a command; get exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "140")

    def typed(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["loopkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Result(int(ended.value.code or 0), *capsys.readouterr())

    return typed


@pytest.fixture(scope="session")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The real model, SmolLM2-135M-Instruct, as a float32 checkpoint folder (540 MB, gone when the tests end)."""
    folder = tmp_path_factory.mktemp("smollm") / "smollm2-135m-instruct"
    yield convert("smollm2-135m-instruct", folder)
    shutil.rmtree(folder, ignore_errors=True)


def _chosen(config: pytest.Config) -> list[str]:
    wanted = config.getoption("--backend", default="all") or "all"
    return [name for name in backends.available() if wanted in ("all", name)]


def _device(config: pytest.Config) -> str:
    return str(config.getoption("--device", default=None) or "cpu")
