"""The dial: a block of visits and how often it runs."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from loopkit.errors import UsageError
from loopkit.plan import parse_repeats

Mode = Literal["plain", "damped", "residual"]
MODES: tuple[Mode, ...] = get_args(Mode)
MOST = 64  # repeats


@dataclass(frozen=True)
class Dial:
    """Visits ``start`` to ``stop - 1`` of a plan of ``visits`` run ``times`` times."""

    visits: int
    start: int
    stop: int
    times: int = 1
    mode: Mode = "plain"

    @property
    def plan(self) -> str:
        """The plan text; once is the plan as it is."""
        if self.times == 1:
            return ""
        return f"{self.start}:{self.stop}x{self.times}" + (f"@{self.mode}" if self.mode != "plain" else "")

    def moved(self, by: int) -> "Dial":
        """The same block elsewhere, as far as there is room."""
        by = max(-self.start, min(by, self.visits - self.stop))
        return replace(self, start=self.start + by, stop=self.stop + by)

    def starting(self, start: int) -> "Dial":
        """Another first visit."""
        return replace(self, start=max(0, min(start, self.stop - 1)))

    def stopping(self, stop: int) -> "Dial":
        """Another end."""
        return replace(self, stop=min(self.visits, max(stop, self.start + 1)))

    def repeated(self, times: int) -> "Dial":
        """Another count."""
        return replace(self, times=max(1, min(times, MOST)))

    def next_mode(self) -> "Dial":
        """Another way to apply the block."""
        return replace(self, mode=MODES[(MODES.index(self.mode) + 1) % len(MODES)])


def default(visits: int) -> Dial:
    """A block of four a little before the middle."""
    start = max(0, min(visits // 4 + 1, visits - 4))
    return Dial(visits, start, min(visits, start + 4))


def read(plan: str, visits: int) -> Dial | None:
    """The dial of a plan text; None where it is not one repeated block."""
    text, _, mode = plan.partition("@")
    if not plan:
        return default(visits)
    try:
        repeats = parse_repeats(text)
    except UsageError:
        return None
    known = next((each for each in MODES if each == (mode or "plain")), None)
    if len(repeats) != 1 or repeats[0].stop > visits or known is None:
        return None
    return Dial(visits, *repeats[0], known)
