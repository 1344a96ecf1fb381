"""loopkit train"""

import json
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from loopkit.cli import options
from loopkit.errors import LoopkitError, UsageError

if TYPE_CHECKING:
    from loopkit.training.folder import RunFolder
    from loopkit.training.loop import Hardware
    from loopkit.training.recipe import Recipe
    from loopkit.training.start import Ready


def train(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.toml]", help="A recipe; options change what it says.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to write.", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="nano, micro, mini, smollm-135m, ...", show_default=False)] = None,
    layout: Annotated[str | None, typer.Option(help="24, 4x6 or 4-4x4-4.", show_default=False)] = None,
    grow: Annotated[
        str | None, typer.Option(help="lidas, midas, stack, between, gstack, solar, or a map layers:0,1,0,1.", show_default=False)
    ] = None,
    block: Annotated[int | None, typer.Option(help="Layers that a growth step adds.", show_default=False)] = None,
    grow_steps: Annotated[
        int | None, typer.Option(help="Steps over which the model grows; all ahead of the cooldown by default.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help='A mixture: "0.7*stdlib + 0.3*primitives:copy-words".', show_default=False)] = None,
    tokenizer: Annotated[str | None, typer.Option(help="byte, word, bpe:4096 or a checkpoint folder.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Updates.", show_default=False)] = None,
    cooldown_plan: Annotated[
        str | None, typer.Option(help="Run this plan in the cooldown, e.g. 8:12x2: retrofitted recurrence.", show_default=False)
    ] = None,
    cooldown_data: Annotated[str | None, typer.Option(help="The mixture of the cooldown.", show_default=False)] = None,
    branch: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin as this run, and part from it where the options say otherwise.", show_default=False),
    ] = None,
    init_from: Annotated[str | None, typer.Option(help="A checkpoint to start from.", show_default=False)] = None,
    untie: Annotated[bool, typer.Option("--untie", help="Give every visit of a looped --init-from a layer of its own.")] = False,
    match_flops: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Take the steps that spend the training FLOPs of this run.", show_default=False)
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="0,1,2: a run for each, in folders OUT/seed_N.", show_default=False)] = None,
    log: Annotated[
        list[str] | None, typer.Option(help="tensorboard, wandb or trackio, beside metrics.jsonl; may be repeated.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Anything else in the recipe.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT from its last whole checkpoint.")] = False,
    backend: options.Backend = "auto",
    device: options.Device = None,
    dtype: options.Dtype = None,
    compiled: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the layers; on CUDA by default.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
) -> None:
    """Train a standard, looped or growing model.

    Examples:

    - loopkit train --preset nano --data primitives:copy-words-32 --tokenizer word --steps 500 --out runs/standard
    - loopkit train examples/demo.toml --grow lidas --block 2 --out runs/lidas
    - loopkit train --branch runs/lidas --cooldown-data "0.8*stdlib + 0.2*primitives:word-problem-2" --out runs/lidas-maths
    - loopkit train --out runs/lidas --resume --backend mlx
    """
    from loopkit.training import start
    from loopkit.training.recipe import override

    if out is None:
        raise UsageError("say where the run goes: --out runs/NAME")
    given = {
        "model.preset": preset,
        "model.layout": layout,
        "model.init_from": init_from,
        "model.untie": "true" if untie else None,
        "growth.operator": grow,
        "growth.block": block,
        "growth.steps": grow_steps,
        "data.mix": data,
        "data.tokenizer": tokenizer,
        "schedule.steps": steps,
        "cooldown.plan": cooldown_plan,
        "cooldown.mix": cooldown_data,
        "train.log": ",".join(log) if log else None,
    }
    overrides = [f"{name}={value}" for name, value in given.items() if value is not None] + (settings or [])
    hardware = _hardware(backend, device, dtype, compiled)
    if resume:
        if config or overrides or match_flops or branch:
            raise UsageError("--resume goes on with the run as it was; leave out the recipe and its options")
        folders = _folders(out, seeds)
        known = next((folder for folder in folders if folder.begun), folders[0]).recipe
        begun = [folder.begun for folder in folders]
        hardware.backend.barrier()  # all processes have looked before one of them makes a folder
        for folder, seeded, there in zip(folders, _seeded(known, seeds), begun, strict=True):
            go_on = partial(start.resume, folder, hardware) if there else partial(start.begin, seeded, folder, hardware)
            _train(folder, go_on, hardware, as_json)
    elif branch:
        if config or match_flops:
            raise UsageError("--branch takes the recipe of its run; leave out the recipe and --match-flops")
        for source, folder in zip(_folders(branch, seeds), _folders(out, seeds), strict=True):
            recipe = override(source.recipe, overrides)
            _train(folder, partial(start.branch, source, recipe, folder, hardware), hardware, as_json)
    else:
        if match_flops and steps is not None:
            raise UsageError("--match-flops finds the number of steps; leave out --steps")
        recipe = _recipe(config, overrides, match_flops)
        if (block or grow_steps) and not recipe.growth.operator:
            raise UsageError("--block and --grow-steps say how a model grows; say by which operator: --grow lidas")
        folders = _folders(out, seeds)
        for folder in folders if hardware.rank == 0 else ():  # the process that makes them
            folder.refuse_existing()
        for folder, seeded in zip(folders, _seeded(recipe, seeds), strict=True):
            _train(folder, partial(start.begin, seeded, folder, hardware), hardware, as_json)


