"""What starts up with what: seen from outside, in processes of their own, since imports inside functions escape static tools."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "mlx", "mlx_lm", "transformers", "textual", "datasets", "loopkit_torch", "loopkit_mlx")
COMMANDS = ("convert", "inspect", "generate", "loop", "eval", "probe", "compare", "context", "finetune", "train", "tui", "doctor")


def loaded_after(code: str) -> set[str]:
    probe = f"{code}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(eval(out.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS), ["inspect", "nano"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys\nsys.argv = ['loopkit', *{arguments!r}]\nfrom loopkit.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert loaded_after(code) == set()


def test_importing_loopkit_and_its_core_loads_no_array_library() -> None:
    names = (
        "plan",
        "spec",
        "cost",
        "run",
        "backend",
        "session",
        "evaluation.sweep",
        "probes",
        "report.page",
        "checkpoint.convert",
        "checkpoint.export",
        "cli",
    )
    core = "import loopkit, " + ", ".join(f"loopkit.{name}" for name in names)
    assert loaded_after(core) == set()


def test_a_backend_loads_its_own_library_alone() -> None:
    assert "mlx" not in loaded_after("import loopkit_torch")
    assert not {"mlx_lm", "transformers"} & loaded_after("import loopkit_mlx")


def test_nothing_generic_lands_among_installed_packages() -> None:
    root = Path(__file__).parents[1]
    for folder, prefix in (("backends", "loopkit_"), ("tui", "loopkit_")):
        packages = [p.name for p in (root / folder).iterdir() if p.is_dir() and p.name != "__pycache__"]
        assert packages
        assert all(name.startswith(prefix) for name in packages)
