"""loopkit: looped and depth-grown transformers on one spec and two backends."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopkit.plan import Plan as Plan
    from loopkit.plan import parse_layout as parse_layout
    from loopkit.plan import parse_plan as parse_plan
    from loopkit.run import Run as Run
    from loopkit.run import Trace as Trace
    from loopkit.session import Model as Model
    from loopkit.session import load as load
    from loopkit.spec import Spec as Spec
    from loopkit.spec import preset as preset

__version__ = "0.1.0"

_HOMES = {
    "Plan": "plan",
    "parse_layout": "plan",
    "parse_plan": "plan",
    "Run": "run",
    "Trace": "run",
    "Model": "session",
    "load": "session",
    "Spec": "spec",
    "preset": "spec",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Public names load on first use, so that ``import loopkit`` and the command's help stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'loopkit' has no attribute {name!r}")
    return getattr(import_module(f"loopkit.{_HOMES[name]}"), name)
