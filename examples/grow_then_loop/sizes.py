"""Sizes of the story: what a recipe cannot hold. The recipe of a size is the file of its name beside this one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from loopkit.data.mixture import Mixture, Part, parse_mixture
from loopkit.training.recipe import Recipe, read_recipe

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Model:
    """A model to train: its name in folders, the paper's name for it at this depth, its kind, and what its command adds to the recipe."""

    name: str
    label: str
    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """Depth and block in layers; tasks by what they measure; how many questions, seeds and examples.

    ``maths`` are sources of maths text for the cooldown by name, the first of them that of the paper's table 3; they make up the
    share ``maths_share`` of the cooldown's mixture, the recipe's own mixture the rest. ``lens`` are settings of the tuned lens. A prompt of
    ``probe_length`` tokens is one question where documents hold no more.
    """

    name: str
    about: str
    depth: int
    block: int
    primitives: tuple[str, ...]
    word_problems: tuple[str, ...]
    maths: Mapping[str, str]
    tuned_tasks: tuple[str, ...]
    probe_task: str
    maths_share: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2)
    trained: tuple[str, ...] = ("baseline", "midas", "lidas", "full", "middle", "iso-full", "iso-middle")
    questions: int = 200
    shots: int = 0
    heldout_rows: int = 128
    context_shots: tuple[int, ...] = (0, 1, 2)
    tuned_examples: tuple[int, ...] = (0, 16, 64, 256)
    tuned_steps: int = 100
    sweep_questions: int = 100
    probe_examples: int = 64
    probe_length: int = 80
    lens: tuple[str, ...] = ("positions=32768", "texts=256")

    @property
    def recipe(self) -> Recipe:
        """The baseline's recipe."""
        return read_recipe(self.recipe_path)

    @property
    def recipe_path(self) -> Path:
        """Where it lies, from here where that is shorter, as a person would type it."""
        path, here = FOLDER / f"{self.name}.toml", Path.cwd()
        return path.relative_to(here) if path.is_relative_to(here) else path

    @property
    def models(self) -> dict[str, Model]:
        """The models to train by name."""
        return {name: model for name, model in self._every.items() if name in self.trained}

    @property
    def _every(self) -> dict[str, Model]:
        """The paper's seven at this depth and block (section 3)."""
        d, b = self.depth, self.block
        layouts = {"full": f"{b}x{d // b}", "middle": f"{b}-{b}x{d // b - 2}-{b}", "iso-full": str(b), "iso-middle": str(3 * b)}
        grown = {name: Model(name, name.upper(), "grown", ("--grow", name, "--block", str(b))) for name in ("midas", "lidas")}
        looped = {name: Model(name, f"Loop({layouts[name]})", "looped", ("--layout", layouts[name])) for name in ("full", "middle")}
        short = {
            name: Model(name, f"{layouts[name]} layers", "standard", ("--layout", layouts[name])) for name in ("iso-full", "iso-middle")
        }
        return {"baseline": Model("baseline", f"Baseline ({d})", "standard", ())} | grown | looped | short

    def label(self, run: str) -> str:
        """A run's name in words."""
        model, *rest = run.split("+")
        return ", ".join((self._every[model].label, *(part.replace("loop", "looped") for part in rest)))

    @property
    def retrofits(self) -> dict[str, str]:
        """The plan of one repeat more in the cooldown: the third block of plain models, the recurrent block of Loop(e-Lxk-d) (5.3)."""
        d, b = self.depth, self.block
        every = dict.fromkeys(("baseline", "lidas"), f"{2 * b}:{3 * b}x2") | {"middle": f"{b}-{b}x{d // b - 1}-{b}"}
        return {name: plan for name, plan in every.items() if name in self.trained}

    def repeats(self, model: str) -> tuple[str, ...]:
        """The plans that run that block two, three and four times in place of once; of a looped model one, two and three times more."""
        d, b = self.depth, self.block
        if model.startswith("middle"):
            return tuple(f"{b}-{b}x{d // b - 2 + more}-{b}" for more in (1, 2, 3))
        return tuple(f"{2 * b}:{3 * b}x{times}" for times in (2, 3, 4))

    def cooldown_mixture(self, source: str) -> str:
        """The recipe's mixture with a source of maths text (paper, section 5.2: 20%)."""
        parts = []
        for text, whole in ((self.recipe.data.mix, 1 - self.maths_share), (self.maths[source], self.maths_share)):
            mixture = parse_mixture(text)
            parts += [Part(part.source, round(whole * share, 6)) for part, share in zip(mixture.parts, mixture.shares, strict=True)]
        return str(Mixture(tuple(parts)))


