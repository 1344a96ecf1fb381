"""Options that several commands share, and how they print."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopkit.errors import UsageError

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
KvSlots = Annotated[
    int | None,
    typer.Option(
        help="At most so many key-value slots a layer: less memory, other tokens; one a visit by default.", min=1, show_default=False
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        help="Repeat the plan's block for each token only until it settles: kl<1e-3, same-top1 or latent<0.03.", show_default=False
    ),
]
Plan = Annotated[
    str | None,
    typer.Option(
        "--plan",
        help="Run the layers in another order: repeats 8:12x2, a listing layers:0,1,2,... or a layout of all layers.",
        show_default=False,
    ),
]


def given(context: typer.Context) -> set[str]:
    """Names of the parameters that were given on the command line, not left at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse(names: Iterable[str], why: str) -> None:
    """Raises UsageError for the first of the parameters, so that none is silently ignored."""
    for name in sorted(names):
        raise UsageError(f"--{name.replace('_', '-')} {why}")


def numbers(text: str, option: str, least: int = 0) -> tuple[int, ...]:
    """``1..4`` or ``2,3,6`` as numbers, none below ``least``. Raises UsageError."""
    try:
        first, dots, last = text.partition("..")
        found = tuple(range(int(first), int(last) + 1)) if dots else tuple(map(int, text.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < least:
        raise UsageError(f"cannot read {option} {text!r}; write 1..4 or 2,3, all {least} or more")
    return found


def refuse_non_folder(path: Path) -> None:
    """Raises UsageError where ``path`` is there and no folder."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out names a folder, and {path} is a file; choose another name")


def refuse_file(path: Path, force: bool) -> None:
    """Raises UsageError where the file is there already, unless ``force``, or its folder is a file."""
    refuse_non_folder(path.parent)
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; choose another --out, or --force to replace it")


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
