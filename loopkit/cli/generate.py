"""loopkit generate"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from loopkit.cli import options

if TYPE_CHECKING:
    from loopkit.session import Model


def generate(
    checkpoint: options.Checkpoint,
    prompt: Annotated[str, typer.Option(help="The text to continue; - reads it from standard input.")],
    plan: options.Plan = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token; 1 samples from the model.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; the same on both backends.", min=0)] = 0,
    kv_slots: options.KvSlots = None,
    until: options.Until = None,
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
    - loopkit generate smol --prompt "Once upon a time" --plan "8:12x8" --until "kl<1e-3"
    """
    from loopkit.session import load

    options.refuse({"kv_slots"} if until and kv_slots else (), "gives slots to a fixed number of visits, so it does not go with --until")
    with options.status(f"loading {checkpoint}", quiet=as_json):
        model = load(checkpoint, backend, device, dtype)
    ids, counts, made = model.prompt_ids(_text(prompt), chat), list[int](), list[int]()
    if until:
        tokens = adaptive_tokens(model, ids, plan or "", until, max_tokens, temperature, seed, counts)
    else:
        tokens = model.generate_ids(ids, plan, max_tokens, temperature, seed, kv_slots)
    pieces = model.pieces(_kept(tokens, made))
    if as_json:
        found = {"prompt": prompt, "plan": plan, "backend": model.backend.name, "text": "".join(pieces)}
        options.print_json({**found, "until": until, "passes": histogram(counts)} if until else found)
    else:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        typer.echo()
        if until:
            typer.echo(passes_line(counts), err=True)
    if len(made) == model.room(len(ids)) < max_tokens:
        typer.echo(f"note: the model's {model.spec.max_position_embeddings} positions are used up", err=True)


def _kept(tokens: Iterator[int], made: list[int]) -> Iterator[int]:
    for token in tokens:
        made.append(token)
        yield token


def adaptive_tokens(
    model: "Model", ids: list[int], plan: str, until: str, max_tokens: int, temperature: float, seed: int, counts: list[int]
) -> Iterator[int]:
    """Tokens of one prompt, adaptively looped; ``counts`` gets how often each of them ran the block."""
    import numpy as np

    for step in model.generate_until(np.array([ids]), plan, until, max_tokens, temperature, seed):
        counts.append(int(step.counts[0]))
        yield int(step.tokens[0])


def histogram(counts: list[int]) -> dict[str, int]:
    """How many tokens ran the block so many times."""
    return {str(times): counts.count(times) for times in sorted(set(counts))}


def passes_line(counts: list[int]) -> str:
    """The histogram in words."""
    mean = sum(counts) / len(counts)
    return f"passes of the block: {', '.join(f'{k} for {n} tokens' for k, n in histogram(counts).items())}; {mean:.2f} on average"


def _text(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt
