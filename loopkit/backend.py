"""The protocol between the core and an array library, and the way to get one.

A backend is a module; its weights are a flat dictionary {Hugging Face name: array of its own kind}. Nothing above this
file asks which backend it has.
"""

import importlib
import importlib.util
import platform
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np

from loopkit.errors import LoopkitError, UsageError
from loopkit.optimizer import Optimizer
from loopkit.plan import Plan
from loopkit.run import Batch, Rows, Run, Stream
from loopkit.sampling import Sampling
from loopkit.spec import Spec

PACKAGES: Mapping[str, str] = MappingProxyType({"mlx": "loopkit_mlx", "torch": "loopkit_torch"})
Weights = dict[str, Any]


class Learner(Protocol):
    """Weights and both moments of the optimizer on a device, float32 whatever the dtype of the compute, and the step that changes them."""

    def step(self, batch: Batch, plan: Plan, rate: float, detach_at: int | None = None) -> tuple[float, float]:
        """One update: the mean loss before it (nats a counted target) and the gradient's norm before clipping.

        Gradients stop before visit ``detach_at``. With several processes both are of all their batches together.
        """

    def evaluate(self, batch: Batch, plan: Plan) -> tuple[float, int]:
        """Summed loss in nats, and how many targets count."""

    def agree(self, asked: bool) -> bool:
        """Whether any process asks; all of them must call."""

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """Copies of ``weights``, ``first`` and ``second`` moments, float32, each by parameter name."""


class Decoding(Protocol):
    """Rows of one length on their way, with the keys and values of all earlier positions in slots, one for each visit."""

    def enter(self, ids: np.ndarray) -> Stream:
        """The stream of the next tokens, int ``[B, T]``, before the first visit."""

    def advance(self, stream: Stream, run: Run, first: int) -> Stream:
        """The stream after the run's visits, which use the slots from ``first`` on; what those held of these tokens is replaced."""

    def keep(self, source: np.ndarray) -> None:
        """Done with these tokens: for each row each slot takes over what slot ``source [slots, B]`` holds of them."""


class Backend(Protocol):
    """About fifteen functions. B batch, T length, V vocabulary, D hidden size; numpy in and out unless said otherwise."""

    name: str

    def devices(self) -> list[str]:
        """Devices that work here, best first: cuda, mps, metal, cpu."""

    def default_dtype(self, device: str) -> str:
        """``float32`` on a CPU, ``bfloat16`` where it is fast."""

    def put(self, arrays: Mapping[str, np.ndarray], device: str, dtype: str) -> Weights:
        """Weights on the device. Quantized checkpoints keep their extra arrays. Raises LoopkitError if it cannot."""

    def get(self, weights: Weights, names: list[str]) -> dict[str, np.ndarray]:
        """The named weights as numpy, bfloat16 as ml_dtypes' bfloat16."""

    def enter(self, weights: Weights, spec: Spec, rows: Rows) -> Stream:
        """The stream of the rows before the first visit."""

    def advance(self, weights: Weights, spec: Spec, stream: Stream, run: Run) -> tuple[Stream, dict[str, np.ndarray]]:
        """The stream after the run's visits (all of a model's or a few of them), and resid, attn, mlp if it captures (see Trace)."""

    def hidden(self, stream: Stream) -> np.ndarray:
        """The stream itself, float32 ``[B, T, D]``."""

    def logits(self, weights: Weights, spec: Spec, stream: Stream, where: np.ndarray) -> np.ndarray:
        """Final norm and head at flat positions ``[N]`` (row times T plus place): float32 ``[N, V]``."""

    def log_probs(
        self, weights: Weights, spec: Spec, stream: Stream, where: np.ndarray, targets: np.ndarray, last: Run | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-probability in nats of ``targets [N]`` as the tokens after flat positions ``where [N]``, float32 ``[N]``, and whether
        each is the likeliest, bool ``[N]``. Never holds B x T x V.

        ``last`` is a visit that the stream has yet to go through; it may have a scale. Only ``where`` is computed of it.
        """

    def stream(
        self, weights: Weights, spec: Spec, prompt: list[int], run: Run, slots: tuple[int, ...], limit: int, sampling: Sampling
    ) -> Iterator[int]:
        """Up to ``limit`` new token ids after ``prompt``; ``slots`` gives the key-value slot of each visit."""

    def decoding(self, weights: Weights, spec: Spec, slots: int, batch: int, capacity: int) -> Decoding:
        """An empty one for ``batch`` rows of up to ``capacity`` tokens."""

    def learner(
        self,
        spec: Spec,
        state: Mapping[str, Mapping[str, np.ndarray]],
        updates: int,
        optimizer: Optimizer,
        *,
        device: str,
        dtype: str,
        micro_batches: int,
        checkpointing: bool,
        compiled: bool,
        norm_scaling: bool,
    ) -> Learner:
        """A learner that goes on from ``state`` after ``updates`` updates.

        ``dtype`` is that of the compute; ``micro_batches`` parts of a batch go through one after the other; ``checkpointing``
        recomputes visits in the backward pass; ``norm_scaling`` is LayerNorm scaling.
        """

    def processes(self) -> tuple[int, int]:
        """This process's rank and how many train together, as torchrun or mlx.launch started them; joins them on the first call."""

    def barrier(self) -> None:
        """Wait until every process is here."""

    def matmul_rate(self, device: str) -> float:
        """Measured float32 matrix-product rate of the device, GFLOP/s."""

    def versions(self) -> dict[str, str]:
        """Versions and notes of what the backend runs on, for the doctor."""


def available() -> list[str]:
    """Names of the backends whose libraries are installed, without loading any."""
    libraries = {"mlx": "mlx", "torch": "torch"}
    return [name for name in PACKAGES if importlib.util.find_spec(libraries[name])]


def load(name: str = "auto") -> Backend:
    """A backend by name. ``auto`` is MLX on Apple silicon, torch elsewhere. Raises a LoopkitError that says what to install."""
    if name == "auto":
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"
        name = "mlx" if apple and "mlx" in available() else "torch"
    if name not in PACKAGES:
        raise UsageError(f"no backend {name!r}; backends are auto, {', '.join(PACKAGES)}")
    try:
        return cast(Backend, importlib.import_module(PACKAGES[name]))
    except ImportError as error:
        raise LoopkitError(f"backend {name} cannot be loaded ({error}); install it with: pip install {name}") from error


def choose_device(backend: Backend, device: str | None) -> str:
    """The device asked for, or the backend's best. Raises UsageError with the devices there are."""
    devices = backend.devices()
    if device is None:
        return devices[0]
    if device not in devices:
        raise UsageError(f"backend {backend.name} has no device {device!r} here; it has {', '.join(devices)}")
    return device
