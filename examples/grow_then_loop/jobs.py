"""The story as a list of jobs: each a loopkit command with what it makes, and the jobs that it needs."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from sizes import Size

from loopkit.training.folder import RunFolder

STAGES = ("train", "cooldown", "evaluate", "probe")
PROBES = ("depth-score", "top5-overlap", "tuned-lens", "residual-norms", "sublayers", "local-effects", "swap")
PROBED = ("baseline", "lidas", "full", "middle")
SWEPT = ("baseline", "midas", "lidas", "middle")
REPEATED = {"repeats": ("baseline", "midas", "lidas"), "repeats-middle": ("middle",)}  # models whose plans agree share a command
SOURCED = ("baseline", "lidas")  # models that cool down with every source of maths (table 2)
LOOP = "+loop"  # ends the name of a run whose cooldown repeated a block


@dataclass(frozen=True)
class Job:
    """``arguments`` of loopkit make the run folder or the JSON file ``made``, on ``hardware``; ``needs`` are names of other jobs."""

    name: str
    stage: str
    arguments: tuple[str, ...]
    made: Path
    needs: tuple[str, ...] = ()
    hardware: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether it makes a run, which can be gone on with; others are done whole."""
        return self.arguments[0] == "train"

    @property
    def done(self) -> bool:
        """Whether what it makes is there, whole."""
        if not self.trains or not (self.made / "config.toml").exists():
            return not self.trains and self.made.exists()
        run = RunFolder(self.made)
        saved = run.newest()
        return saved is not None and run.position(saved).step == run.recipe.schedule.steps

    @property
    def next_arguments(self) -> tuple[str, ...]:
        """The arguments that do what is left of it."""
        if not self.trains or not (self.made / "config.toml").exists():
            return (*self.arguments, *self.hardware)
        return ("train", "--out", str(self.made), "--resume", *self.hardware)


