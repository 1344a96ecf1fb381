"""Train: watches run folders, whoever trains them, and starts new ones."""

import shlex
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from loopkit.errors import LoopkitError
from loopkit_tui import places
from loopkit_tui.runs import Watched, start
from loopkit_tui.screens.pane import Pane, label
from loopkit_tui.widgets.plot import Curves, Plot, Series
from loopkit_tui.widgets.tokens import blocks, readable
from loopkit_tui.widgets.topbar import millions

EVERY = 1.0  # seconds
SEARCH = 5  # looks from one search for new runs to the next
ONE = 4  # runs that are drawn together


class TrainScreen(Pane):
    """The runs at the left; loss, depth, speed and samples of the one under the cursor, the losses of all that are marked."""

    HELP_ABOUT = (
        "Watches the run folders around here: their curves every second, for new ones every five. Space marks runs whose losses are "
        "drawn together. n starts a "
        "training that goes on when the app is closed; s asks one that was started here to save its state and stop."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "step(1)", "Next run", show=False, id="train.next"),
        Binding("k", "step(-1)", "Last run", show=False, id="train.last"),
        Binding("space", "mark", "Overlay", id="train.mark"),
        Binding("n", "new", "New", id="train.new"),
        Binding("s", "stop", "Stop", id="train.stop"),
    ]

    def __init__(self) -> None:
        super().__init__("train")
        self._watched: dict[Path, Watched] = {}
        self._marked: list[Path] = []
        self._started: dict[Path, subprocess.Popen[bytes]] = {}
        self._looks = 0

    def body(self) -> Iterable[Widget]:
        """The list, the curves, the sample."""
        with Horizontal(classes="split"):
            yield OptionList(id="runs", classes="home", compact=True)
            with Vertical(id="curves"):
                yield Static(id="facts", classes="hint")
                yield Plot(id="loss")
                yield Plot(id="depth")
                with VerticalScroll(id="sample", classes="text", can_focus=False):
                    yield Static(id="words")

    def on_mount(self) -> None:
        """Look again and again."""
        super().on_mount()
        self.set_interval(EVERY, self._look)

    def refresh_choice(self) -> None:
        """Find the runs."""
        self._find()
        self._look(everything=True)

    def receive(self, kind: str, value: object) -> None:
        """Nothing is asked of the engine here."""

    def seen(self) -> Any:
        """The curves of the run under the cursor."""
        run = self._run()
        if run is None:
            return {}
        return {
            "run": str(run.path),
            "step": run.steps,
            "loss": run.losses,
            "heldout": run.heldout,
            "layers": run.layers,
            "tokens": run.tokens,
        }

    def command(self) -> str:
        """What goes on with the run."""
        run = self._run()
        return f"loopkit train --out {shlex.quote(str(run.path))} --resume" if run else "loopkit train examples/demo.toml --out runs/demo"

    def action_step(self, by: int) -> None:
        """Another run."""
        options = self.query_one(OptionList)
        if options.option_count:
            options.highlighted = max(0, min(options.option_count - 1, (options.highlighted or 0) + by))

    def action_mark(self) -> None:
        """Draw this run's loss with the others'."""
        if run := self._run():
            if run.path in self._marked:
                self._marked.remove(run.path)
            else:
                self._marked = [*self._marked, run.path][-ONE:]
            self._look(everything=True)

    def action_new(self) -> None:
        """Start a training."""
        self.app.push_screen(NewRun(), self._begin)

    def action_stop(self) -> None:
        """Ask a training that was started here to stop: it saves first."""
        run = self._run()
        process = self._started.get(run.path) if run else None
        if process and process.poll() is None:
            process.send_signal(signal.SIGINT)
            self.notify("asked to save and stop", timeout=3)
        else:
            self.notify("this run was not started here, or is over", timeout=3)

    @on(OptionList.OptionHighlighted)
    def _chosen(self) -> None:
        self._draw()

    def _begin(self, wanted: tuple[str, str] | None) -> None:
        if not wanted:
            return
        try:
            process = start(*wanted)
        except (LoopkitError, OSError) as error:
            self.problem(str(error))
            return
        self.problem("")
        path = Path(wanted[1]).resolve()
        self._started[path] = process
        self._watched = {path: Watched(path), **self._watched}
        self.query_one(OptionList).highlighted = None  # so that the first, the new one, is under the cursor
        self._look(everything=True)

    def _look(self, everything: bool = False) -> None:
        if not everything and not self.is_current:
            return
        self._looks += 1
        everything = (self._looks % SEARCH == 0 and self._find()) or everything
        news = [run.look() for run in self._watched.values()]
        for path, process in list(self._started.items()):
            if process.poll() not in (None, 0, 130):
                self.problem(_last_line(path))
                del self._started[path]
        if everything or any(news):
            self._list()
            self._draw()

    def _find(self) -> bool:
        """Take in runs that are new around here; whether there are any."""
        known = len(self._watched)
        for path in places.runs(self.host.here, self.host.choice.paths):
            self._watched.setdefault(path, Watched(path))
        return len(self._watched) > known

    def _list(self) -> None:
        options = self.query_one(OptionList)
        at = options.highlighted
        options.clear_options()
        options.add_options([Option(self._line(run)) for run in self._watched.values()])
        options.highlighted = min(at or 0, len(self._watched) - 1) if self._watched else None

    def _line(self, run: Watched) -> Content:
        mark = ("● ", "$warning") if run.path in self._marked else ("  ", "")
        loss = f"{run.smooth[-1]:.3f}" if run.losses else "…"
        alive = run.path in self._started and self._started[run.path].poll() is None
        return Content.assemble(mark, (run.path.name[:14].ljust(15), "bold $success" if alive else "bold"), (loss.rjust(6), "$text-muted"))

    def _run(self) -> Watched | None:
        at = self.query_one(OptionList).highlighted
        return list(self._watched.values())[at] if at is not None and at < len(self._watched) else None

    def _draw(self) -> None:
        run = self._run()
        self.query_one("#facts", Static).update(_facts(run) if run else "no runs around here; n starts one")
        self.query_one("#loss", Plot).curves = self._losses(run) if run else None
        self.query_one("#depth", Plot).curves = _depth(run) if run else None
        name, text = run.sample() if run else ("", "")
        sample = self.query_one("#sample")
        sample.display, sample.border_title = bool(name), f"sample, {name}"
        self.query_one("#words", Static).update(Content(readable(text.strip())))

    def _losses(self, run: Watched) -> Curves:
        drawn = [run, *(self._watched[path] for path in self._marked if path != run.path)]
        series = [Series(each.path.name, np.array(each.steps), np.array(each.smooth)) for each in drawn if each.losses]
        if len(drawn) == 1 and run.heldout:
            series.append(Series("held out", np.array([step for step, _ in run.heldout]), np.array([loss for _, loss in run.heldout])))
        return Curves(tuple(series), "loss", "step", "nats a token, running mean")


