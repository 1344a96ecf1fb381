"""How long work says where it stands."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # how much is done, of how much
Bars = Callable[[str], Progress]  # the progress of a part of the work by what it is


def silent(what: str) -> Progress:
    """Bars that nobody watches."""
    return quiet


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""
