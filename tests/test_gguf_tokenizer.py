"""Tokenizers rebuilt from GGUF metadata: the same ids as the tokenizers they were exported from, in our reader and transformers'."""

import argparse
import io
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from loopkit.checkpoint.bundled import bundled_model
from loopkit.checkpoint.gguf_tokenizer import tokenizer_files
from loopkit.checkpoint.tokenizer import open_tokenizer
from loopkit.errors import LoopkitError

CORPUS = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (argparse, textwrap)]
TEXTS = [
    "Hello, world! It's 12345.678 o'clock; I'LL don't",
    "  two  spaces\n\n\n\ttabs \r\n and   trailing   ",
    "naïve café — 日本語のテキスト, русский, العربية, 한국어, e\u0301 combined",
    "emoji 🙂👩‍👩‍👧 and rare 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u200b zero width",
    "def f(x: int) -> str:\n    return f'{x!r}'  # 100%\n",
    "<|im_start|>user\nHi<|im_end|>\n",
    "",
    " ",
    "x" * 200,
    *CORPUS,
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def train(cut: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in order of id and merges of a small byte-level BPE whose text is cut so."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = cut
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    model = json.loads(core.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(merge) for merge in model["merges"]]


def byte_level(pre: str | None, tokens: Sequence[str], merges: Sequence[tuple[str, str]], **more: Any) -> dict[str, Any]:
    """Metadata as llama.cpp's converter writes it."""
    keys = {
        "model": "gpt2",
        "tokens": list(tokens),
        "token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in merges],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "add_bos_token": False,
    } | more
    named = {"pre": pre} if pre else {}
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | named).items()} | {"general.architecture": "llama"}


def build(metadata: dict[str, Any], folder: Path) -> Any:
    for name, text in tokenizer_files(metadata, "m.gguf", 1 << 20).items():
        (folder / name).write_text(text, encoding="utf-8")
    return open_tokenizer(folder)


def both_ways(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Every text with its ids, which transformers must agree on."""
    from transformers import AutoTokenizer

    ours, theirs = open_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = ours.encode(text)
        assert theirs(text)["input_ids"] == ids
        yield text, ids


CHATS = (
    "{{ strftime_now('%Y') }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}",
    "{{ bos_token }}\n{%- if messages[0].role != 'system' %}\n  {{ messages[0].content | trim }}\n{%- endif %}\n{{ tools }}",
)


@pytest.mark.parametrize("template", CHATS)
def test_chat_templates_are_rendered_as_transformers_does(smollm: Path, template: str) -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(smollm), replace(open_tokenizer(smollm), chat_template=template)
    asked = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
    assert ours.chat(" Hi ") == theirs.apply_chat_template([{"role": "user", "content": " Hi "}], **asked)


@pytest.mark.parametrize("template", ["{{ raise_exception('give a system message') }}", "{% if %}"])
def test_a_template_that_fails_is_one_line(smollm: Path, template: str) -> None:
    with pytest.raises(LoopkitError, match=r"chat template fails .*plain text"):
        replace(open_tokenizer(smollm), chat_template=template).chat("Hi")


def test_the_real_tokenizer(smollm: Path) -> None:
    from transformers import AutoTokenizer

    path = bundled_model(print)
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    ours = open_tokenizer(smollm)
    for text, ids in both_ways(smollm):
        assert ids == theirs(text)["input_ids"]
        assert ours.decode(ids) == text
    messages = [{"role": "user", "content": "Hi"}]
    assert ours.chat("Hi") == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert AutoTokenizer.from_pretrained(smollm).chat_template == theirs.chat_template
    assert ours.special == {key: getattr(theirs, key) for key in ours.special}
    assert theirs.eos_token_id in ours.end_ids


def test_smollm_cuts_every_digit_off(smollm: Path) -> None:
    """Numerals of other kinds too, which transformers' own reading of the file misses."""
    tokenizer = open_tokenizer(smollm)
    assert tokenizer.core.encode("in 2024, x12 ½").tokens == ["in", "Ġ", "2", "0", "2", "4", ",", "Ġx", "1", "2", "Ġ", "Â½"]
    ids = tokenizer.encode("<|im_start|>hi<|im_end|>")
    assert (ids[0], ids[-1], len(ids)) == (1, 2, 3)


def test_qwen2_equals_transformers_own(tmp_path: Path) -> None:
    from transformers import Qwen2Tokenizer

    tokens, merges = train(Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer.pre_tokenizer)
    original = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    original.add_special_tokens({"additional_special_tokens": SPECIAL})
    padded = [*tokens, "[PAD800]"]
    build(byte_level("qwen2", padded, merges, token_type=[3] * 3 + [1] * (len(tokens) - 3) + [5]), tmp_path)
    for text, ids in both_ways(tmp_path):
        assert ids == original(text)["input_ids"]


@pytest.mark.parametrize("named", ["llama-bpe", None])
def test_llama3(named: str | None, tmp_path: Path) -> None:
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    cut = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokens, merges = train(cut)
    tokens = [token if token != "<|endoftext|>" else "<|begin_of_text|>" for token in tokens]
    original = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=True))
    original.pre_tokenizer, original.decoder = cut, decoders.ByteLevel()
    kinds = [3] * 3 + [1] * (len(tokens) - 3)
    metadata = byte_level(named, tokens, merges, token_type=kinds)
    del metadata["tokenizer.ggml.add_bos_token"]  # Llama 3 starts with one unless told otherwise
    original.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens[:3]])
    ours = build(metadata, tmp_path)
    for text, ids in both_ways(tmp_path):
        assert ids == [0, *original.encode(text).ids]
        assert ours.decode(ids) == "<|begin_of_text|>" + text
    pieces = [piece for piece, _ in ours.core.pre_tokenizer.pre_tokenize_str("12345")]
    assert pieces == ["123", "45"]


