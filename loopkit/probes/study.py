"""Several probes on several checkpoints: what is asked, its folder that can be gone on with, the page at the end.

A folder holds study.json (what was asked), CHECKPOINT/PROBE.json and .npz for each result as it is found, the figures, and last of all
page.html. The same study goes on where it was stopped.
"""

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from loopkit import session
from loopkit.checkpoint.atomic import write_text
from loopkit.checkpoint.folder import newest, read_json
from loopkit.checkpoint.folder import open_folder as open_checkpoint
from loopkit.errors import UsageError
from loopkit.plan import parse_plan
from loopkit.probes.common import order
from loopkit.probes.draw import pictures, section
from loopkit.probes.prompts import Prompts, read_prompts
from loopkit.probes.registry import PROBES, Probe, find_probe
from loopkit.probes.result import Result, load, save
from loopkit.progress import Bars
from loopkit.report import Page, require_matplotlib, write_page
from loopkit.session import Model

ALL = "all"
TRAINED = "tuned-lens"  # not part of "all", since it trains for long
ASKED, PAGE = "study.json", "page.html"
Results = dict[str, dict[str, Result]]  # by probe, by checkpoint


@dataclass(frozen=True)
class Study:
    """What is asked: a probe's name or ``all``, checkpoints by label, and what to run them on. ``settings`` are a probe's own."""

    probe: str
    checkpoints: Mapping[str, str]
    plan: str | None = None
    data: str = "primitives:var-math-1"
    examples: int = 8
    length: int | None = None
    shots: int | None = None
    seed: int = 0
    backend: str = "auto"
    device: str | None = None
    dtype: str | None = None
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def probes(self) -> list[Probe]:
        """The probes to run. Raises UsageError at an unknown name or setting."""
        names = [name for name in PROBES if name != TRAINED] if self.probe == ALL else [self.probe]
        probes = [find_probe(name) for name in names]
        known = {name for probe in probes for name in settable(probe)}
        for name, _ in self.settings:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
                raise UsageError(f"probe {self.probe} has no setting {name!r}; {hint}")
        return probes


def labels(paths: Sequence[Path]) -> dict[str, str]:
    """A name for each checkpoint, its folder's, numbered where two are the same; of a run, the newest checkpoint."""
    found: dict[str, str] = {}
    for path in paths:
        name, number = path.resolve().name, 2
        while name in found:
            name, number = f"{path.resolve().name}-{number}", number + 1
        found[name] = str(newest(path))
    return found


def settable(probe: Probe) -> dict[str, Any]:
    """The settings of a probe with their defaults: its numbers and texts."""
    parameters = inspect.signature(probe.run).parameters.values()
    return {each.name: each.default for each in parameters if isinstance(each.default, (int, float, str)) and each.name != "seed"}


def check(study: Study) -> None:
    """Raises LoopkitError where a checkpoint or the plan on it cannot be opened."""
    for path in study.checkpoints.values():
        spec = open_checkpoint(path).spec
        if study.plan:
            parse_plan(study.plan, spec.plan)


def open_folder(study: Study, out: Path, force: bool) -> None:
    """Make a study's folder, or go on with it. Raises UsageError where something else is there, or all is done, unless ``force``."""
    require_matplotlib()
    weights = {label: open_checkpoint(path).fingerprint for label, path in study.checkpoints.items()}
    asked = json.loads(json.dumps({**asdict(study), "weights": weights}))
    if out.exists() and not (out / ASKED).exists():
        raise UsageError(f"{out} exists and is no folder of probes; choose another name for --out")
    if out.exists() and force:
        shutil.rmtree(out)
    kept = read_json(out / ASKED) if any(out.glob("*/*")) else asked
    other = [key for key in asked if kept.get(key) != asked[key]]
    if other:
        what = f"probes with other {', '.join(other)}, see {out / ASKED}"
        raise UsageError(f"{out} holds {what}; choose another name for --out, or --force to replace it")
    if (out / PAGE).exists():
        raise UsageError(f"{out} is done, see {out / PAGE}; choose another name for --out, or --force to do it again")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / ASKED, json.dumps(asked, indent=2) + "\n")


def run(study: Study, out: Path | None, bars: Bars) -> tuple[Results, list[str]]:
    """All results by probe and checkpoint, and what was skipped since it does not fit; results in ``out`` are taken as they are.

    Models are open one at a time. Raises UsageError where the only probe does not fit.
    """
    found: Results = {}
    skipped: list[str] = []
    for label in study.checkpoints:
        for name, result in _on_checkpoint(study, label, out, bars):
            if isinstance(result, Result):
                found.setdefault(name, {})[label] = result
            else:
                skipped.append(f"{name} on {label}: {result}")
    return found, skipped


def finish(study: Study, results: Results, skipped: Sequence[str], out: Path, command: str) -> Path:
    """Write the figures as SVG, and the page, which says that the study is done."""
    sections = []
    for name, by_label in results.items():
        drawn = pictures(by_label)
        for number, row in enumerate(drawn, 1):
            for label, each in zip(by_label, row, strict=False):
                write_text(out / (f"{name}-{number}" + (f"-{label}" if len(row) > 1 else "") + ".svg"), each.svg)
        sections.append(section(by_label, drawn))
    title = f"{study.probe if study.probe != ALL else 'Probes'} of {', '.join(study.checkpoints)}"
    left_out = [("Skipped", list(skipped))] if skipped else []
    return write_page(out / PAGE, Page(title, [*sections, *left_out], command))


def _on_checkpoint(study: Study, label: str, out: Path | None, bars: Bars) -> Iterator[tuple[str, Result | UsageError]]:
    model, prompts = None, Prompts(np.empty((0, 0)))
    for probe in study.probes:
        stem = out / label / probe.name if out else None
        if stem and stem.with_suffix(".json").exists():
            yield probe.name, load(probe.kind, stem)
            continue
        if model is None:
            bars(f"loading {label}")(0, 1)
            model = session.load(study.checkpoints[label], study.backend, study.device, study.dtype)
            order(model, study.plan)  # what fits no probe is not skipped
            prompts = read_prompts(
                model, study.data, study.examples, study.length, study.shots, study.seed, any(each.asks for each in study.probes)
            )
        folder, progress = stem and stem.with_name("lens"), bars(f"{label}: {probe.name}")
        given = {"questions": prompts.questions, "seed": study.seed, "folder": folder, "progress": progress}
        try:
            result = _run(probe, model, prompts.ids, study, given)
        except UsageError as error:
            if study.probe != ALL:
                raise
            yield probe.name, error
            continue
        if stem:
            stem.parent.mkdir(exist_ok=True)
            save(result, stem)
        yield probe.name, result


def _run(probe: Probe, model: Model, ids: Any, study: Study, given: Mapping[str, Any]) -> Result:
    """One probe with those of the given arguments that it takes, and its settings."""
    taken = inspect.signature(probe.run).parameters
    defaults = settable(probe)
    settings = {name: _convert(name, text, defaults[name]) for name, text in study.settings if name in defaults}
    return probe.run(model, ids, study.plan, **{name: value for name, value in given.items() if name in taken}, **settings)


def _convert(name: str, text: str, default: float | str) -> float | str:
    try:
        return type(default)(text)
    except ValueError:
        raise UsageError(f"setting {name} must be a number like {default}, got {text!r}") from None
