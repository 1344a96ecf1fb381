"""Add a task in a file of your own, outside the package: which of some numbers is the largest?

The file ends in loopkit's own command line, so every command knows the task, for training, evaluation, sweeps and probes alike:

    loopkit convert smollm2-135m-instruct smol
    python examples/own_task.py eval smol --tasks largest-2,largest-4 --plan 8:12x2 --count 20
    python examples/own_task.py train examples/demo.toml --data primitives:largest-4 --steps 300 --out runs/largest
    python examples/own_task.py loop smol --sweep --task largest-4 --out runs/largest-sweep

In Python, importing the file is enough: ``accuracies(model, "largest-4")`` of loopkit.evaluation.choice then finds it.
"""

import numpy as np

from loopkit.cli import main
from loopkit.data.counter import Bits, distinct
from loopkit.data.tasks import Instances, Task, register
from loopkit.errors import UsageError

SIZE = 1000
PIECES = (*map(str, range(SIZE)), "Which is the largest: ", ", ", "? ->")  # a text is a row of numbers of these pieces
HEAD, COMMA, ASK = range(SIZE, SIZE + 3)


@register("largest", "largest-2", "largest-4")  # its name, and examples for error messages
def largest(number: int | None) -> Task:
    """``largest-N``: N different numbers below 1000, which are also the options."""
    if number is None or not 2 <= number <= SIZE:
        raise UsageError(f"largest takes 2 to {SIZE} numbers, e.g. largest-4")
    return Task(f"largest-{number}", PIECES, number, make)  # as many random words as numbers


def make(random: Bits) -> Instances:
    """Instances from random words ``[n, numbers]``, each row from its own words only."""
    values = distinct(random, SIZE)
    n, count = values.shape
    prompt = np.full((n, 2 * count + 1), COMMA)
    prompt[:, 0], prompt[:, 1::2], prompt[:, -1] = HEAD, values, ASK
    return Instances(prompt, values[:, :, None], values.argmax(1))


if __name__ == "__main__":
    main()
