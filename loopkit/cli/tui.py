"""loopkit tui"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from loopkit.cli import options
from loopkit.errors import LoopkitError, UsageError

SCREENS = ("loop", "lens", "sweep", "probes", "train", "compare")


def tui(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path] | None, typer.Argument(metavar="[CKPT]...", help="Checkpoint folders or runs; a picker without.", show_default=False)
    ] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="The plan to begin with, e.g. 8:12x2.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option(help="The text to begin with.", show_default=False)] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the text in the model's chat format.")] = False,
    screen: Annotated[str, typer.Option(help=", ".join(SCREENS))] = "loop",
    web: Annotated[bool, typer.Option("--web", help="Serve it to a browser on this machine instead.")] = False,
    port: Annotated[int, typer.Option(help="The port of --web.", min=1, max=65535)] = 8000,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Turn a dial and see the model think longer: loops, lenses, sweeps, probes and training runs, live in the terminal.

    Examples:

    - loopkit tui smol
    - loopkit tui runs/standard runs/lidas --screen compare
    - loopkit tui smol --plan 8:12x2 --web
    """
    if screen not in SCREENS:
        raise UsageError(f"no screen {screen!r}; screens are {', '.join(SCREENS)}")
    if web:
        _serve([word for word in sys.argv[1:] if word != "--web"], port)
        return
    options.refuse({"port"} & options.given(context), "is where --web serves the app; add --web")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        raise UsageError("the app needs a terminal; in scripts use: loopkit loop CKPT --repeat 8:12x2 --prompt TEXT")
    from loopkit_tui.start import run

    how = (backend, device, dtype)
    sys.exit(run([str(path) for path in checkpoints or []], plan=plan, prompt=prompt, chat=chat, screen=screen, how=how))


def _serve(words: list[str], port: int) -> None:
    """The app in a browser, on the loopback interface alone; each page has its own process."""
    try:
        from textual_serve.server import Server
    except ImportError as error:
        raise LoopkitError(f"--web cannot start ({error}); install it with: pip install 'loopkit-lm[web]'") from error
    from loopkit_tui import keymap, settings

    keymap.read(settings.home())  # what is wrong with it is said here, not in every page
    at = [number for number, word in enumerate(words) if word == "--port"]
    rest = [word for number, word in enumerate(words) if number not in at and number - 1 not in at and not word.startswith("--port=")]
    typer.echo(f"loopkit tui at http://127.0.0.1:{port} (ctrl+c ends it)", err=True)
    Server(shlex.join([sys.executable, "-m", "loopkit", *rest]), host="127.0.0.1", port=port, title="loopkit").serve()
