"""Recipes of runs that take seconds."""

from loopkit.training.recipe import Recipe, override

SMALL = (
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_attention_heads=2",
    "model.num_key_value_heads=1",
    "model.head_dim=16",
    "model.layout=4",
    "data.mix=primitives:copy-words-32",
    "data.tokenizer=word",
    "data.length=48",
    "data.rows=4",
    "schedule.steps=12",
    "schedule.warmup=2",
)


def small(*settings: str) -> Recipe:
    """A recipe of ``SMALL`` and more settings."""
    return override(Recipe(), [*SMALL, *settings])
