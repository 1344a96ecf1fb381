"""Small random models for the probes, and the slow obvious reference: hooks on a transformers Llama with a layer for each visit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_arrays, unrolled

import loopkit
from loopkit.backend import Backend
from loopkit.checkpoint.folder import write_folder
from loopkit.data.tokenizers import byte_codec
from loopkit.plan import Plan
from loopkit.session import Model
from loopkit.spec import Spec

SPEC = Spec(48, 64, 4, 2, 12, 300, "1-2x2-1", tie_word_embeddings=False)
Arrays = dict[str, np.ndarray]
Make = Callable[..., Model]


class Hooked:
    """transformers' own Llama on the unrolled plan. ids ``[T]``; all it returns is numpy float32."""

    def __init__(self, spec: Spec, arrays: Arrays, plan: Plan) -> None:
        import torch
        import transformers

        self.torch = torch
        deep, copied = unrolled(spec, arrays, plan)
        config = deep.to_config()
        config.pop("model_type")
        self.model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).float().eval()
        state = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in copied.items()}
        self.model.load_state_dict(state, strict=False)
        self.model.tie_weights()
        self.layers = self.model.model.layers

    @contextmanager
    def hooks(self, *handles: Any) -> Iterator[None]:
        yield
        for handle in handles:
            handle.remove()

    def logits(self, ids: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self.model(self.torch.from_numpy(np.asarray(ids)[None])).logits[0].numpy()  # type: ignore[no-any-return]

    def streams(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What enters each layer, what attention and MLP write, and what leaves each layer, ``[layers, T, D]`` each."""
        seen: dict[str, list[Any]] = {"in": [], "attn": [], "mlp": [], "out": []}
        handles = []
        for layer in self.layers:
            handles.append(layer.register_forward_pre_hook(lambda _, args: seen["in"].append(args[0][0].clone())))
            handles.append(layer.self_attn.register_forward_hook(lambda _, __, out: seen["attn"].append(out[0][0].clone())))
            handles.append(layer.mlp.register_forward_hook(lambda _, __, out: seen["mlp"].append(out[0].clone())))
            handles.append(layer.register_forward_hook(lambda _, __, out: seen["out"].append(out[0].clone())))
        with self.hooks(*handles):
            self.logits(ids)
        return tuple(self.torch.stack(seen[name]).numpy() for name in ("in", "attn", "mlp", "out"))  # type: ignore[return-value]

    def without(self, ids: np.ndarray, skipped: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Updates of all layers and the softmax when layer ``skipped`` leaves its input as it is at positions 1 to t - 1."""

        def hook(_: Any, args: Any, out: Any) -> Any:
            out = out.clone()
            out[:, 1:t] = args[0][:, 1:t]
            return out

        with self.hooks(self.layers[skipped].register_forward_hook(hook)):
            before, _, _, after = self.streams(ids)  # registered first, so the streams show what the hook left
            logits = self.torch.from_numpy(self.logits(ids))
        return after - before, logits.softmax(-1).numpy()

    def alone(self, layer: int, x: np.ndarray) -> np.ndarray:
        """What one layer adds to a stream ``[T, D]`` of its own."""
        found: list[Any] = []
        stream = self.torch.from_numpy(x)[None]

        def enter(_: Any, args: Any, kwargs: Any) -> Any:
            return (stream, *args[1:]), kwargs

        handles = [
            self.layers[layer].register_forward_pre_hook(enter, with_kwargs=True),
            self.layers[layer].register_forward_hook(lambda _, __, out: found.append(out.clone())),
        ]
        with self.hooks(*handles):
            self.logits(np.zeros(len(x), np.int64))
        return (found[0] - stream)[0].numpy()  # type: ignore[no-any-return]

    def read(self, x: np.ndarray) -> Any:
        """Logits of any stream through final norm and head, a torch tensor."""
        with self.torch.inference_mode():
            return self.model.lm_head(self.model.model.norm(self.torch.from_numpy(np.asarray(x, np.float32))))


@pytest.fixture(scope="session")
def hooked() -> type[Hooked]:
    """The reference; skips without transformers."""
    pytest.importorskip("transformers")
    return Hooked


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A model of given arrays on a backend, with a byte tokenizer."""

    def made(backend: Backend | str, spec: Spec = SPEC, arrays: Arrays | None = None) -> Model:
        folder: Path = tmp_path_factory.mktemp("probe")
        byte_codec().save(folder)
        write_folder(folder / "model", spec, arrays or random_arrays(spec), tokenizer=folder)
        return loopkit.load(folder / "model", backend if isinstance(backend, str) else backend.name, "cpu")

    return made


@pytest.fixture(scope="session")
def model(backend: Backend, make: Make) -> Model:
    """A small random looped model."""
    return make(backend)
