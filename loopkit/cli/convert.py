"""loopkit convert"""

from pathlib import Path
from typing import Annotated

import typer

from loopkit.cli import options
from loopkit.errors import UsageError


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="smollm2-135m-instruct, a Hugging Face folder or hub id, a .gguf file, a torch .pt/.bin state dict.",
        ),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="The checkpoint folder to write.")],
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; the source's own by default.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="config.json for a torch state dict that has none beside it.", show_default=False)
    ] = None,
    plan: options.Plan = None,
    unroll: Annotated[bool, typer.Option("--unroll", help="With --plan: a plain, deeper model that any tool runs.")] = False,
    tie: Annotated[bool, typer.Option("--tie", help="With --plan: a looped model that shares its repeated layers.")] = False,
    quantize: Annotated[int | None, typer.Option(help="4 or 8 bits a weight, for MLX.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace DST if it exists.")] = False,
    as_json: options.Json = False,
) -> None:
    """Make a checkpoint folder that loopkit, transformers and mlx-lm all load.

    Examples:

    - loopkit convert smollm2-135m-instruct smol
    - loopkit convert model.gguf DST --dtype bfloat16
    - loopkit convert smol deeper --plan 8:12x2 --unroll
    """
    if (plan is not None) != (unroll or tie) or (unroll and tie):
        raise UsageError("--plan goes with exactly one of --unroll (a plain deeper model) and --tie (a looped one)")
    from loopkit.checkpoint.pipeline import convert_to

    with options.status(f"converting {source}", quiet=as_json) as say:
        written = convert_to(
            source, destination, dtype=dtype, config=config, plan=plan, unrolled=unroll, bits=quantize, force=force, progress=say
        )
    summary = {"path": str(destination), "layout": written.spec.layout, "family": written.spec.family, "dtype": written.dtype}
    if as_json:
        options.print_json(summary)
    else:
        typer.echo(f"{destination}: {written.spec.family}, layout {written.spec.layout}, {written.dtype}")
