"""Recipes: everything that decides a run, as one frozen value that prints as TOML and reads back exactly."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loopkit.errors import LoopkitError, UsageError
from loopkit.optimizer import Optimizer
from loopkit.training.schedule import Kind, learning_rate


@dataclass(frozen=True)
class ModelPart:
    """The model. A size of 0 and an empty layout are the preset's."""

    preset: str = "nano"
    layout: str = ""
    hidden_size: int = 0
    intermediate_size: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    head_dim: int = 0
    vocab_size: int = 0  # 0 is the tokenizer's
    max_position_embeddings: int = 0
    tie_word_embeddings: bool = True
    qk_norm: bool = False
    norm_scaling: bool = False  # LayerNorm scaling: both pre-norms times 1/sqrt(depth)
    init_scale: float = 1.0  # the layers' matrices begin with a standard deviation of this over sqrt(hidden_size)
    init_from: str = ""  # a checkpoint to start from; it decides all sizes
    untie: bool = False  # give every visit of a looped init_from a layer of its own


@dataclass(frozen=True)
class GrowthPart:
    """Growing in depth. ``steps`` 0 is the whole run ahead of the cooldown."""

    operator: str = ""
    block: int = 4
    steps: int = 0
    alpha: float = 1.0


@dataclass(frozen=True)
class DataPart:
    """What is read and how it is cut; ``rows`` sequences of ``length`` tokens a step and process."""

    mix: str = "primitives:copy-words"
    tokenizer: str = "byte"
    length: int = 256
    rows: int = 16
    heldout: float = 0.01
    limit: int = 0  # tokens taken of each source of text, 0 is all: a hub's dataset is read to its end before the first step
    documents: bool = False  # a position attends to its own document only
    answers: bool = False  # of generated questions, only the answers count
    shots: int = 5  # generated questions of a document ahead of its last one, as worked examples stand ahead of a question
    examples: int = 0  # fine-tune on so many questions of the mixture's tasks
    pairs: str = ""  # fine-tune on a jsonl file with prompt and answer


@dataclass(frozen=True)
class SchedulePart:
    """The learning rate, and how long the run is."""

    steps: int = 1000
    rate: float = 3e-3
    warmup: int = 20
    cooldown: float = 0.15
    kind: Kind = "wsd"
    final_ratio: float = 0.0

    def at(self, step: int) -> float:
        """The learning rate of update ``step``. Raises UsageError where the numbers do not fit together."""
        return learning_rate(step, self.steps, self.rate, self.warmup, self.cooldown, self.kind, self.final_ratio)


@dataclass(frozen=True)
class CooldownPart:
    """What changes for the cooldown: another mixture, another plan (retrofitted recurrence). Empty changes nothing."""

    mix: str = ""
    plan: str = ""


@dataclass(frozen=True)
class TrainPart:
    """How the run goes. Numbers of steps; 0 turns evaluating and sampling off, ``keep`` 0 keeps every checkpoint."""

    seed: int = 0
    recurrence: str = ""  # sampled recurrence, e.g. 4:8~4,backprop=2
    micro_batches: int = 1
    checkpointing: bool = False
    evaluate_every: int = 100
    evaluate_rows: int = 64  # held-out sequences
    save_every: int = 200
    keep: int = 2
    sample_tokens: int = 64
    log: str = ""  # trackers beside metrics.jsonl, e.g. tensorboard,wandb


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    model: ModelPart = field(default_factory=ModelPart)
    growth: GrowthPart = field(default_factory=GrowthPart)
    data: DataPart = field(default_factory=DataPart)
    schedule: SchedulePart = field(default_factory=SchedulePart)
    optimizer: Optimizer = field(default_factory=Optimizer)
    cooldown: CooldownPart = field(default_factory=CooldownPart)
    train: TrainPart = field(default_factory=TrainPart)

    def toml(self) -> str:
        """The recipe as TOML; ``parse_recipe`` reads it back."""
        sections = ([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in part.items())] for name, part in asdict(self).items())
        return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def read_recipe(path: Path) -> Recipe:
    """The recipe of a TOML file. Raises LoopkitError where it cannot be read, UsageError as ``parse_recipe``."""
    try:
        return parse_recipe(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LoopkitError(f"cannot read the recipe {path}: {error}") from error


def parse_recipe(text: str) -> Recipe:
    """The recipe of TOML text; what it leaves out is as by default. Raises UsageError at an unknown key or a wrong type."""
    try:
        return recipe_from(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the recipe is not TOML: {error}") from error


def recipe_from(table: Mapping[str, Any]) -> Recipe:
    """The recipe of nested tables, each checked against its section."""
    parts = {part.name: part.default_factory for part in fields(Recipe)}
    for name in table:
        _known(name, list(parts), "section")
    return Recipe(**{name: _section(type(make()), table.get(name, {}), name) for name, make in parts.items()})  # type: ignore[operator]


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """``recipe`` with settings such as ``schedule.steps=500`` or ``data.mix=stdlib``. Raises UsageError at a bad one."""
    for setting in settings:
        dotted, equals, value = setting.partition("=")
        section, dot, key = dotted.strip().partition(".")
        if not (equals and dot):
            raise UsageError(f"bad setting {setting!r}; write section.key=value, e.g. schedule.steps=500")
        _known(section, [part.name for part in fields(Recipe)], "section")
        part = getattr(recipe, section)
        _known(key, [each.name for each in fields(part)], f"key in [{section}]")
        new = _typed(f"{section}.{key}", _value(value.strip(), getattr(part, key)), getattr(part, key))
        recipe = replace(recipe, **{section: replace(part, **{key: new})})
    return recipe


def _section(kind: Any, table: Any, name: str) -> Any:
    if not isinstance(table, Mapping):
        raise UsageError(f"[{name}] must be a table, got {table!r}")
    defaults = kind()
    for key in table:
        _known(key, [each.name for each in fields(kind)], f"key in [{name}]")
    return kind(**{key: _typed(f"{name}.{key}", value, getattr(defaults, key)) for key, value in table.items()})


def _known(name: str, names: list[str], what: str) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=1)
        raise UsageError(f"no {what} named {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"))


def _value(text: str, default: Any) -> Any:
    """A setting's value as TOML reads it; bare words count as text where text is wanted."""
    if isinstance(default, str) and text[:1] not in "\"'":
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _typed(name: str, value: Any, default: Any) -> Any:
    if name.endswith(".mix") and isinstance(value, list):
        from loopkit.data.mixture import mixture_from_tables

        return str(mixture_from_tables(value))
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{name} must be {_KINDS[type(default)]}, got {value!r}")
    return value


def _toml(value: object) -> str:
    """TOML's text and numbers are JSON's, but for surrogates and the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_KINDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
