"""loopkit loop"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loopkit.cli import options
from loopkit.cli.generate import adaptive_tokens, histogram, passes_line
from loopkit.errors import LoopkitError, UsageError

if TYPE_CHECKING:
    from loopkit.inference.compare import Comparison
    from loopkit.session import Model

SWEEPS = "Sweeps and searches"
ONE_PLAN = {"plan", "prompt", "text", "top", "max_tokens", "temperature", "kv_slots", "until", "chat"}
MANY_PLANS = {"task", "block", "times", "count", "shots", "budget", "out", "export", "tie", "memory"}


def loop(
    context: typer.Context,
    checkpoint: options.Checkpoint,
    plan: Annotated[
        str | None, typer.Option("--repeat", "--plan", help="What to run: 8:12x2 runs visits 8 to 11 twice in a row.", show_default=False)
    ] = None,
    mode: Annotated[
        str, typer.Option(help="How a repeated block is applied: plain, damped or residual; with --sweep several: plain,damped.")
    ] = "plain",
    prompt: Annotated[str | None, typer.Option(help="The text to look at.", show_default=False)] = None,
    text: Annotated[Path | None, typer.Option(help="A file with the text to look at.", show_default=False)] = None,
    top: Annotated[int, typer.Option(help="Next tokens to show.", min=1)] = 8,
    max_tokens: Annotated[int, typer.Option(help="Length of the two continuations; 0 leaves them out.", min=0)] = 40,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    kv_slots: options.KvSlots = None,
    until: options.Until = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the text in the model's chat format.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Score every start of a block instead.", rich_help_panel=SWEEPS)] = False,
    search: Annotated[
        bool, typer.Option("--search", help="Look for the best plan of several blocks instead.", rich_help_panel=SWEEPS)
    ] = False,
    task: Annotated[
        str, typer.Option(help="Generated tasks, or primitives for all of the paper's.", rich_help_panel=SWEEPS)
    ] = "copy-words",
    block: Annotated[str, typer.Option(help="Block sizes: 4, 2..6 or 2,4.", rich_help_panel=SWEEPS)] = "4",
    times: Annotated[str, typer.Option(help="How often a block runs: 1..4 or 2,3.", rich_help_panel=SWEEPS)] = "1..3",
    count: Annotated[int, typer.Option(help="Questions of each task.", min=1, rich_help_panel=SWEEPS)] = 40,
    shots: Annotated[int, typer.Option(help="Worked examples before each question.", min=0, rich_help_panel=SWEEPS)] = 5,
    budget: Annotated[int, typer.Option(help="Plans that --search may try.", min=2, rich_help_panel=SWEEPS)] = 100,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps the answers and the page; the same again goes on.", show_default=False, rich_help_panel=SWEEPS
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the best plan as a checkpoint, unrolled.", show_default=False, rich_help_panel=SWEEPS)
    ] = None,
    tie: Annotated[bool, typer.Option("--tie", help="With --export: a looped checkpoint instead.", rich_help_panel=SWEEPS)] = False,
    memory: Annotated[int, typer.Option(help="MiB for streams and activations.", min=1, rich_help_panel=SWEEPS)] = 1024,
    seed: Annotated[int, typer.Option(help="Seed of the sampling, the same for both plans, and of the questions.", min=0)] = 0,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.Json = False,
) -> None:
    """Loop a block of layers at inference and see what changes: next token, KL, likelihood, continuation, accuracy.

    Examples:

    - loopkit loop smol --repeat 8:12x2 --prompt "The capital of France is"
    - loopkit loop smol --repeat 8:12x2,20:22x3 --mode damped --text essay.txt --json
    - loopkit loop smol --sweep --block 4 --times 1..3 --task copy-words,var-math-0 --out runs/sweep
    - loopkit loop smol --search --block 2..6 --task primitives --budget 200 --export best --tie
    """
    given = options.given(context)
    if sweep or search:
        options.refuse(given & ONE_PLAN, "goes with --repeat, not with --sweep or --search")
        options.refuse(given & ({"sweep"} if search else {"budget"}), "and --search exclude each other" if search else "goes with --search")
        options.refuse(given & ({"tie"} if export is None else set()), "goes with --export")
        _sweep(
            _loaded(checkpoint, backend, device, dtype, as_json),
            {"task": task, "block": block, "times": times, "mode": mode, "count": count, "shots": shots, "seed": seed},
            {"search": search, "budget": budget, "out": out, "export": export, "tie": tie, "memory": memory << 20, "as_json": as_json},
        )
        return
    options.refuse(given & MANY_PLANS, "goes with --sweep or --search")
    if plan is None:
        raise UsageError("say what to run: --repeat 8:12x2, or --sweep or --search to find out")
    options.refuse(given & ({"kv_slots"} if until else set()), "gives slots to a fixed number of visits, so it does not go with --until")
    source = _source(prompt, text)
    model = _loaded(checkpoint, backend, device, dtype, as_json)
    ids, plan = model.prompt_ids(source, chat), _with_mode(plan, mode)
    model.run(plan)
    sampling = (max_tokens, temperature, seed)
    with options.status("running both plans", quiet=as_json):
        result = model.compare(ids, plan, top)
        texts, counts = _continuations(model, ids, plan, until, sampling, kv_slots) if max_tokens else ({"base": "", "looped": ""}, [])
    if as_json:
        found = {**asdict(result), "backend": model.backend.name, "continuations": texts}
        options.print_json({**found, "until": until, "passes": histogram(counts)} if until else found)
    else:
        _print(result, texts)
        if counts:
            options.console().print(f"looped until {until}: {passes_line(counts)}", markup=False)


def _continuations(
    model: "Model", ids: list[int], plan: str, until: str | None, sampling: tuple[int, float, int], kv_slots: int | None
) -> tuple[dict[str, str], list[int]]:
    """Both texts, and how often the block ran for each token of the second where that is adaptive."""
    counts: list[int] = []
    base = "".join(model.generate(ids, None, *sampling))
    if until:
        looped = model.pieces(adaptive_tokens(model, ids, plan, until, *sampling, counts))
    else:
        looped = model.generate(ids, plan, *sampling, kv_slots)
    return {"base": base, "looped": "".join(looped)}, counts


def _loaded(checkpoint: Path, backend: str, device: str | None, dtype: str | None, quiet: bool) -> "Model":
    from loopkit.session import load

    with options.status(f"loading {checkpoint}", quiet=quiet):
        return load(checkpoint, backend, device, dtype)


def _with_mode(plan: str, mode: str) -> str:
    if "@" in plan and mode != "plain":
        raise UsageError(f"{plan!r} names its mode already; leave --mode out")
    return plan if mode == "plain" else f"{plan}@{mode}"


def _sweep(model: "Model", asked: dict[str, Any], wanted: dict[str, Any]) -> None:
    from loopkit.cli.sweep import Wanted, run
    from loopkit.data.tasks import named
    from loopkit.evaluation.sweep import Settings
    from loopkit.inference.modes import parse_mode

    settings = Settings(
        named(asked["task"]),
        options.numbers(asked["block"], "--block", 1),
        options.numbers(asked["times"], "--times", 1),
        tuple(parse_mode(name.strip()) for name in asked["mode"].split(",")),
        asked["count"],
        asked["shots"],
        asked["seed"],
    )
    run(model, settings, Wanted(**wanted))


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
