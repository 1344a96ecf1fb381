"""How sure a share is, and the difference of two on the same questions."""

import math
from collections.abc import Sequence

Z95 = 1.959964
_T95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


def wilson(correct: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share that a normal test at ``z`` does not reject (Wilson 1927)."""
    share, spread = correct / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return middle - half if correct else 0.0, middle + half if correct < total else 1.0


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value that as many questions were gained as lost by chance (McNemar 1947): a fair coin for each that changed."""
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << changed))


def paired_interval(gained: int, lost: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The 95% interval of a difference of two shares on the same questions (Agresti & Min 2005: half a question added to each cell)."""
    b, c, n = gained + 0.5, lost + 0.5, total + 2.0
    middle, half = (b - c) / n, z * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for having made all these tests (Holm 1979)."""
    corrected, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = worst
    return corrected


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean, by Student's t."""
    n, mean = len(values), sum(values) / len(values)
    half = student_t(n - 1) * math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half


def share_interval(shares: Sequence[float]) -> tuple[float, float]:
    """``mean_interval`` of shares, as far as it lies within 0 and 1."""
    low, high = mean_interval(shares)
    return max(0.0, low), min(1.0, high)


def student_t(freedom: int) -> float:
    """Student's t that 95% lie within, two-sided (tables to 30 degrees of freedom, then Cornish and Fisher's expansion)."""
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = Z95
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
