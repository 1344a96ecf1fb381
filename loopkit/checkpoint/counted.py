"""Arrays that tell how much of them has been taken, for whoever shows that a checkpoint is being read."""

from collections.abc import Iterator, Mapping

import numpy as np

from loopkit.progress import Progress


class Counted(Mapping[str, np.ndarray]):
    """``arrays``, each meant to be read once, before the next is asked for; ``progress`` hears bytes read and bytes in all."""

    def __init__(self, arrays: Mapping[str, np.ndarray], progress: Progress) -> None:
        self._arrays = arrays
        self._progress = progress
        self._read = 0
        self._total = sum(array.nbytes for array in arrays.values())

    def __getitem__(self, name: str) -> np.ndarray:
        self._progress(self._read, self._total)  # a mapped array is only read after it has been given out
        self._read += self._arrays[name].nbytes
        return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