GENERATED = {"maths-a": "primitives:arithmetic-2,word-problem-2", "maths-b": "primitives:substitution-2,word-problem-2"}
PAPER = ("copy-words", "copy-random", *(f"var-{style}-{depth}" for style in ("basic", "math", "code") for depth in (0, 1)))
HUB = {"nemotron-math": "hf:nvidia/Nemotron-CC-Math-v1:4plus", "finemath": "hf:HuggingFaceTB/finemath:finemath-4plus"}

_ALL = (
    Size(
        name="smoke",
        about="a check of the machinery: models of 4 layers and 13 steps, which learn nothing",
        depth=4,
        block=1,
        seeds=(0, 1),
        trained=("baseline", "lidas", "full", "middle"),
        primitives=("copy-words-10", "var-basic-0"),
        word_problems=("addition-2",),
        maths={"maths-a": "primitives:addition-2"},
        tuned_tasks=("var-basic-0",),
        probe_task="var-basic-0",
        questions=8,
        heldout_rows=8,
        context_shots=(0, 1),
        tuned_examples=(0, 2),
        tuned_steps=2,
        sweep_questions=4,
        probe_examples=3,
        probe_length=24,
        lens=("positions=64", "batch=32", "texts=4"),
    ),
    Size(
        name="quick",
        about="the paper's 24 layers halved, hidden size 64, words as tokens, for two CPU cores",
        depth=12,
        block=2,
        primitives=("copy-words-32", "copy-random-32", "var-basic-0", "var-basic-1"),
        word_problems=("word-problem-2",),
        maths=GENERATED,
        tuned_tasks=("var-code-0", "var-code-1"),
        probe_task="copy-words-32",  # what most of the models learn
        probe_length=26,
    ),
    Size(
        name="laptop",
        about="the paper's 24 layers at hidden size 256, words as tokens, for Apple silicon",
        depth=24,
        block=4,
        primitives=("copy-words-200", "var-basic-0", "var-basic-1", "var-math-0", "var-math-1"),
        word_problems=("word-problem-2", "word-problem-3"),
        maths=GENERATED,
        tuned_tasks=("var-code-1", "var-code-2"),
        probe_task="var-math-1",
        context_shots=(0, 1, 2, 4),
        probe_length=45,
    ),
    Size(
        name="gpu",
        about="41M parameters in 24 layers on Wikipedia with generated questions, for one data-centre GPU",
        depth=24,
        block=4,
        primitives=("copy-words", "var-basic-0", "var-basic-1", "var-math-0", "var-math-1"),
        word_problems=("word-problem-2", "word-problem-3"),
        maths=GENERATED,
        tuned_tasks=("var-code-1",),
        probe_task="var-math-1",
        context_shots=(0, 1, 2, 4),
        probe_length=45,
    ),
    *(
        Size(
            name=name,
            about=f"the paper's own schedule of its {name[6:].upper()} models: to plan with, by --dry-run",
            depth=depth,
            block=4,
            seeds=(0,),
            primitives=PAPER,
            word_problems=("word-problem-2", "word-problem-3"),
            maths=HUB,
            tuned_tasks=("var-code-1", "var-code-2"),
            probe_task="var-math-1",
            questions=1000,
            shots=5,
            heldout_rows=512,
            context_shots=(0, 1, 2, 5, 10),
            probe_length=512,
            lens=("positions=1048576", "texts=4096"),
        )
        for name, depth in (("paper-360m", 32), ("paper-1.7b", 24))
    ),
)
SIZES: Mapping[str, Size] = MappingProxyType({size.name: size for size in _ALL})
