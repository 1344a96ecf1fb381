"""A checkpoint's tokenizer: text to ids and back, streaming, with its chat template."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Tokenizer
from tokenizers.decoders import DecodeStream

from loopkit.errors import LoopkitError, UsageError

END = "<|endoftext|>"  # ends documents in training, so a text too, whatever else a chat model ends its turns with


@dataclass(frozen=True)
class Tokenizer:
    """Encodes and decodes with the ``tokenizers`` library; ``end_ids`` end a generation."""

    core: _Tokenizer
    end_ids: frozenset[int]
    chat_template: str | None
    special: dict[str, str]
    unknown_id: int | None = None  # what stands for words without an id

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text; special tokens written in it count as such. ``special`` adds those the model starts with."""
        return list(self.core.encode(text, add_special_tokens=special).ids)

    def encode_known(self, text: str) -> list[int]:
        """As ``encode``. Raises UsageError where the text holds a word that the tokenizer has no id for, as word-level ones may."""
        encoding = self.core.encode(text)
        if self.unknown_id not in encoding.ids:
            return list(encoding.ids)
        written = zip(encoding.ids, encoding.special_tokens_mask, encoding.offsets, strict=True)
        unknown = next((place for each, special, place in written if each == self.unknown_id and not special), None)
        if unknown:
            start, stop = unknown
            raise UsageError(
                f"the model's tokenizer does not know {text[start:stop]!r}, so this cannot be asked of it;"
                f" ask for what it was trained on, or train a model with --tokenizer byte"
            )
        return list(encoding.ids)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self.core.decode(ids, skip_special_tokens=False))

    def streaming_decoder(self) -> Callable[[int], str | None]:
        """A function from the next id to the text it completes, None while a character is still open."""
        stream = DecodeStream(skip_special_tokens=False)
        return lambda token: stream.step(self.core, token)

    def chat(self, message: str) -> str:
        """A user's message in the model's chat format, ready for the answer; encode it with ``special=False``.

        Raises LoopkitError without a template, or where it does not take the message.
        """
        if self.chat_template is None:
            raise LoopkitError("this checkpoint has no chat template; give the prompt as plain text")
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(reason: str) -> None:
            raise TemplateError(reason)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        given = {"messages": [{"role": "user", "content": message}], "add_generation_prompt": True, "tools": None, "documents": None}
        try:
            return str(environment.from_string(self.chat_template).render(given, **self.special))
        except TemplateError as error:
            raise LoopkitError(f"the checkpoint's chat template fails ({error}); give the prompt as plain text") from error


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder. Raises LoopkitError where tokenizer.json is missing or broken."""
    file = folder / "tokenizer.json"
    if not file.exists():
        raise LoopkitError(f"{folder} has no tokenizer.json, so it cannot read text; copy the original model's there")
    try:
        core = _Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise LoopkitError(f"{file} is not a tokenizer ({error})") from error
    core.no_truncation()  # what some library's last call had asked for
    core.no_padding()
    config = _json(folder / "tokenizer_config.json")
    special = {key: _content(config[key]) for key in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(key)}
    template = folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.exists() else config.get("chat_template")
    if isinstance(chat, list):
        chat = {each["name"]: each["template"] for each in chat}.get("default")
    unknown = getattr(core.model, "unk_token", None)
    unknown_id = None if unknown is None else core.token_to_id(unknown)
    return Tokenizer(core, _end_ids(folder, core, special), chat if isinstance(chat, str) else None, special, unknown_id)


def token_ids(folder: Path) -> dict[str, int | list[int]]:
    """What config.json says of a tokenizer: ``eos_token_id``, one or several, and ``bos_token_id`` where it has one."""
    opened = open_tokenizer(folder)
    ends, first = sorted(opened.end_ids), opened.special.get("bos_token")
    found: dict[str, int | list[int]] = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
    begins = None if first is None else opened.core.token_to_id(first)
    return found if begins is None else {**found, "bos_token_id": begins}


def _end_ids(folder: Path, core: _Tokenizer, special: dict[str, str]) -> frozenset[int]:
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        eos = _json(folder / name).get("eos_token_id")
        ids |= set(eos) if isinstance(eos, list) else {eos} if eos is not None else set()
    named = (core.token_to_id(token) for token in (special.get("eos_token"), END) if token is not None)
    return frozenset(ids | {each for each in named if each is not None})


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])