def test_gpt2_and_user_defined_tokens(tmp_path: Path) -> None:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens, merges = train(cut)
    kinds = [3] * 3 + [1] * (len(tokens) - 3) + [4]
    ours = build(byte_level(None, [*tokens, "<think>"], merges, token_type=kinds, eot_token_id=1, padding_token_id=0), tmp_path)
    original = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    original.pre_tokenizer = cut
    original.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    for text, ids in both_ways(tmp_path):
        assert ids == original.encode(text).ids and ours.decode(ids) == text
    assert ours.encode("a<think>b")[1] == len(tokens)
    assert ours.core.decode(ours.encode("a<think>b<|im_end|>"), skip_special_tokens=True) == "a<think>b"
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "eos_token_id": [2, 1, 0],
        "bos_token_id": 0,
        "pad_token_id": 0,
    }


def test_tekken_splits_at_case_and_digits(tmp_path: Path) -> None:
    tokens, merges = train(pre_tokenizers.ByteLevel(add_prefix_space=False))
    ours = build(byte_level("tekken", tokens, merges), tmp_path)
    pieces = [piece for piece, _ in ours.core.pre_tokenizer.pre_tokenize_str("fooBar HTTPServer 42 //\n\n")]
    assert pieces == ["foo", "Bar", "ĠHTTPServer", "Ġ", "4", "2", "Ġ//ĊĊ"]
    assert all(ours.decode(ours.encode(text)) == text for text in TEXTS)


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A small SentencePiece BPE with byte fallback, trained as Llama 2's was."""
    library = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in CORPUS for line in text.splitlines() if line),
        model_writer=model,
        vocab_size=900,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=0.99,
        minloglevel=2,
    )
    return library.SentencePieceProcessor(model_proto=model.getvalue())


def pieces_of(sp: Any, **more: Any) -> dict[str, Any]:
    """A SentencePiece model's metadata as llama.cpp's converter writes it."""
    size = sp.get_piece_size()
    kinds = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1 for i in range(size)]
    keys = {
        "model": "llama",
        "pre": "default",
        "tokens": [sp.id_to_piece(i) for i in range(size)],
        "scores": [sp.get_score(i) for i in range(size)],
        "token_type": kinds,
        "bos_token_id": sp.bos_id(),
        "eos_token_id": sp.eos_id(),
        "unknown_token_id": sp.unk_id(),
    } | more
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()} | {"general.architecture": "llama"}


def test_sentencepiece_equals_the_library(sentencepiece: Any, tmp_path: Path) -> None:
    ours = build(pieces_of(sentencepiece), tmp_path)
    for text, ids in both_ways(tmp_path):
        if text:
            assert ids == [sentencepiece.bos_id(), *sentencepiece.encode(text)]
            assert ours.core.decode(ids) == text
    assert ours.end_ids == {sentencepiece.eos_id()}


def test_sentencepiece_flags(sentencepiece: Any, tmp_path: Path) -> None:
    ours = build(pieces_of(sentencepiece, add_bos_token=False, add_eos_token=True, add_space_prefix=False), tmp_path)
    tokens = ours.core.encode("import os").tokens
    assert "".join(tokens) == "import▁os</s>" and tokens[-1] == "</s>"
    assert ours.core.decode(ours.encode(" import os")) == " import os"


def test_no_tokenizer_is_no_file() -> None:
    assert tokenizer_files({"general.architecture": "llama"}, "m.gguf", 10) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, "tokenizer model 'bert' is not supported"),
        ({"pre": "falcon"}, "pre-tokenizer 'falcon' is not supported; supported are default, gpt-2, smollm"),
        ({"eos_token_id": 5000}, "eos_token_id is 5000"),
        ({"token_type": [1]}, "one entry a token"),
        ({"merges": ["no such"]}, "cannot be rebuilt"),
        ({"merges": ["nospace"]}, "cannot be rebuilt"),
        ({"tokens": None}, "lacks tokenizer.ggml.tokens"),
        ({"tokens": ["x"] * 2000, "token_type": [1] * 2000}, "2000 tokens but an embedding of 1000 rows"),
    ],
)
def test_broken_metadata(change: dict[str, Any], message: str) -> None:
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    metadata = byte_level("gpt-2", tokens, []) | {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(LoopkitError, match=message) as caught:
        tokenizer_files({key: value for key, value in metadata.items() if value is not None}, "m.gguf", 1000)
    assert str(caught.value).startswith("m.gguf") and "\n" not in str(caught.value)
