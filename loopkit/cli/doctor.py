"""loopkit doctor"""

from pathlib import Path
from typing import Annotated, Any

import typer

from loopkit.cli import options


def doctor(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CKPT]", help="A checkpoint to compare the backends on; a small random model by default.")
    ] = None,
    plan: options.Plan = None,
    as_json: options.Json = False,
) -> None:
    """Show versions, devices and matmul rates, and check that both backends compute the same numbers.

    Exits with 1 where they do not agree. Examples:

    - loopkit doctor
    - loopkit doctor smol --plan 8:12x2
    """
    from loopkit.doctor import examine

    with options.status("measuring", quiet=as_json):
        report = examine(checkpoint, plan)
    if as_json:
        options.print_json(report)
    else:
        _print(report)
    if report["parity"] and not report["parity"]["agree"]:
        raise typer.Exit(1)


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table

    out = options.console()
    table = Table(title="loopkit doctor", show_header=False)
    for key, value in report["system"].items():
        table.add_row(key, str(value))
    for name, facts in report["backends"].items():
        table.add_section()
        if "error" in facts:
            table.add_row(name, facts["error"])
            continue
        table.add_row(f"{name}: devices", ", ".join(facts["devices"]))
        table.add_row(f"{name}: float32 matmul", f"{facts['gflops']:.0f} GFLOP/s on {facts['devices'][0]}")
        for key, value in facts["versions"].items():
            table.add_row(f"{name}: {key}", value)
    out.print(table)
    parity = report["parity"]
    if not parity:
        out.print("only one backend works here, so there is nothing to compare")
        return
    word = "agree" if parity["agree"] else "DISAGREE"
    out.print(
        f"backends {word} on {parity['model']}, plan {parity['plan']}: largest logit difference {parity['difference']:.1e} "
        f"(up to {parity['tolerance']:.1e} is rounding), "
        f"same next token at {parity['same_top']:.1%} of {parity['positions']} positions"
    )
