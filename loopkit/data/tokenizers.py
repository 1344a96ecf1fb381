"""Tokenizers for training: bytes, one token a word, BPE trained on the data, or a checkpoint's own.

All are ``tokenizers.Tokenizer`` inside, so that a checkpoint folder carries them as tokenizer.json. Those made here give
``<|endoftext|>`` id 0; it begins and ends every document, and a prompt begins with it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from loopkit.checkpoint.tokenizer import END
from loopkit.errors import LoopkitError, UsageError

UNKNOWN = "<unk>"
WORD = r"\n|[^\W\d_]+|\d+|_+|->|[^\w\s]"  # what word-level tokens are; spaces are none
_DECODE = ((r" ?\n ?", "\n"), (r" (?=[:=,.;?!()\]])", ""), (r"(?<=[=(\[]) ", ""))  # spaces that text does not have
_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "clean_up_tokenization_spaces": False}

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Codec:
    """Text to ids for training; ``end_id`` stands between documents. ``folder`` is where a checkpoint's own came from."""

    core: Tokenizer
    end_id: int
    folder: Path | None = None

    @property
    def vocab_size(self) -> int:
        """One more than the largest id; a model's vocab_size must be at least this."""
        return max(self.core.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the whole tokenizer."""
        return sha256(self.core.to_str().encode()).hexdigest()[:16]

    @cached_property
    def kind(self) -> Literal["byte", "word", "other"]:
        """``byte`` and ``word`` are the two made here: their ids of a text are those of its parts, one after the other."""
        shape = _shape(self.core)
        return "byte" if shape == _shape(_byte_core()) else "word" if shape == _shape(_word_core(())) else "other"

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer that reads special tokens written in a text as ordinary characters: no document ends early."""
        plain = Tokenizer.from_str(self.core.to_str())
        plain.encode_special_tokens = True
        plain.no_truncation()
        plain.no_padding()
        return plain

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, int32, without any special token."""
        if self.kind == "byte":
            return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1 for text in texts]
        return [np.array(each.ids, np.int32) for each in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_spans(self, texts: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """The ids of each text and where in the text, in characters, each token ends."""
        encoded = self._plain.encode_batch(texts, add_special_tokens=False)
        return [(np.array(each.ids, np.int32), np.array([end for _, end in each.offsets], np.int32)) for each in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens included."""
        return str(self.core.decode([int(i) for i in ids], skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, or a checkpoint's own files as they were."""
        if self.folder is not None:
            from loopkit.checkpoint.folder import copy_tokenizer

            copy_tokenizer(self.folder, folder)
            return
        self.core.save(str(folder / "tokenizer.json"))
        config = _CONFIG | ({"unk_token": UNKNOWN} if self.kind == "word" else {})
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def byte_codec() -> Codec:
    """One token a byte of UTF-8: id = byte + 1, 257 in all."""
    return Codec(_byte_core(), 0)


def word_codec(words: Iterable[str]) -> Codec:
    """One token a word, number, punctuation mark or line break; others are ``<unk>`` (id 1).

    Spaces are not tokens: decoding puts one between words and none around most punctuation, so word-level text comes back
    exactly where it was written so.
    """
    return Codec(_word_core(words), 0)


def bpe_codec(texts: Iterable[str], vocab_size: int) -> Codec:
    """Byte-level BPE with single digits, as SmolLM has it, trained on the texts. Raises UsageError on a size below 257."""
    least = len(pre_tokenizers.ByteLevel.alphabet()) + 1
    if vocab_size < least:
        raise UsageError(f"a BPE vocabulary needs at least {least} tokens, every byte and the end of text, got {vocab_size}; e.g. bpe:4096")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # the library's own order is not always the same
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(texts, trainer)
    return Codec(_begun(core), 0)


def checkpoint_codec(folder: Path) -> Codec:
    """The tokenizer of a checkpoint folder; documents end with its ``<|endoftext|>``, or else with its eos_token.

    Raises LoopkitError where the folder has no tokenizer, or one without such a token.
    """
    from loopkit.checkpoint.tokenizer import open_tokenizer

    opened = open_tokenizer(folder)
    end = opened.core.token_to_id(END)
    if end is None and "eos_token" in opened.special:
        end = opened.core.token_to_id(opened.special["eos_token"])
    if end is None:
        raise LoopkitError(
            f"the tokenizer in {folder} has neither {END} nor an eos_token to end documents; name one in tokenizer_config.json"
        )
    return Codec(opened.core, end, folder)


def _byte_core() -> Tokenizer:
    vocab = {END: 0} | {symbol: byte + 1 for byte, symbol in enumerate(_byte_symbols())}
    core = Tokenizer(models.BPE(vocab, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(END, special=True)])
    return _begun(core)


def _byte_symbols() -> list[str]:
    """The character that byte-level tokenizers write for each byte: itself where it prints, or one from 256 up."""
    prints = [33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174 for byte in range(256)]
    return [chr(byte) if prints[byte] else chr(256 + prints[:byte].count(False)) for byte in range(256)]


def _word_core(words: Iterable[str]) -> Tokenizer:
    vocab = {word: i for i, word in enumerate((END, UNKNOWN, *sorted(set(words) - {END, UNKNOWN})))}
    core = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    fixes = [decoders.Replace(Regex(pattern), content) for pattern, content in _DECODE]
    core.decoder = decoders.Sequence([decoders.WordPiece("##", cleanup=False), decoders.Fuse(), *fixes])
    core.add_special_tokens([AddedToken(END, special=True)])
    return _begun(core)


def _begun(core: Tokenizer) -> Tokenizer:
    """The tokenizer, now putting the end of text ahead of what it is asked to encode with special tokens: so all documents begin."""
    core.post_processor = processors.TemplateProcessing(single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, 0)])
    return core


def _shape(core: Tokenizer) -> dict[str, Any]:
    """What makes the ids of a text, but for a word list."""
    shape: dict[str, Any] = json.loads(core.to_str())
    del shape["post_processor"]
    if shape["model"]["type"] == "WordLevel":
        del shape["model"]["vocab"]
    return shape
