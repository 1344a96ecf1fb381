"""loopkit generate"""

import sys
from typing import Annotated

import typer

from loopkit.cli import options


def generate(
    checkpoint: options.Checkpoint,
    prompt: Annotated[str, typer.Option(help="The text to continue; - reads it from standard input.")],
    plan: options.Plan = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; 1 samples from the model.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; the same on both backends.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a user's message in the model's chat format.")] = False,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Continue a prompt, with any plan, as it streams.

    Examples:

    - loopkit generate smol --prompt "Once upon a time"
    - loopkit generate smol --chat --prompt "What is 2+2?" --plan 8:12x2
    """
    from loopkit.session import load

    with options.status(f"loading {checkpoint}", quiet=as_json):
        model = load(checkpoint, backend, device, dtype)
    pieces = model.generate(model.prompt_ids(_text(prompt), chat), plan, max_tokens, temperature, seed)
    if as_json:
        options.print_json({"prompt": prompt, "plan": plan, "backend": model.backend.name, "text": "".join(pieces)})
        return
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    typer.echo()


def _text(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt
