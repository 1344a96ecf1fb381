"""Tasks of the LM evaluation harness (lm-eval) on a live model, under many plans at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loopkit.data.tasks import families
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation.groups import GROUPS
from loopkit.evaluation.statistics import Z95
from loopkit.inference.scoring import MEMORY
from loopkit.plan import Plan
from loopkit.progress import Progress, quiet
from loopkit.session import Model

Tasks = Mapping[str, Any]  # what the harness loads for one name: "tasks" and "groups"

FEW_SHOT_SEED = 1234  # the harness's own: seed 0 shows the worked examples that it shows by default
RESAMPLES = 1000  # of the bootstrap behind the standard errors that have no formula


@dataclass(frozen=True)
class Measure:
    """One metric of one task under one plan.

    ``stderr`` is None where the harness gives none; ``truncated`` counts the prompts under the asked-for name that lost their
    beginning because they were longer than the model's positions.
    """

    task: str
    plan: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    higher_is_better: bool | None
    questions: int | None
    shots: int | None
    truncated: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of a normal distribution around the value."""
        return None if self.stderr is None else (self.value - Z95 * self.stderr, self.value + Z95 * self.stderr)


def load_tasks(names: Sequence[str], include: Path | None = None) -> dict[str, Tasks]:
    """The harness's tasks (and groups and tags of them) by name with their data; ``include`` is a folder of more task files.

    Raises UsageError where there is no such task, LoopkitError where lm-eval or the data of a task cannot be had.
    """
    if include is not None and not include.is_dir():
        raise UsageError(f"--include-path {include} is not a folder; give the folder that holds the task's .yaml file")
    if not names:
        return {}
    manager = _manager(names, include)
    return {name: _load(manager, name) for name in names}


def measure(
    model: Model,
    tasks: Tasks,
    plans: Sequence[Plan | str | None] = (None,),
    limit: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    progress: Progress = quiet,
) -> list[Measure]:
    """Every metric of loaded tasks under every plan, plan by plan, on at most ``limit`` questions of each.

    Likelihoods are computed once for all plans. ``shots`` None leaves the number of worked examples to the tasks; a task that fixes
    it at 0 keeps that, as in the harness. ``progress`` is told the requests done of each kind: likelihoods once for all plans, then
    continuations plan by plan.
    """
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    scores = Scores(model, [model.run(plan) for plan in plans], memory, progress)
    found: list[Measure] = []
    for index, plan in enumerate(plans):
        lm = HarnessModel(scores, index, seed)
        results = run(lm, tasks, limit, shots, seed)
        found += _measures(results, model.text(plan), lm.truncated)
    return found


def run(lm: Any, tasks: Tasks, limit: int | None, shots: int | None, seed: int, log_samples: bool = False) -> dict[str, Any]:
    """The harness's own results for any of its models."""
    from lm_eval.evaluator import evaluate

    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # the harness would fork a process that holds a model
    for task in tasks["tasks"].values():
        if task.get_config("num_fewshot") != 0:
            task.set_config("num_fewshot", shots if shots is not None else task.get_config("num_fewshot") or 0)
        task.set_fewshot_seed(FEW_SHOT_SEED + seed)
    return dict(evaluate(lm, tasks, limit=limit, bootstrap_iters=RESAMPLES, log_samples=log_samples))


def _manager(names: Sequence[str], include: Path | None) -> Any:
    """The harness's index of tasks; its own thousands are read only where a name asks for them."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise LoopkitError(f"the tasks {', '.join(names)} need lm-eval: pip install 'loopkit-lm[lm-eval]' ({error})") from error
    folders = [str(Path(__file__).parent / "harness_tasks"), *([str(include)] if include else [])]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if all(name in manager.task_index for name in names):
        return manager
    manager = TaskManager(include_path=folders)
    for name in names:
        if name not in manager.task_index:
            known = [*manager.all_tasks, *GROUPS, *(example for each in families().values() for example in each.examples)]
            raise UsageError(f"no task is called {name!r}; nearest: {', '.join(get_close_matches(name, known, 4, 0.3) or GROUPS)}")
    return manager


def _load(manager: Any, name: str) -> Tasks:
    try:
        return dict(manager.load([name]))
    except ImportError as error:
        raise LoopkitError(f"task {name!r} of lm-eval cannot be loaded here: {error}; install what is missing, or leave it out") from error
    except OSError as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LoopkitError(f"the data of task {name!r} cannot be had: {cause}; go online once, or leave the task out") from error


def _measures(results: Mapping[str, Any], plan: str, truncated: int) -> Iterator[Measure]:
    for task, entry in results["results"].items():
        for key, value in entry.items():
            metric, comma, filtered = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                stderr = entry.get(f"{metric}_stderr,{filtered}")
                yield Measure(
                    task,
                    plan,
                    metric,
                    filtered,
                    float(value),
                    float(stderr) if isinstance(stderr, int | float) else None,
                    results["higher_is_better"].get(task, {}).get(metric),
                    results["n-samples"].get(task, {}).get("effective"),
                    results["n-shot"].get(task),
                    truncated,
                )
