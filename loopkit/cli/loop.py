"""loopkit loop"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loopkit.cli import options
from loopkit.errors import LoopkitError, UsageError

if TYPE_CHECKING:
    from loopkit.inference.compare import Comparison


def loop(
    checkpoint: options.Checkpoint,
    plan: Annotated[str, typer.Option("--repeat", "--plan", help="What to run: 8:12x2 runs visits 8 to 11 twice in a row.")],
    prompt: Annotated[str | None, typer.Option(help="The text to look at.", show_default=False)] = None,
    text: Annotated[Path | None, typer.Option(help="A file with the text to look at.", show_default=False)] = None,
    top: Annotated[int, typer.Option(help="Next tokens to show.", min=1)] = 8,
    max_tokens: Annotated[int, typer.Option(help="Length of the two continuations; 0 leaves them out.", min=0)] = 40,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling, the same for both.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Put the text in the model's chat format.")] = False,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Loop a block of layers at inference and see what changes: next token, KL, likelihood, continuation.

    Examples:

    - loopkit loop smol --repeat 8:12x2 --prompt "The capital of France is"
    - loopkit loop smol --repeat 8:12x2,20:22x3 --text essay.txt --json
    """
    from loopkit.session import load

    source = _source(prompt, text)
    with options.status(f"loading {checkpoint}", quiet=as_json):
        model = load(checkpoint, backend, device, dtype)
    ids = model.prompt_ids(source, chat)
    plans = {"base": None, "looped": model.resolve(plan)}
    with options.status("running both plans", quiet=as_json):
        result = model.compare(ids, plan, top)
        continuations = {
            name: "".join(model.generate(ids, which, max_tokens, temperature, seed)) if max_tokens else "" for name, which in plans.items()
        }
    if as_json:
        options.print_json({**asdict(result), "backend": model.backend.name, "continuations": continuations})
    else:
        _print(result, continuations)


def _source(prompt: str | None, text: Path | None) -> str:
    if (prompt is None) == (text is None):
        raise UsageError('give either --prompt "some text" or --text FILE')
    if text is None:
        return str(prompt)
    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoopkitError(f"cannot read {text}: {error}") from error


def _print(result: "Comparison", continuations: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    out = options.console()
    table = Table(title=f"next token after {result.tokens} tokens")
    table.add_column("token")
    for name, plan in (("base", result.base_plan), ("looped", result.looped_plan)):
        table.add_column(f"{name} {plan}", justify="right")
    table.add_column("change", justify="right")
    for row in result.candidates:
        table.add_row(Text(repr(row.text)), f"{row.base:7.2%}", f"{row.looped:7.2%}", f"{row.looped - row.base:+7.2%}")
    out.print(table)
    out.print(f"KL(base || looped)  {result.kl:.4f} nats")
    out.print(f"entropy             {result.entropy_base:.4f} -> {result.entropy_looped:.4f} nats")
    if result.nll_base is not None and result.nll_looped is not None:
        change = result.nll_looped - result.nll_base
        out.print(f"NLL of the text     {result.nll_base:.4f} -> {result.nll_looped:.4f} nats a token ({change:+.4f})")
    if any(continuations.values()):
        sides = Table(show_lines=True)
        for name in continuations:
            sides.add_column(name, ratio=1)
        sides.add_row(*(Text(text.strip()) for text in continuations.values()))
        out.print(sides)
