"""loopkit inspect"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopkit.cli import options

if TYPE_CHECKING:
    from loopkit.plan import Plan
    from loopkit.spec import Spec


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint folder or a preset: nano, micro, mini, smollm-135m, ...")],
    plan: options.Plan = None,
    layout: Annotated[str | None, typer.Option(help="A preset in another layout, e.g. 4-4x4-4.", show_default=False)] = None,
    context: Annotated[int, typer.Option(help="Positions a token attends to, for the FLOPs.", min=1)] = 1024,
    as_json: options.Json = False,
) -> None:
    """Show a model's sizes, its visits drawn as a diagram, its parameters and FLOPs.

    Examples:

    - loopkit inspect smol --plan 8:12x2
    - loopkit inspect smollm-1.7b --layout 4-4x4-4
    """
    from loopkit.checkpoint.folder import open_folder
    from loopkit.errors import UsageError
    from loopkit.plan import parse_plan
    from loopkit.spec import PRESETS, preset

    folder = Path(model)
    if model in PRESETS and not folder.exists():
        spec = preset(model).with_layout(layout or preset(model).layout)
    elif layout is not None:
        raise UsageError("--layout goes with a preset; for a checkpoint say what to run with --plan")
    elif not folder.exists():
        raise UsageError(f"{model} is neither a checkpoint folder nor a preset; presets are {', '.join(PRESETS)}")
    else:
        spec = open_folder(folder).spec
    order = parse_plan(plan, spec.plan) if plan else spec.plan
    facts = _facts(spec, order, context)
    if as_json:
        options.print_json({"spec": asdict(spec), "family": spec.family, "plan": list(order), **facts})
    else:
        _print(model, spec, order, facts)


def _facts(spec: "Spec", plan: "Plan", context: int) -> dict[str, Any]:
    from loopkit import cost

    return {
        "visits": len(plan),
        "unique_layers": spec.n_layers,
        "parameters": cost.parameters(spec),
        "parameters_without_embeddings": cost.parameters(spec, embeddings=False),
        "effective_parameters": cost.effective_parameters(spec, plan),
        "flops_per_token": cost.token_flops(spec, plan, context),
        "context": context,
        "cache_bytes_per_token": cost.cache_bytes(spec, plan),
    }


def _print(name: str, spec: "Spec", plan: "Plan", facts: dict[str, Any]) -> None:
    from rich.table import Table

    from loopkit.plan import format_plan

    out = options.console()
    table = Table(title=f"{name}: {spec.family}, layout {spec.layout}", show_header=False)
    shown = asdict(spec)
    for key in ("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "rope_theta", "tie_word_embeddings"):
        table.add_row(key.replace("_", " "), f"{shown[key]:,}" if type(shown[key]) is int else str(shown[key]))
    table.add_row("heads / key-value heads / head dim", f"{spec.num_attention_heads} / {spec.num_key_value_heads} / {spec.head_dim}")
    table.add_row("unique layers / visits", f"{facts['unique_layers']} / {facts['visits']}")
    table.add_row("parameters", f"{facts['parameters']:,} ({facts['parameters_without_embeddings']:,} without embeddings)")
    table.add_row("effective parameters", f"{facts['effective_parameters']:,}")
    table.add_row(f"FLOPs a token, context {facts['context']:,}", f"{facts['flops_per_token'] / 1e6:,.1f} M")
    table.add_row("cache a token, float32", f"{facts['cache_bytes_per_token']:,} bytes")
    out.print(table)
    out.print(f"visits of plan {format_plan(plan, spec.plan)}, from the head down to the embedding")
    for line in _diagram(plan):
        out.print(line)


def _diagram(plan: "Plan") -> list[str]:
    """The visits bottom up, a line for each run of consecutive layers and a loop sign where a run repeats."""
    from loopkit.plan import runs

    lines, visit = [], 0
    for block, times in runs(plan):
        last = visit + len(block) * times - 1
        layers = f"layers {block[0]}-{block[-1]}" if len(block) > 1 else f"layer  {block[0]}"
        lines.append(f"  {f'{visit}-{last}' if last > visit else visit!s:>9}  │ {layers:<14}" + (f" ↺ x{times}" if times > 1 else ""))
        visit = last + 1
    return ["     visits  │ head", *reversed(lines), "             │ embedding"]
