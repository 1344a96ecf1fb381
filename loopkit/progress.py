"""How long work says where it stands."""

from collections.abc import Callable

Progress = Callable[[int, int], None]  # how much is done, of how much


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""
