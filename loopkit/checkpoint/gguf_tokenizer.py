"""A GGUF file's tokenizer metadata as the files Hugging Face tools read: tokenizer.json and friends."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from loopkit.errors import LoopkitError

KEY = "tokenizer.ggml."
SPACE = "▁"  # how SentencePiece writes a space
GPT2, LLAMA3, QWEN2, TEKKEN, SMOLLM = "gpt-2", "llama-bpe", "qwen2", "tekken", "smollm"
PRE_TOKENIZERS = {  # tokenizer.ggml.pre -> how text is cut before merging
    "default": GPT2,
    "gpt-2": GPT2,
    "smollm": SMOLLM,
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "tekken": TEKKEN,
}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
PATTERNS = {  # as in the models' own tokenizer.json
    LLAMA3: _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL,
    QWEN2: _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL,
    TEKKEN: rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*|\p{{N}}"
    + _TAIL.replace(r"[\r\n]*", r"[\r\n/]*", 1),
}
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "</s>")


class Kind(IntEnum):
    """Kinds of tokens in ``tokenizer.ggml.token_type``."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """The metadata a tokenizer is built from; ``pre`` is a key of the table above or None for SentencePiece."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    ids: Mapping[str, int]
    pre: str | None
    add_bos: bool
    add_eos: bool
    add_space: bool

    def of_kind(self, *kinds: Kind) -> Iterator[str]:
        """The tokens of these kinds, in order of id."""
        return (token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind in kinds)


def tokenizer_files(metadata: Mapping[str, Any], where: str, size: int) -> dict[str, str]:
    """File name -> text, nothing where the file has no tokenizer. ``size`` is the number of rows of the embedding.

    Raises LoopkitError naming ``where`` for a tokenizer that is broken or of an unknown kind.
    """
    if metadata.get(KEY + "model", "none") in ("none", "no_vocab"):
        return {}
    vocabulary = _vocabulary(metadata, where)
    _check(vocabulary, where, size)
    try:
        core = _byte_level(vocabulary) if vocabulary.pre else _sentencepiece(vocabulary)
    except Exception as error:  # the tokenizers library raises a bare Exception
        raise LoopkitError(f"{where}: its tokenizer cannot be rebuilt ({error})") from error
    core.post_processor = _post_processor(vocabulary)
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in vocabulary.of_kind(Kind.CONTROL, Kind.UNKNOWN)])
    core.add_tokens([AddedToken(t, normalized=False) for t in vocabulary.of_kind(Kind.USER_DEFINED)])
    template = metadata.get("tokenizer.chat_template")
    files = {
        "tokenizer.json": core.to_str(),
        "tokenizer_config.json": _dump(_tokenizer_config(vocabulary, metadata, template)),
        "generation_config.json": _dump(_generation_config(vocabulary)),
    }
    return files | ({"chat_template.jinja": template} if template else {})


def _vocabulary(metadata: Mapping[str, Any], where: str) -> Vocabulary:
    def get(key: str, default: Any = None) -> Any:
        return metadata.get(KEY + key, default)

    tokens, pre = get("tokens"), _pre_tokenizer(metadata, where)
    if tokens is None:
        raise LoopkitError(f"{where} lacks {KEY}tokens; copy or export it again")
    ids = {name: get(f"{name}_token_id") for name in ("bos", "eos", "unknown", "padding", "eot", "eom")}
    return Vocabulary(
        tokens=tokens,
        kinds=get("token_type", [Kind.NORMAL] * len(tokens)),
        scores=get("scores", ()),
        merges=get("merges", ()),
        ids={name: int(value) for name, value in ids.items() if value is not None},
        pre=pre,
        add_bos=bool(get("add_bos_token", pre in (None, LLAMA3, TEKKEN))),  # llama.cpp's defaults
        add_eos=bool(get("add_eos_token", False)),
        add_space=bool(get("add_space_prefix", pre is None)),
    )


def _pre_tokenizer(metadata: Mapping[str, Any], where: str) -> str | None:
    model, named = metadata[KEY + "model"], metadata.get(KEY + "pre")
    if model == "llama":
        return None
    if model != "gpt2":
        raise LoopkitError(f"{where}: tokenizer model {model!r} is not supported; supported are gpt2 (byte-level BPE) and llama")
    if named is None:  # files older than this key
        llama3 = "<|begin_of_text|>" in metadata.get(KEY + "tokens", ())
        named = QWEN2 if metadata.get("general.architecture") in ("qwen2", "qwen3") else LLAMA3 if llama3 else GPT2
    if named not in PRE_TOKENIZERS:
        raise LoopkitError(f"{where}: pre-tokenizer {named!r} is not supported; supported are {', '.join(PRE_TOKENIZERS)}")
    return PRE_TOKENIZERS[named]


