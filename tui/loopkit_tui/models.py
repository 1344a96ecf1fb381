"""The engine over loopkit.session: models open once, streams of the last texts kept, so that one more repeat costs only what is new."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from loopkit import cost
from loopkit.backend import Backend
from loopkit.checkpoint.folder import newest, read_config, read_spec
from loopkit.errors import UsageError
from loopkit.inference.compare import candidates, entropy, kl_divergence, log_softmax
from loopkit.inference.prefixes import CAPACITY, Prefixes
from loopkit.plan import parse_plan
from loopkit.session import Model, load
from loopkit_tui import places
from loopkit_tui.engine import TOP, About, LensRow, LensTokens, Loading, Look, NextToken, ProbeAsk, Prompt, Side, SweepAsk, Written
from loopkit_tui.worker import Emit

if TYPE_CHECKING:
    from loopkit.probes import Lens

OPEN, TEXTS, LOOKS, CONTINUATIONS = 2, 4, 32, 64  # models, texts, next tokens and continuations that are kept
STREAM_BYTES = 1 << 28  # of one text
LENS_TOKENS = 512  # the last of a text that the lens shows
SLICE = 1 << 27  # bytes a sweep uses at a time: small, so that others get in between
V = TypeVar("V")


class Breathing:
    """A backend that looks up before each pass: is it still wanted, does something more urgent wait?"""

    def __init__(self, backend: Backend, breathe: Callable[[], None]) -> None:
        self._backend = backend
        self._breathe = breathe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def advance(self, *arguments: Any) -> Any:
        """See loopkit.backend.Backend.advance."""
        self._breathe()
        return self._backend.advance(*arguments)


class ModelEngine:
    """Implements loopkit_tui.engine.Engine. ``breathe`` is called between visits."""

    def __init__(self, breathe: Callable[[], None], backend: str = "auto", device: str | None = None, dtype: str | None = None) -> None:
        self._breathe = breathe
        self._how = (backend, device, dtype)
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._streams: OrderedDict[tuple[str, tuple[int, ...]], Prefixes] = OrderedDict()
        self._lasts: OrderedDict[tuple[Side, tuple[int, ...]], np.ndarray] = OrderedDict()
        self._continued: OrderedDict[tuple[Side, Prompt, int], str] = OrderedDict()

    def open(self, path: str, emit: Emit) -> None:
        """See Engine."""
        emit(Loading(path, "reading"))
        folder = newest(Path(path))
        spec = read_spec(read_config(folder), folder / "config.json")
        about = About(path, places.name(path), spec.plan, spec.layout, cost.parameters(spec))
        emit(about)
        emit(Loading(path, "starting"))
        if path in self._models and self._models[path].checkpoint.path != folder:  # a run that has gone on
            self._models.pop(path)
            self._forget(path)
        model = self._model(path, _by_percent(lambda done, total: emit(Loading(path, f"loading {total / 1e6:,.0f} MB", done / total))))
        dtype = str(model.weights["model.norm.weight"].dtype).split(".")[-1]
        emit(replace(about, where=f"{model.backend.name} {model.device} {dtype}"))

    def look(self, sides: tuple[Side, Side], prompt: Prompt, top: int, emit: Emit) -> None:
        """See Engine."""
        begin = time.perf_counter()
        models = [self._model(side.path) for side in sides]
        ids = [model.prompt_ids(prompt.text, prompt.chat) for model in models]
        if models[0].spec.vocab_size != models[1].spec.vocab_size or ids[0] != ids[1]:
            raise UsageError("these checkpoints have different vocabularies, so their next tokens cannot be set side by side")
        (left, first), (right, second) = (self._last(side, tuple(ids[0])) for side in sides)
        plans = tuple(model.resolve(side.plan or None) for model, side in zip(models, sides, strict=True))
        emit(
            Look(
                sides=sides,
                tokens=len(ids[0]),
                candidates=tuple(NextToken(c.text, c.base, c.looped) for c in candidates(left, right, models[0].tokenizer.decode, top)),
                kl=kl_divergence(left, right),
                entropy=(entropy(left), entropy(right)),
                visits=(plans[0], plans[1]),
                flops=(self._flops(sides[0], len(ids[0])), self._flops(sides[1], len(ids[0]))),
                ran=first + second,
                seconds=time.perf_counter() - begin,
            )
        )

    def write(self, sides: tuple[Side, Side], prompt: Prompt, tokens: int, emit: Emit) -> None:
        """See Engine."""
        streams = {number: self._continuation(side, prompt, tokens) for number, side in enumerate(sides)}
        while streams:
            for number in list(streams):
                written = next(streams[number], None)
                if written is None:
                    del streams[number]
                else:
                    emit(Written(number, *written))

    def lens(self, side: Side, prompt: Prompt, tuned: str, emit: Emit) -> None:
        """See Engine."""
        model = self._model(side.path)
        ids = tuple(model.prompt_ids(prompt.text, prompt.chat))
        run = model.run(side.plan or None)
        places = np.arange(max(0, len(ids) - LENS_TOKENS), len(ids))
        translator = _tuned(model, tuned, side.plan) if tuned else None
        emit(LensTokens(tuple(model.tokenizer.decode([ids[place]]) for place in places), int(places[0]), run.plan))
        streams = list(self._prefixes(side.path, ids).each(run))
        for done in range(len(streams) - 1, -1, -1):
            if translator and done < len(run.plan):
                logits = _translated(model, ids, translator.apply(done, model.hidden(streams[done])[0]), places)
            else:
                logits = model.unembed(streams[done], places)
            emit(_lens_row(done, logits, model.tokenizer.decode))

    def export(self, side: Side, folder: Path) -> None:
        """See Engine."""
        from loopkit.checkpoint.export import export

        model = self._model(side.path)
        export(model.checkpoint, folder, plan=parse_plan(side.plan, model.plan), unrolled=False)

    def sweep(self, path: str, ask: SweepAsk, emit: Emit) -> None:
        """See Engine."""
        from loopkit_tui.studies import sweep

        sweep(self._model(path), ask, emit, SLICE)

    def probes(self) -> list[tuple[str, str]]:
        """See Engine."""
        from loopkit_tui.studies import probes

        return probes()

    def probe(self, ask: ProbeAsk, emit: Emit) -> None:
        """See Engine."""
        from loopkit_tui.studies import probe

        probe(self._model, ask, emit)

    def _model(self, path: str, progress: Callable[[int, int], None] | None = None) -> Model:
        if path not in self._models:
            while len(self._models) >= OPEN:
                self._forget(self._models.popitem(last=False)[0])
            model = load(path, *self._how, progress=progress)
            self._models[path] = Model(
                model.checkpoint, cast(Backend, Breathing(model.backend, self._breathe)), model.device, model.weights
            )
        self._models.move_to_end(path)
        return self._models[path]

    def _forget(self, path: str) -> None:
        """Drop what is kept of a model that is closed: another may lie there when it is opened again."""
        self._streams = OrderedDict((key, kept) for key, kept in self._streams.items() if key[0] != path)
        self._lasts = OrderedDict((key, kept) for key, kept in self._lasts.items() if key[0].path != path)
        self._continued = OrderedDict((key, kept) for key, kept in self._continued.items() if key[0].path != path)

    def _prefixes(self, path: str, ids: tuple[int, ...]) -> Prefixes:
        model = self._model(path)

        def make() -> Prefixes:
            capacity = max(1, min(CAPACITY, STREAM_BYTES // (4 * len(ids) * model.spec.hidden_size)))
            return Prefixes(lambda stream, run: model.advance(stream, run)[0], model.enter(np.array([ids])), capacity)

        return _remember(self._streams, (path, ids), make, TEXTS)

    def _last(self, side: Side, ids: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """Log-probabilities of the next token, and how many visits had to be run for them: none where they are known from before."""
        if (side, ids) in self._lasts:
            return self._lasts[side, ids], 0
        model = self._model(side.path)
        stream, ran = self._prefixes(side.path, ids).end(model.run(side.plan or None))
        logs = log_softmax(model.unembed(stream, np.array([len(ids) - 1]))[0])
        return _remember(self._lasts, (side, ids), lambda: logs, LOOKS), ran

    def _flops(self, side: Side, context: int) -> float:
        model = self._model(side.path)
        return cost.token_flops(model.spec, model.resolve(side.plan or None), context)

    def _continuation(self, side: Side, prompt: Prompt, tokens: int) -> Iterator[tuple[str, bool, float]]:
        key, text = (side, prompt, tokens), ""
        if key in self._continued:
            yield self._continued[key], True, 0.0
            return
        model = self._model(side.path)
        pieces, number, spent = model.generate(model.prompt_ids(prompt.text, prompt.chat), side.plan or None, tokens), 0, 0.0
        while True:
            begin = time.perf_counter()
            piece = next(pieces, None)
            spent += time.perf_counter() - begin  # not what the other side takes in between
            if piece is None:
                break
            text, number = text + piece, number + 1
            yield text, False, number / spent
        _remember(self._continued, key, lambda: text, CONTINUATIONS)
        yield text, True, 0.0


def _by_percent(tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Tell only when another percent is done: a model has hundreds of tensors, and each word of it is drawn."""
    told = -1

    def hear(done: int, total: int) -> None:
        nonlocal told
        if 100 * done // total > told:
            told = 100 * done // total
            tell(done, total)

    return hear


