"""Run the app on real models."""

import os
import sys
from collections.abc import Callable, Sequence

from loopkit_tui.app import LoopkitApp
from loopkit_tui.engine import Engine

How = tuple[str, str | None, str | None]  # backend, device, dtype


def run(paths: Sequence[str], plan: str | None, prompt: str | None, chat: bool, screen: str, how: How) -> int:
    """Until the person quits; the exit code. Only now do backends load, on the engine's thread."""
    app = LoopkitApp(_maker(how), paths, plan=plan, prompt=prompt, chat=chat, screen=screen)
    app.run()
    if app.unkept:
        print(app.unkept, file=sys.stderr)
    if not app.worker.close():  # a library that is being loaded cannot be interrupted, and must not be torn down under way
        sys.stdout.flush()
        os._exit(app.return_code or 0)
    return app.return_code or 0


def _maker(how: How) -> Callable[[Callable[[], None]], Engine]:
    def make(breathe: Callable[[], None]) -> Engine:
        from loopkit_tui.models import ModelEngine

        return ModelEngine(breathe, *how)

    return make
