"""Many plans on the same rows: what they have in common at their beginning runs once.

The runs make a trie of their steps, which is walked depth first. At a fork the larger part goes last, so at most
log2(number of runs) + 1 streams wait at any time for their other branches.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from loopkit.run import Run, Stream


@dataclass(frozen=True)
class Visit:
    """Run a layer; ``scale`` multiplies what its sublayers add."""

    layer: int
    scale: float = 1.0

    @property
    def run(self) -> Run:
        """This step alone."""
        return Run((self.layer,), scale={} if self.scale == 1 else {0: self.scale})


@dataclass(frozen=True)
class Pull:
    """Go ``weight`` of the way from the stream before step ``since`` to this one."""

    since: int
    weight: float


Step = Visit | Pull


@dataclass
class Node:
    """Where a run may end or plans may part.

    ``ends`` are indices of runs; ``size`` counts the visits below; ``needs`` are the steps before which the stream must be kept for
    a Pull on some path through here.
    """

    children: dict[Step, "Node"] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)
    size: int = 0


Advance = Callable[[Stream, Run], Stream]  # takes a step of one visit


def run_all(advance: Advance, stream: Stream, runs: Sequence[Run]) -> Iterator[tuple[int, Stream]]:
    """The index of each run and the stream at its end, as they come."""
    for ends, before, last in run_up_to_last(advance, stream, runs):
        end = advance(before, last) if last else before
        yield from ((index, end) for index in ends)


def run_up_to_last(advance: Advance, stream: Stream, runs: Sequence[Run]) -> Iterator[tuple[list[int], Stream, Run | None]]:
    """Indices of runs that end alike, the stream ahead of their last visit, and that visit: the caller may need little of it.

    Where another run goes on from their end, or a Pull makes it, the stream is that at the end and no visit is left.
    """
    pending: list[tuple[Step | None, Node, Stream, int, dict[int, Stream]]] = [(None, build(runs), stream, 0, {})]
    while pending:
        step, node, stream, depth, kept = pending.pop()
        if isinstance(step, Visit) and not node.children:
            yield node.ends, stream, step.run
            continue
        if isinstance(step, Visit):
            stream = advance(stream, step.run)
        elif step:
            stream = kept[step.since].blend(stream, step.weight)
        if node.ends:
            yield node.ends, stream, None
        for then, child in sorted(node.children.items(), key=lambda pair: -pair[1].size):
            here = {at: each for at, each in {**kept, depth: stream}.items() if at in child.needs}
            pending.append((then, child, stream, depth + 1, here))


def build(runs: Sequence[Run]) -> Node:
    """The trie of the runs' steps."""
    root = Node()
    for index, run in enumerate(runs):
        node, path = root, steps(run)
        needs = {step.since for step in path if isinstance(step, Pull)}
        for step in path:
            node = node.children.setdefault(step, Node())
            node.needs |= needs
        node.ends.append(index)
    nodes = [root]
    for node in nodes:
        nodes += node.children.values()
    for node in reversed(nodes):
        node.size = sum(child.size + isinstance(step, Visit) for step, child in node.children.items())
    return root


def steps(run: Run) -> list[Step]:
    """A run as steps. Gates, overwrites and captures belong to one run and cannot be shared."""
    assert not (run.gate or run.overwrite or run.capture)
    found: list[Step] = []
    since: dict[int, int] = {}
    for visit, layer in enumerate(run.plan):
        since[visit] = len(found)
        found.append(Visit(layer, run.scale.get(visit, 1.0)))
        found += [Pull(since[span.start], span.weight) for span in run.blend if span.stop == visit + 1]
    return found