class NewRun(ModalScreen[tuple[str, str]]):
    """A recipe and a folder."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close")]

    def compose(self) -> ComposeResult:
        """Two boxes."""
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Start a training"
            dialog.border_subtitle = "enter starts   esc closes"
            yield Horizontal(label("recipe"), Input("examples/demo.toml", id="recipe", compact=True), classes="line")
            yield Horizontal(label("folder"), Input("runs/demo", id="out", compact=True), classes="line")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.dismiss((self.query_one("#recipe", Input).value, self.query_one("#out", Input).value))


def _facts(run: Watched) -> Content:
    if not run.steps:
        return Content.assemble((run.path.name, "bold"), "  nothing recorded yet")
    done, total = run.steps[-1] + 1, run.total
    held = f"   held out {run.heldout[-1][1]:.4f}" if run.heldout else ""
    stopped = "stopped; y copies what goes on" if run.last == "stopped" else ""
    return Content.assemble(
        (run.path.name, "bold"), f"  step {done:,} of {total:,} ", (blocks(done / max(1, total), 12), "$success"), (stopped, "$warning"),
        ("\nloss ", "$text-muted"), f"{run.smooth[-1]:.4f}{held}   ", (f"{run.rate:,.0f} tokens/s", "bold"),
        f"   {millions(run.tokens[-1])} tokens   {run.flops:.2e} FLOPs   {run.layers[-1]} layers, {run.visits[-1]} visits",
    )  # fmt: skip


def _depth(run: Watched) -> Curves:
    steps = np.array(run.steps)
    series = [Series("layers", steps, np.array(run.layers)), Series("visits", steps, np.array(run.visits))]
    return Curves(tuple(series[: 1 if run.layers == run.visits else 2]), "depth by stage", "step", "", steps=True, floor=0.0)


def _last_line(path: Path) -> str:
    log = Path(f"{path}.log")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"{path.name}: {lines[-1] if lines else 'ended at once'}"
