"""What a training run reports, as it happens: frozen values, which the CLI prints, the run folder records and screens draw."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One update is done. ``loss`` in nats a token, of the weights before it; ``tokens`` and ``flops`` since the start."""

    step: int
    loss: float
    rate: float
    gradient_norm: float
    tokens: int
    flops: float
    seconds: float
    layers: int
    visits: int


@dataclass(frozen=True)
class Evaluated:
    """Held-out loss after ``step`` updates, nats a token."""

    step: int
    loss: float


@dataclass(frozen=True)
class Grown:
    """Before update number ``step`` the model grew; layer i starts as layer ``source[i]``."""

    step: int
    layers: int
    source: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """Text the model wrote after ``step`` updates."""

    step: int
    text: str


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint after ``step`` updates."""

    step: int
    path: str


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and has saved its state after ``step`` updates."""

    step: int


Event = Step | Evaluated | Grown | Sampled | Saved | Stopped