def _remember(kept: OrderedDict[Any, V], key: Any, make: Callable[[], V], most: int) -> V:
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def _lens_row(done: int, logits: np.ndarray, decode: Callable[[list[int]], str]) -> LensRow:
    shifted = logits - logits.max(-1, keepdims=True)
    weights = np.exp(shifted)
    total = weights.sum(-1, keepdims=True)
    spread = np.log(total[:, 0]) - (weights * shifted).sum(-1) / total[:, 0]
    best = np.argpartition(-logits, TOP, axis=-1)[:, :TOP] if logits.shape[-1] > TOP else np.argsort(-logits, axis=-1)
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(logits, best, -1), axis=-1, kind="stable"), -1)
    tokens = tuple(tuple(decode([int(token)]) for token in row) for row in best)
    return LensRow(done, tokens, np.take_along_axis(weights / total, best, -1), spread)


def _tuned(model: Model, folder: str, plan: str) -> "Lens":
    from loopkit.probes.common import order
    from loopkit.probes.lens import check, open_lens

    lens = open_lens(Path(folder).expanduser())
    check(lens, model, order(model, plan or None))
    return lens


def _translated(model: Model, ids: tuple[int, ...], x_TD: np.ndarray, places: np.ndarray) -> np.ndarray:
    from loopkit.probes.common import unembed

    return np.asarray(unembed(model, np.array(ids), x_TD[None], places)[0])