@dataclass(frozen=True)
class Story:
    """A size in a folder on a backend, trainings ``compiled`` or not, and its jobs in the order in which they begin."""

    size: Size
    out: Path
    backend: str = "auto"
    compiled: bool = False

    @property
    def command(self) -> str:
        """What a person types to make it."""
        backend = () if self.backend == "auto" else ("--backend", self.backend)
        compiled = ("--compile",) if self.compiled else ()
        return shlex.join(["examples/grow_then_loop/run.py", self.size.name, "--out", str(self.out), *backend, *compiled])

    @property
    def jobs(self) -> list[Job]:
        """All of them, each after those that it needs; one seed after the other, so that a page can be drawn when the first is done."""
        by_stage = (self._trainings, self._cooldowns, self._evaluations, self._probes)
        return [job for seed in self.size.seeds for jobs in by_stage for job in jobs(seed)]

    def run(self, model: str, seed: int) -> Path:
        """Where the run of a model lies."""
        return self.out / "runs" / model / f"seed_{seed}"

    def branches(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Runs that part from a trained one at its cooldown, by name: that model, and the options (sections 5.2 and 5.3)."""
        found = {}
        for number, source in enumerate(self.size.maths):
            mixed = ("--cooldown-data", self.size.cooldown_mixture(source))
            for model, plan in self.size.retrofits.items():
                if number == 0 or model in SOURCED:
                    found[f"{model}+{source}"] = (model, mixed)
                if number == 0:
                    found[f"{model}+{source}{LOOP}"] = (model, (*mixed, "--cooldown-plan", plan))
        return found

    def _trainings(self, seed: int) -> list[Job]:
        found = []
        for model in self.size.models.values():
            made = self.run(model.name, seed)
            arguments = ("train", str(self.size.recipe_path), *model.options, "--set", f"train.seed={seed}", "--out", str(made))
            found.append(self._job("train", f"train {model.name}", seed, arguments, made))
        return found

    def _cooldowns(self, seed: int) -> list[Job]:
        found = []
        for name, (model, options) in self.branches().items():
            made = self.run(name, seed)
            arguments = ("train", "--branch", str(self.run(model, seed)), *options, "--set", "train.keep=1", "--out", str(made))
            found.append(self._job("cooldown", f"train {name}", seed, arguments, made, (f"train {model}",)))
        return found

    def _evaluations(self, seed: int) -> list[Job]:
        size = self.size
        tasks, primitives = ",".join((*size.primitives, *size.word_problems)), ",".join(size.primitives)
        questions = (
            f"--count {size.questions} --seed {seed}"  # other ones for each seed, so that the spread over seeds is over questions too
        )
        asked = f"--tasks {tasks} --shots {size.shots} {questions}"
        heldout = f"{asked} --rows {size.heldout_rows} --length {size.recipe.data.length}"
        tuned = f"--tasks {','.join(size.tuned_tasks)} --examples {_listed(size.tuned_examples)} --seeds {seed} --steps {size.tuned_steps}"
        context = f"--tasks {primitives} --shots {_listed(size.context_shots)} {questions}"
        swept = f"--sweep --block {size.block} --times 1..3 --task {primitives} --shots {size.shots} --seed {seed}"
        tuned_runs = ("--count", str(size.questions), "--out", str(self.out / "tuned" / f"seed_{seed}"))
        mixed = [name for name in self.branches() if not name.endswith(LOOP)]
        return [
            self._evaluation("compare", seed, "compare", list(size.models), heldout),
            self._evaluation("cooldown", seed, "compare", mixed, heldout),
            self._evaluation("context", seed, "context", self._kept(PROBED), context),
            self._evaluation("finetune", seed, "finetune", self._kept(PROBED), tuned, tuned_runs),
            *(
                self._evaluation(f"sweep-{model}", seed, "loop", [model], f"{swept} --count {size.sweep_questions}")
                for model in self._kept(SWEPT)
            ),
            *(self._repeats(what, seed, models, asked) for what, models in REPEATED.items()),
        ]

    def _repeats(self, what: str, seed: int, models: tuple[str, ...], asked: str) -> Job:
        """More repeats of the retrofitted block, before and after the cooldown."""
        kept, main = self._kept(models), next(iter(self.size.maths))
        cooled = [f"{model}+{main}{end}" for model in kept if model in self.size.retrofits for end in ("", LOOP)]
        plans = " ".join(f"--plan {plan}" for plan in self.size.repeats(models[0]))
        return self._evaluation(what, seed, "eval", [*kept, *cooled], f"{asked} {plans}")

    def _probes(self, seed: int) -> list[Job]:
        size = self.size
        data = f"--data primitives:{size.probe_task} --examples {size.probe_examples} --length {size.probe_length}"
        asked = f"{data} --shots {size.shots} --seed {seed}"
        lens = " ".join(f"--set {setting}" for setting in (*size.lens, f"train=primitives:{','.join(size.primitives)}"))
        first, *others = self._kept(PROBED)
        against = tuple(word for model in others for word in ("--against", str(self.run(model, seed))))
        needs = tuple(f"train {model}" for model in (first, *others))
        found = []
        for probe in PROBES:
            options = f"{asked} {lens if probe == 'tuned-lens' else ''} --json".split()
            arguments = ("probe", probe, str(self.run(first, seed)), *against, *options)
            found.append(self._job("probe", f"probe {probe}", seed, arguments, self._result(f"probe-{probe}", seed), needs))
        return found

    def _evaluation(self, what: str, seed: int, command: str, models: list[str], options: str, more: tuple[str, ...] = ()) -> Job:
        """A command on the runs of some models, whose JSON is kept."""
        arguments = (command, *(str(self.run(model, seed)) for model in models), *options.split(), *more, "--json")
        return self._job("evaluate", what, seed, arguments, self._result(what, seed), tuple(f"train {model}" for model in models))

    def _job(self, stage: str, what: str, seed: int, arguments: tuple[str, ...], made: Path, needs: tuple[str, ...] = ()) -> Job:
        backend = () if self.backend == "auto" else ("--backend", self.backend)
        hardware = (*backend, *(("--compile",) if self.compiled and arguments[0] == "train" else ()))
        return Job(f"{what} seed {seed}", stage, arguments, made, tuple(f"{need} seed {seed}" for need in needs), hardware)

    def _kept(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name in self.size.models]

    def _result(self, what: str, seed: int) -> Path:
        return self.out / "results" / what / f"seed_{seed}.json"


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))
