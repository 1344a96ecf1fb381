"""What the screens ask for and what they get: frozen values, and the protocol of whoever computes them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loopkit.plan import Plan
from loopkit_tui.worker import Emit

if TYPE_CHECKING:
    import numpy as np

TOP = 10  # tokens that a cell of the lens keeps


@dataclass(frozen=True)
class Side:
    """A checkpoint under a plan; the empty text is its own."""

    path: str
    plan: str = ""


@dataclass(frozen=True)
class Prompt:
    """A text, as it is or as a user's message in the model's chat format."""

    text: str
    chat: bool = False


@dataclass(frozen=True)
class Loading:
    """A checkpoint is being opened: what is done, and how much of it, 0 to 1."""

    path: str
    what: str
    share: float = 0.0


@dataclass(frozen=True)
class About:
    """An open checkpoint. ``where`` says backend, device and type, and is empty until it is loaded."""

    path: str
    name: str
    plan: Plan
    layout: str
    parameters: int
    where: str = ""


@dataclass(frozen=True)
class NextToken:
    """A next token and its probability on both sides."""

    text: str
    left: float
    right: float


@dataclass(frozen=True)
class Look:
    """Two sides after the same text: next tokens, KL(left || right) and entropies in nats, FLOPs a token, and what this look cost:
    visits that had to be run, and seconds."""

    sides: tuple[Side, Side]
    tokens: int
    candidates: tuple[NextToken, ...]
    kl: float
    entropy: tuple[float, float]
    visits: tuple[Plan, Plan]
    flops: tuple[float, float]
    ran: int
    seconds: float


@dataclass(frozen=True)
class Written:
    """The continuation of a side so far; ``rate`` in tokens a second."""

    side: int
    text: str
    done: bool
    rate: float = 0.0


@dataclass(frozen=True)
class LensTokens:
    """The text's tokens, which the columns stand for; the first is position ``start`` of the text. ``visits`` are the rows."""

    tokens: tuple[str, ...]
    start: int
    visits: Plan


@dataclass(frozen=True, eq=False)
class LensRow:
    """What the stream says after ``done`` visits at each position: top tokens ``[T][TOP]``, their probabilities float32 ``[T, TOP]``,
    and the entropy in nats ``[T]``."""

    done: int
    tokens: tuple[tuple[str, ...], ...]
    probabilities: "np.ndarray"
    entropy: "np.ndarray"


@dataclass(frozen=True)
class SweepAsk:
    """What a sweep asks: every block of these sizes, run so many times, on questions of one task."""

    task: str = "copy-words"
    blocks: tuple[int, ...] = (4,)
    times: tuple[int, ...] = (2, 3)
    mode: str = "plain"
    count: int = 40
    shots: int = 5
    seed: int = 0


@dataclass(frozen=True)
class SweepCell:
    """One plan on the questions asked so far, beside the base plan on the same ones (see loopkit.evaluation.sweep.Row)."""

    plan: str
    start: int
    stop: int
    times: int
    correct: int
    questions: int
    share: float
    interval: tuple[float, float]
    gained: int
    lost: int
    p: float
    probability: float
    flops: float


@dataclass(frozen=True)
class SweepState:
    """How much is asked, 0 to 1, the base plan, and all cells."""

    done: float
    base: SweepCell
    cells: tuple[SweepCell, ...]


@dataclass(frozen=True)
class ProbeAsk:
    """A probe on several checkpoints under one plan."""

    name: str
    paths: tuple[str, ...]
    plan: str = ""
    data: str = "primitives:var-math-1"
    examples: int = 4
    length: int = 64


@dataclass(frozen=True)
class Progress:
    """So much is done."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """A chart: a curve ``values [n]``, perhaps with an interval, or a matrix ``[rows, columns]``, perhaps with a middle value."""

    title: str
    x: str
    y: str
    values: "np.ndarray"
    low: "np.ndarray | None" = None
    high: "np.ndarray | None" = None
    centre: float | None = None


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe found on one checkpoint; ``about`` says what it shows."""

    name: str
    about: str
    label: str
    plan: str
    headline: dict[str, float | str]
    drawings: tuple[Drawing, ...]
    result: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Answers on the worker's thread through ``emit``, which does not come back where nobody waits any more. Raises LoopkitError."""

    def open(self, path: str, emit: Emit) -> None:
        """Loading and About, then About again once it is loaded."""

    def look(self, sides: tuple[Side, Side], prompt: Prompt, top: int, emit: Emit) -> None:
        """One Look."""

    def write(self, sides: tuple[Side, Side], prompt: Prompt, tokens: int, emit: Emit) -> None:
        """Written of both sides in turn, some tokens longer each time."""

    def lens(self, side: Side, prompt: Prompt, tuned: str, emit: Emit) -> None:
        """LensTokens, then a LensRow for each number of visits, deepest first; through a trained lens's folder if given."""

    def export(self, side: Side, folder: Path) -> None:
        """Write the checkpoint with the side's plan as its own, a looped model that shares its repeated layers."""

    def sweep(self, path: str, ask: SweepAsk, emit: Emit) -> None:
        """SweepState after every few questions."""

    def probes(self) -> list[tuple[str, str]]:
        """Names of the probes and what they show. Loads nothing heavy."""

    def probe(self, ask: ProbeAsk, emit: Emit) -> None:
        """Progress, and Probed for each checkpoint."""
