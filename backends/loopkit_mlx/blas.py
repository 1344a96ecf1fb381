"""An optimised BLAS for MLX on Linux CPUs.

The Linux wheel of MLX links an unoptimised BLAS, some fifty times slower in float32 than torch's own. A library whose symbols
are global before ``mlx.core`` is loaded is taken instead, and torch's CPU library contains one, so that file is loaded
(without importing torch), else OpenBLAS or MKL where the system has them.

The environment variable ``LOOPKIT_MLX_BLAS`` overrides the choice: ``reference`` leaves the wheel's own BLAS in place, to
measure the difference; anything else is the file name of the library to load.
"""

import ctypes
import importlib.util
import os
import platform
import sys
from pathlib import Path

from loopkit.errors import LoopkitError

VARIABLE = "LOOPKIT_MLX_BLAS"
REFERENCE = "reference (slow)"


def load() -> str:
    """Load the best BLAS there is and say which; call before ``mlx.core`` is imported. Raises LoopkitError for a bad override."""
    if platform.system() != "Linux":
        return "Accelerate" if platform.system() == "Darwin" else "mlx's own"
    if "mlx.core" in sys.modules:
        return "mlx's own (perhaps slow): mlx was imported before loopkit_mlx"
    chosen = os.environ.get(VARIABLE)
    if chosen == "reference":
        return REFERENCE
    for library in [chosen] if chosen else candidates():
        if _load_globally(library):
            return Path(library).name.split(".so")[0]
    if chosen:
        raise LoopkitError(f"{VARIABLE}={chosen} cannot be loaded; give the file name of a BLAS library, or 'reference', or unset it")
    return f"{REFERENCE}; install torch or libopenblas0 for a fast one"


def candidates() -> list[str]:
    """Libraries to try, best first."""
    return [*_torch_library(), "libopenblas.so.0", "libmkl_rt.so.3", "libmkl_rt.so.2"]


def _torch_library() -> list[str]:
    found = importlib.util.find_spec("torch")
    return [str(Path(found.origin).parent / "lib" / "libtorch_cpu.so")] if found and found.origin else []


def _load_globally(library: str) -> bool:
    """Whether the library loaded and has the product that MLX calls; its symbols become global even if torch loaded it before."""
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # else its idle threads spin and take the cores from MLX's own
    try:
        return hasattr(ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL), "sgemm_")
    except OSError:
        return False


IN_USE = load()