def _check(vocabulary: Vocabulary, where: str, size: int) -> None:
    count = len(vocabulary.tokens)
    if count > size:
        raise LoopkitError(f"{where} has {count} tokens but an embedding of {size} rows; export it again")
    if len(vocabulary.kinds) != count or len(vocabulary.scores) not in (0, count):
        raise LoopkitError(f"{where}: {KEY}token_type or {KEY}scores does not have one entry a token; export it again")
    for name, token in vocabulary.ids.items():
        if not 0 <= token < count:
            raise LoopkitError(f"{where}: {KEY}{name}_token_id is {token}, outside its {count} tokens; export it again")


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    """Byte-level BPE (GPT-2 and after): merges are listed, each byte has a printable letter."""
    used = {token: i for i, token in enumerate(vocabulary.tokens) if vocabulary.kinds[i] != Kind.UNUSED}
    merges = [_pair(merge) for merge in vocabulary.merges]
    whole_words = vocabulary.pre in (LLAMA3, TEKKEN)  # a word that is a token is taken as it is
    core = Tokenizer(BPE(vocab=used, merges=merges, ignore_merges=whole_words))
    core.normalizer = normalizers.NFC() if vocabulary.pre == QWEN2 else None
    core.pre_tokenizer = _cut(vocabulary)
    core.decoder = decoders.ByteLevel()
    return core


def _cut(vocabulary: Vocabulary) -> pre_tokenizers.PreTokenizer:
    if vocabulary.pre in PATTERNS:
        split = pre_tokenizers.Split(Regex(PATTERNS[str(vocabulary.pre)]), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=vocabulary.add_space, use_regex=False)])
    letters = pre_tokenizers.ByteLevel(add_prefix_space=vocabulary.add_space)  # with GPT-2's own pattern
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), letters]) if vocabulary.pre == SMOLLM else letters


def _pair(merge: str) -> tuple[str, str]:
    middle = merge.index(" ", 1)
    return merge[:middle], merge[middle + 1 :]


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece BPE: merges follow from scores, unknown characters become bytes, a space is put before the text.

    The space comes before each piece between special tokens too, as in llama.cpp and the tokenizer.json of Llama 2.
    """
    unknown = next(vocabulary.of_kind(Kind.UNKNOWN), None)
    merges = [_pair(merge) for merge in vocabulary.merges] or _merges(vocabulary)
    vocab = {token: i for i, token in enumerate(vocabulary.tokens)}
    core = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if vocabulary.add_space else spaces
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if vocabulary.add_space else steps)
    return core


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every way to make a token of two, tokens of higher score first."""
    kinds = (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)
    ids = {token: i for i, token in enumerate(vocabulary.tokens) if vocabulary.kinds[i] in kinds}
    ways = [
        (-vocabulary.scores[i], i, ids[token[:cut]], ids[token[cut:]])
        for token, i in ids.items()
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    return [(vocabulary.tokens[left], vocabulary.tokens[right]) for _, _, left, right in sorted(ways)]


def _post_processor(vocabulary: Vocabulary) -> processors.PostProcessor:
    bos, eos = _named(vocabulary, "bos"), _named(vocabulary, "eos")
    before = f"{bos}:0 " if vocabulary.add_bos and bos else ""
    after = f" {eos}:0" if vocabulary.add_eos and eos else ""
    special = [(token, vocabulary.ids[name]) for name, token in (("bos", bos), ("eos", eos)) if token]
    template = processors.TemplateProcessing(
        single=f"{before}$A:0{after}", pair=f"{before}$A:0{after} {before}$B:0{after}", special_tokens=list(dict(special).items())
    )
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), template]) if vocabulary.pre else template


def _named(vocabulary: Vocabulary, name: str) -> str | None:
    return vocabulary.tokens[vocabulary.ids[name]] if name in vocabulary.ids else None


def _tokenizer_config(vocabulary: Vocabulary, metadata: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {key: _named(vocabulary, name) for key, name in names.items() if name in vocabulary.ids}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # others rebuild tokenizer.json after their own idea of it
        **special,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(metadata.get(f"{metadata['general.architecture']}.context_length", 2048)),
        **({"chat_template": template} if template else {}),
    }


def _generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Token ids; a generation ends at any of the tokens known to end a turn or a text."""
    control = set(vocabulary.of_kind(Kind.CONTROL))
    named = [vocabulary.ids[name] for name in ("eos", "eot", "eom") if name in vocabulary.ids]
    known = [vocabulary.tokens.index(token) for token in ENDS if token in control]
    ids = {"bos_token_id": vocabulary.ids.get("bos"), "pad_token_id": vocabulary.ids.get("padding")}
    return {"eos_token_id": list(dict.fromkeys(named + known))} | {name: value for name, value in ids.items() if value is not None}


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
