"""Runs a looped checkpoint in transformers (5.7 or newer): ``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)``.

Written by loopkit beside the weights; it needs torch and transformers, not loopkit. The weights are stored once for each
unique layer; ``layout`` in config.json says in which order the layers run. A *visit* is one execution of a layer, and
``num_hidden_layers`` counts visits, so that ``generate`` makes one key-value slot for each of them.
"""

from contextvars import ContextVar

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

_started: ContextVar = ContextVar("visits started in the running forward pass", default=None)


def parse_layout(text):
    """Layer numbers in running order: ``4-4x4-4`` (segments, LxK runs L new layers K times) or ``layers:0,1,1,2``."""
    if text.startswith("layers:"):
        return [int(layer) for layer in text.removeprefix("layers:").split(",")]
    order, first = [], 0
    for part in text.split("-"):
        length, _, times = part.partition("x")
        order += list(range(first, first + int(length))) * int(times or 1)
        first += int(length)
    return order


class VisitCache:
    """A cache as one visit sees it: keys and values go into the visit's own slot, whatever layer computed them."""

    def __init__(self, cache, visit):
        self.cache, self.visit = cache, visit

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        return self.cache.update(key_states, value_states, self.visit, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.__dict__["cache"], name)


class Visit:
    """A layer at one place of the running order; in all but the cache slot it is the layer itself."""

    def __init__(self, layer, visit):
        self.layer, self.visit = layer, visit

    def __call__(self, *args, **kwargs):
        if not torch.compiler.is_compiling() and (started := _started.get()) is not None:
            started.append(self.visit)
        for name in ("cache", "past_key_values"):  # the first since transformers 5.24, the second before
            if kwargs.get(name) is not None:
                kwargs[name] = VisitCache(kwargs[name], self.visit)
        return self.layer(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.__dict__["layer"], name)


class LoopedLayers(nn.Module):
    """The sequence of visits; its parameters are those of the unique layers, each once, under the layer's own number."""

    def __init__(self, layers, order):
        super().__init__()
        self.order = order
        for number, layer in enumerate(layers):
            layer.self_attn.layer_idx = None  # a cache reached other than through a visit must fail, not share a slot
            self.add_module(str(number), layer)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[visit] for visit in range(len(self))[index]]
        visit = range(len(self))[index]
        return Visit(self._modules[str(self.order[visit])], visit)

    def __iter__(self):
        return iter(self[:])


class _Looped:
    """Turns a model built with one layer for each visit into the looped one."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        order = parse_layout(config.layout)
        if len(order) != config.num_hidden_layers:
            raise ValueError(f"layout {config.layout!r} has {len(order)} visits, num_hidden_layers says {config.num_hidden_layers}")
        self.model.layers = LoopedLayers(list(self.model.layers)[: max(order) + 1], order)
        self.model.register_forward_pre_hook(_start)
        self.model.register_forward_hook(_check)


def _start(model, args):
    if not torch.compiler.is_compiling():
        _started.set([])


def _check(model, args, output):
    """Raises RuntimeError where the pass did not run every visit in order, so that no change elsewhere runs it unlooped."""
    if torch.compiler.is_compiling():
        return
    started, visits = _started.get(), list(range(len(model.layers)))
    _started.set(None)
    if started != visits:
        raise RuntimeError(
            f"this transformers version ran visits {started} of {len(visits)} in a looped model; "
            "use the version the checkpoint was written for, or export it unrolled with loopkit"
        )


class LoopedLlamaConfig(LlamaConfig):
    model_type = "loopkit_llama"
    layout: str | None = None
    n_unique_layers: int | None = None


class LoopedQwen2Config(Qwen2Config):
    model_type = "loopkit_qwen2"
    layout: str | None = None
    n_unique_layers: int | None = None


class LoopedQwen3Config(Qwen3Config):
    model_type = "loopkit_qwen3"
    layout: str | None = None
    n_unique_layers: int | None = None


class LoopedLlamaForCausalLM(_Looped, LlamaForCausalLM):
    config_class = LoopedLlamaConfig


class LoopedQwen2ForCausalLM(_Looped, Qwen2ForCausalLM):
    config_class = LoopedQwen2Config


class LoopedQwen3ForCausalLM(_Looped, Qwen3ForCausalLM):
    config_class = LoopedQwen3Config
