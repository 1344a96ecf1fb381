"""Grow first, loop later: the paper's story at a small scale, by one command.

    python examples/grow_then_loop/run.py quick --out runs/story
    python examples/grow_then_loop/run.py paper-1.7b --dry-run
    python examples/grow_then_loop/run.py quick --out runs/story --only page

It trains standard, grown and looped models on equal data, evaluates and probes them, and writes OUT/page.html, which sets what was found
beside what the paper says. The same command goes on where it was stopped. See docs/grow_then_loop.md.
"""

import argparse
import json
import signal
import sys
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from dry_run import FLOPS, describe
from jobs import STAGES, Story
from runner import Runner, lock
from sizes import SIZES

from loopkit.checkpoint.atomic import write_text
from loopkit.errors import LoopkitError, UsageError
from loopkit.report.plots import require_matplotlib

PAGE = "page"


def main() -> int:
    """The exit code: 0 done, 1 where a job failed, 2 misused, 130 stopped."""
    asked = _parser().parse_args()
    try:
        return _dry_run(asked) if asked.dry_run else _tell(asked)
    except LoopkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=list(SIZES), help="; ".join(f"{size.name}: {size.about}" for size in SIZES.values()))
    parser.add_argument("--out", type=Path, help="folder of everything that is made")
    parser.add_argument("--backend", choices=["auto", "torch", "mlx"], help="what computes; auto is MLX on Apple silicon, torch elsewhere")
    parser.add_argument(
        "--compile", action="store_true", help="compile the layers in trainings; torch on a CPU needs a C++ compiler for it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time (2); they share the cores")
    parser.add_argument("--only", choices=[*STAGES, PAGE], help="one stage; page draws what there is so far")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and what each training takes, and do nothing")
    parser.add_argument(
        "--flops", type=float, default=FLOPS, help="with --dry-run: rate of the accelerator, FLOP/s (%(default)g: 40%% of an H100's bf16)"
    )
    return parser


def _dry_run(asked: argparse.Namespace) -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" is no error
    for line in describe(Story(SIZES[asked.size], asked.out or Path("runs/story"), asked.backend or "auto", asked.compile), asked.flops):
        print(line)
    return 0


def _tell(asked: argparse.Namespace) -> int:
    if asked.out is None:
        raise UsageError("say where the story goes: --out runs/story")
    if asked.jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {asked.jobs}")
    require_matplotlib()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is a Ctrl-C
    story = _open(asked)
    try:
        whole = asked.only == PAGE or _do(story, asked)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    if asked.only in (None, PAGE):
        from page import write

        print(write(story))
    return 0 if whole else 1


def _open(asked: argparse.Namespace) -> Story:
    """The story of a folder, begun or gone on with. Raises UsageError where the folder holds another one."""
    size, file = SIZES[asked.size], asked.out / "story.json"
    content = size.recipe.toml() + json.dumps(asdict(size), default=dict)
    about = {"size": size.name, "content": blake2b(content.encode(), digest_size=8).hexdigest()}
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {**about, "backend": asked.backend or "auto"}
    for key, value in {**about, "backend": asked.backend or kept["backend"]}.items():
        if kept[key] != value:
            what = f"the size {asked.size} as it was before it was changed" if key == "content" else f"{key} {kept[key]}, not {value}"
            raise UsageError(f"{asked.out} holds the story of {what}; choose another --out")
    if not file.exists():
        write_text(file, json.dumps(kept, indent=1) + "\n")
    return Story(size, asked.out, kept["backend"], asked.compile)


def _do(story: Story, asked: argparse.Namespace) -> bool:
    with lock(story.out) as held:
        jobs = story.jobs
        finished = {job.name for job in jobs if job.done}
        print(f"{len(jobs)} jobs, {len(finished)} of them finished", flush=True)
        return Runner(story.out, asked.jobs, held).run([job for job in jobs if asked.only in (None, job.stage)], finished)


if __name__ == "__main__":
    sys.exit(main())