def _recipe(config: Path | None, overrides: list[str], other: Path | None) -> "Recipe":
    import tempfile

    from loopkit.training.recipe import Recipe, override, read_recipe
    from loopkit.training.start import matched

    recipe = override(read_recipe(config) if config else Recipe(), overrides)
    if other is None:
        return recipe
    with tempfile.TemporaryDirectory() as scratch:
        return matched(recipe, other, Path(scratch) / "tokenizer")


def _folders(path: Path, seeds: str | None) -> list["RunFolder"]:
    from loopkit.training.folder import RunFolder

    return [RunFolder(path)] if seeds is None else [RunFolder(path / f"seed_{seed}") for seed in _seeds(seeds)]


def _seeded(recipe: "Recipe", seeds: str | None) -> list["Recipe"]:
    return [recipe] if seeds is None else [replace(recipe, train=replace(recipe.train, seed=seed)) for seed in _seeds(seeds)]


def _seeds(text: str) -> tuple[int, ...]:
    seeds = options.numbers(text, "--seeds")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text} names one twice")
    return seeds


def _hardware(name: str, device: str | None, dtype: str | None, compiled: bool | None) -> "Hardware":
    from loopkit import backend as backends
    from loopkit.checkpoint.folder import check_dtype
    from loopkit.training.loop import Hardware

    backend = backends.load(name)
    chosen = backends.choose_device(backend, device)
    check_dtype(dtype)
    rank, world = backend.processes()
    return Hardware(
        backend, chosen, dtype or backend.default_dtype(chosen), chosen == "cuda" if compiled is None else compiled, rank, world
    )


def _train(folder: "RunFolder", make_ready: Callable[[], "Ready"], hardware: "Hardware", as_json: bool) -> None:
    from loopkit.cli.progress import watch
    from loopkit.training.events import Stopped
    from loopkit.training.loop import DivergedError
    from loopkit.training.start import train

    quiet = as_json or hardware.rank > 0
    try:
        with options.status("reading data", quiet=quiet):
            ready = make_ready()
    except OSError as error:
        raise LoopkitError(f"cannot begin in {folder.path}: {error}") from error
    event = None
    again = f"go on with: loopkit train --out {folder.path} --resume"
    with _interruptible(hardware.world) as stop:
        try:
            for event in watch(train(ready, folder, hardware, stop), ready, quiet):
                if as_json and hardware.rank == 0:
                    typer.echo(json.dumps({"event": type(event).__name__.lower(), **asdict(event)}))
        except DivergedError as error:
            _end(hardware, f"error: {error}", error.exit_code)
        except OSError as error:
            raise LoopkitError(f"the run stopped: {error}; free what it needs and {again}") from error
        if isinstance(event, Stopped):
            _end(hardware, f"stopped; {again}", 130)
    if not quiet:
        typer.echo(f"{folder.path}: done, {folder.newest()}")


def _end(hardware: "Hardware", message: str, code: int) -> NoReturn:
    """Leave all together once the first process has said why: a launcher ends all the others as soon as one has gone."""
    if hardware.rank == 0:
        typer.echo(message, err=True)
    hardware.backend.barrier()
    raise typer.Exit(code)


class _interruptible:  # noqa: N801  (reads as a with-statement's verb)
    """Ctrl-C, or a polite kill, asks the loop to save and stop after the current step; a second one stops at once.

    Of several processes each may be asked twice, by the terminal and by the launcher, so there all but the first are ignored.
    """

    def __init__(self, processes: int) -> None:
        self.alone = processes == 1

    def __enter__(self) -> Callable[[], bool]:
        self.asked = False
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return lambda: self.asked

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked and self.alone:
            raise KeyboardInterrupt
        self.asked = True
