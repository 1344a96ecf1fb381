"""Begin a run on one backend and go on with it on another: the way from a CUDA box to a Mac, or back.

    python examples/continue_elsewhere.py runs/moved --first torch --second mlx

does it on one machine: half of the run with the first, a copy of its folder, the rest with the second. With two machines, where
Ctrl-C saves and stops:

    loopkit train examples/demo.toml --grow lidas --block 2 --out runs/moved          # on the CUDA box
    scp -r cuda-box:loopkit/runs/moved runs/moved                                     # on the Mac
    loopkit train --out runs/moved --resume                                           # MLX there, by default

The folder holds all that a run is: recipe, tokenizer, weights, both moments of AdamW, and the number of updates done. Which batch a
step reads follows from the seed and the step alone. So the second machine does the steps that the first would have done.
"""

import argparse
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from loopkit import backend as backends
from loopkit.training.events import Event, Grown, Step
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import parse_recipe
from loopkit.training.start import begin, resume, train

RECIPE = """
[model]
layout = "4"
hidden_size = 32
intermediate_size = 64
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 16
[growth]
operator = "lidas"
block = 2
[data]
mix = "primitives:copy-words-32"
tokenizer = "word"
length = 64
rows = 8
[schedule]
steps = 40
warmup = 5
[train]
evaluate_every = 0
sample_tokens = 0
"""


def hardware(name: str) -> Hardware:
    """A backend on its best device, in float32 so that the losses of the two can be compared."""
    backend = backends.load(name)
    return Hardware(backend, backends.choose_device(backend, None), "float32")


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop after so many steps, as Ctrl-C does."""
    left = iter(range(steps, 0, -1))
    return lambda: next(left) == 1


def show(where: Hardware, events: Iterable[Event]) -> None:
    """The losses of some steps, and the growth."""
    for event in events:
        if isinstance(event, Grown):
            print(f"{where.backend.name} on {where.device}: before step {event.step} grown to {event.layers} layers")
        if isinstance(event, Step) and event.step % 5 == 0:
            print(f"{where.backend.name} on {where.device}: step {event.step}, {event.layers} layers, loss {event.loss:.4f}")


def main() -> None:
    """A run of 40 steps that moves after half of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder to make, with the runs `here` and `there`")
    parser.add_argument("--first", default="torch")
    parser.add_argument("--second", default="mlx")
    asked = parser.parse_args()
    recipe, here, there = parse_recipe(RECIPE), RunFolder(asked.out / "here"), RunFolder(asked.out / "there")
    first, second = hardware(asked.first), hardware(asked.second)
    show(first, train(begin(recipe, here, first), here, first, after(recipe.schedule.steps // 2)))
    shutil.copytree(here.path, there.path)
    show(second, train(resume(there, second), there, second))
    print(f"the whole run: {there.path}")


if __name__ == "__main__":
    main()
