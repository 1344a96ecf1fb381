"""The command line: one file a command; each parses, makes one call, prints. Heavy libraries load inside the commands."""

import sys

import typer

from loopkit.cli import compare, convert, curves, doctor, eval, generate, inspect, loop, probe, train, tui  # noqa: A004  (a command is called eval)
from loopkit.errors import LoopkitError

app = typer.Typer(
    name="loopkit",
    help="Looped and depth-grown transformers: train, convert, loop and look inside.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("convert")(convert.convert)
app.command("inspect")(inspect.inspect)
app.command("generate")(generate.generate)
app.command("loop")(loop.loop)
app.command("eval")(eval.evaluate)
app.command("probe")(probe.probe)
app.command("compare")(compare.compare)
app.command("context")(curves.context)
app.command("finetune")(curves.finetune)
app.command("train")(train.train)
app.command("tui")(tui.tui)
app.command("doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        from loopkit import __version__

        typer.echo(f"loopkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and leave."),
) -> None:
    pass


def main() -> None:
    """Run the command; a LoopkitError becomes one line on stderr and exit code 1 (failed) or 2 (misused)."""
    try:
        app()
    except LoopkitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
