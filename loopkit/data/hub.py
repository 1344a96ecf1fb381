"""Datasets of the Hugging Face hub, streamed through ``datasets``."""

from collections.abc import Iterator

from loopkit.data.files import check_column
from loopkit.errors import LoopkitError, UsageError


def read_documents(name: str, config: str, split: str, column: str) -> Iterator[str]:
    """The texts of one column. Raises LoopkitError where the dataset cannot be had, UsageError at a missing column."""
    from datasets import load_dataset

    try:
        dataset = iter(load_dataset(name, config or None, split=split, streaming=True))
        row = next(dataset, None)
    except Exception as error:  # datasets, the hub's client and the network each raise their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise LoopkitError(f"the dataset {name!r} cannot be had ({reason[0]}); check name, config, split and network") from error
    if row is None:
        raise UsageError(f"the dataset {name!r} has no rows in split {split!r}")
    check_column(column, list(row), f"the dataset {name!r}")
    if not isinstance(row[column], str):
        raise UsageError(f"column {column!r} of the dataset {name!r} holds {type(row[column]).__name__}, not text")
    yield row[column]
    yield from (row[column] or "" for row in dataset)


def revision(name: str) -> str:
    """The commit of a dataset's newest version; empty where the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name, timeout=10).sha)
    except Exception:  # offline: a cache made earlier still serves
        return ""
