"""Growing in depth: which old layer each new layer is copied from, and when.

A *source map* lists, for each layer of the deeper model from the bottom up, the old layer it starts as. One map grows the weights
and both AdamW moments alike. ``OPERATORS`` has the maps by name; any other order is a listing, ``layers:0,1,2,1,2,3``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any

from numpy.typing import NDArray

from loopkit.errors import UsageError
from loopkit.plan import LISTING, parse_layout

Array = NDArray[Any]
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def lidas(n_layers: int, block: int) -> list[int]:
    """The exact middle ``block`` layers are copied, the copy goes right after them: ``n_layers + block`` old layers.

    Kapl et al. 2025 (LIDAS), read so that growth from one block repeats its layers in order. The same as ``midas`` where the
    number of blocks is odd.
    """
    _check_divides(block, n_layers)
    first = (n_layers - block) // 2
    return _inserted(n_layers, first, block, at=first + block)


def lidas_between(n_layers: int, block: int) -> list[int]:
    """The exact middle ``block`` layers are copied, the copy goes between the lower and the upper half of the model.

    The other reading of Kapl et al. 2025 (LIDAS).
    """
    _check_divides(block, n_layers)
    return _inserted(n_layers, (n_layers - block) // 2, block, at=n_layers // 2)


def midas(n_layers: int, block: int) -> list[int]:
    """Block number ceil(n / 2) of the n blocks, counted from 1, is copied, the copy goes right after it.

    Saunshi et al. 2024 (MIDAS).
    """
    _check_divides(block, n_layers)
    first = (n_layers // block - 1) // 2 * block
    return _inserted(n_layers, first, block, at=first + block)


def stack(n_layers: int, block: int) -> list[int]:
    """The last block is copied on top: gradual stacking (Reddi et al. 2023), the baseline of Saunshi et al. 2024."""
    _check_divides(block, n_layers)
    return _inserted(n_layers, n_layers - block, block, at=n_layers)


def gstack(n_layers: int, times: int) -> list[int]:
    """The whole model ``times`` times on top of itself (Du et al. 2024, G_stack; they find 4 best)."""
    _check_positive("n_layers", n_layers)
    if times < 2:
        raise UsageError(f"gstack stacks a model 2 times or more, got {times}; example: 4")
    return list(range(n_layers)) * times


def solar(n_layers: int, drop: int) -> list[int]:
    """Two copies, the lower without its last ``drop`` layers, the upper without its first: ``2 * (n_layers - drop)`` deep.

    Kim et al. 2024 (SOLAR, depth up-scaling), who take 32 layers to 48 with ``drop`` 8.
    """
    _check_positive("n_layers", n_layers)
    if not 0 <= 2 * drop < n_layers:
        raise UsageError(f"solar drops fewer than half of the {n_layers} layers, got {drop}; example: {n_layers // 4}")
    return [*range(n_layers - drop), *range(drop, n_layers)]


OPERATORS: dict[str, Callable[[int, int], list[int]]] = {
    "lidas": lidas,
    "midas": midas,
    "stack": stack,
    "between": lidas_between,
    "gstack": gstack,
    "solar": solar,
}


def grow_arrays(arrays: Mapping[str, Array], source: Sequence[int]) -> dict[str, Array]:
    """The arrays of the model in which layer i starts as layer ``source[i]``: weights, or moments with the weights' names.

    Layers are copied, so that new and old drift apart; embeddings, norm and head are kept (paper, appendix A). Raises UsageError
    where ``source`` names a layer that the arrays lack.
    """
    layers: dict[int, dict[str, Array]] = {}
    grown: dict[str, Array] = {}
    for name, array in arrays.items():
        match = _LAYER.fullmatch(name)
        if match:
            layers.setdefault(int(match[1]), {})[match[2]] = array
        else:
            grown[name] = array
    for new, old in enumerate(source):
        if old not in layers:
            raise UsageError(f"the growth map copies layer {old}, the model has layers 0 to {len(layers) - 1}")
        grown |= {f"model.layers.{new}.{name}": array.copy() for name, array in layers[old].items()}
    return grown


def stages(total_steps: int, n_stages: int, alpha: float = 1.0) -> list[int]:
    """Steps of each stage, in proportion to i**alpha and adding up to ``total_steps``: PROP-alpha (paper, appendix A).

    Rounded by the largest remainder, ties to the later stage, so that no stage is shorter than the one before. Raises UsageError
    where a stage would have no step.
    """
    _check_positive("n_stages", n_stages)
    if not 0 <= alpha <= 10:
        raise UsageError(f"alpha must be from 0 (equal stages) to 10, got {alpha}; example: 1")
    weights = [Fraction(i**alpha) for i in range(1, n_stages + 1)]
    whole = sum(weights)
    shares = [total_steps * weight / whole for weight in weights]
    lengths = [int(share) for share in shares]
    by_remainder = sorted(range(n_stages), key=lambda i: (shares[i] - lengths[i], i), reverse=True)
    for i in by_remainder[: total_steps - sum(lengths)]:
        lengths[i] += 1
    if min(lengths) < 1:
        needed = -(-whole // weights[0])
        raise UsageError(f"{total_steps} steps are too few for {n_stages} growth stages; {needed} give each at least one")
    return lengths


@dataclass(frozen=True)
class Stage:
    """From step ``start``, ``steps`` steps at a depth of ``layers``; ``source`` is the map applied first, none in the first."""

    start: int
    steps: int
    layers: int
    source: tuple[int, ...] | None = None


def growth_plan(operator: str, block: int, final_layers: int, grow_steps: int, total_steps: int, alpha: float = 1.0) -> tuple[Stage, ...]:
    """The stages of a run that starts ``block`` layers deep and ends ``final_layers`` deep (paper, appendix A).

    ``operator`` is a name in ``OPERATORS`` or a listing. lidas, midas, stack and between add a block a stage; gstack and solar get
    from ``block`` to ``final_layers`` in one step, a listing from the layers it names, whatever the block. ``grow_steps`` are
    shared out by ``stages``; what is left of ``total_steps`` belongs to the last one. Raises UsageError.
    """
    first, sources = _sources(operator, block, final_layers)
    if grow_steps > total_steps:
        raise UsageError(f"growing over {grow_steps} steps does not fit a run of {total_steps}; example: {total_steps * 85 // 100}")
    lengths = stages(grow_steps, len(sources) + 1, alpha)
    lengths[-1] += total_steps - grow_steps
    starts = accumulate(lengths[:-1])
    later = [Stage(start, steps, len(s), tuple(s)) for start, steps, s in zip(starts, lengths[1:], sources, strict=True)]
    return (Stage(0, lengths[0], first), *later)


def _sources(operator: str, block: int, final: int) -> tuple[int, list[list[int]]]:
    """The depth at the start and the maps from there to the final depth."""
    if operator.startswith(LISTING):
        return _from_listing(operator, final)
    if operator not in OPERATORS:
        raise UsageError(f"no growth operator {operator!r}; operators are {', '.join(OPERATORS)}, or a map: {LISTING}0,1,2,1,2,3")
    if operator == "solar":
        return block, [solar(block, _solar_drop(block, final))]
    _check_divides(block, final)
    if block == final:
        raise UsageError(f"block {block} is the whole model of {final} layers, nothing grows; take a smaller block")
    if operator == "gstack":
        return block, [gstack(block, final // block)]
    return block, [OPERATORS[operator](depth, block) for depth in range(block, final, block)]


def _from_listing(text: str, final: int) -> tuple[int, list[list[int]]]:
    source = list(parse_layout(text))
    if len(source) != final:
        raise UsageError(f"the map {text!r} makes {len(source)} layers, the model has {final}; list one old layer for each new one")
    return max(source) + 1, [source]


def _solar_drop(block: int, final: int) -> int:
    if final % 2 or not block < final <= 2 * block:
        raise UsageError(f"solar makes an even depth, at most twice the block, not {final} layers of {block}; example: 48 of 32")
    return block - final // 2


def _inserted(n_layers: int, first: int, block: int, at: int) -> list[int]:
    return [*range(at), *range(first, first + block), *range(at, n_layers)]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} must be 1 or more, got {value}")


def _check_divides(block: int, n_layers: int) -> None:
    _check_positive("block", block)
    _check_positive("n_layers", n_layers)
    if n_layers % block:
        near = min((d for d in range(1, n_layers + 1) if n_layers % d == 0), key=lambda d: abs(d - block))
        raise UsageError(f"block {block} does not divide {n_layers} layers; example: block {near}")
