"""Options that several commands share, and how they print."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint folder.")]
Backend = Annotated[str, typer.Option(help="auto, mlx or torch; auto is MLX on Apple silicon, torch elsewhere.")]
Device = Annotated[str | None, typer.Option(help="cuda, mps, metal or cpu; the best there is by default.", show_default=False)]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, float16 or bfloat16; by default float32 on a CPU, bfloat16 on an accelerator.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
Plan = Annotated[
    str | None,
    typer.Option(
        "--plan",
        help="Run the layers in another order: repeats 8:12x2, a layout 4-4x4-4, or layers:0,1,2,...",
        show_default=False,
    ),
]


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def console(stderr: bool = False) -> "Console":
    """A terminal to print tables on; results go to stdout, progress to stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


@contextmanager
def status(text: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something takes long, and what changes its text; silent under ``quiet`` or without a terminal."""
    terminal = console(stderr=True)
    if quiet or not terminal.is_terminal:
        yield lambda _: None
        return
    with terminal.status(text) as spinner:
        yield lambda now: spinner.update(now)
