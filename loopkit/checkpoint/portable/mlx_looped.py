"""Runs a looped checkpoint in mlx-lm (0.32.2 or newer): ``mlx_lm.generate --model FOLDER --trust-remote-code``, or in Python
``mlx_lm.load(FOLDER, tokenizer_config={"trust_remote_code": True}, trust_remote_code=True)``.

Written by loopkit beside the weights; it needs mlx-lm, not loopkit. The weights are stored once for each unique layer;
``layout`` in config.json says in which order the layers run. A *visit* is one execution of a layer. The cache has one entry
for each unique layer, as mlx-lm counts them, and each entry has one slot for each visit of that layer.
"""

import mlx.nn as nn
from mlx_lm.models import llama, qwen2, qwen3
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import CacheList, KVCache

FAMILIES = {"loopkit_llama": llama, "loopkit_qwen2": qwen2, "loopkit_qwen3": qwen3}


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


def spell_rope(config):
    """The config with rope written as mlx-lm's llama and qwen2 read it; transformers 5 saves only ``rope_parameters``."""
    rope = config.get("rope_parameters") or {}
    theta = config.get("rope_theta") or rope.get("rope_theta")
    scaled = rope.get("rope_type", "default") != "default"
    return {**config, "rope_theta": theta, "rope_scaling": config.get("rope_scaling") or (rope if scaled else None)}


class ModelArgs:
    """The family's own arguments with one layer for each unique one, and the order in which they run."""

    def __init__(self, model_type, inner, order):
        self.model_type, self.inner, self.order = model_type, inner, order

    @classmethod
    def from_dict(cls, config):
        order = parse_layout(config["layout"])
        unique = {**spell_rope(config), "num_hidden_layers": max(order) + 1, "layer_types": None}
        family = FAMILIES[config["model_type"]]
        return cls(config["model_type"], family.ModelArgs.from_dict(unique), order)


class Model(nn.Module):
    """A Llama, Qwen2 or Qwen3 whose layers run in ``args.order``."""

    def __init__(self, args):
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        whole = FAMILIES[args.model_type].Model(args.inner)
        self.model = whole.model
        if "lm_head" in whole:
            self.lm_head = whole.lm_head

    def __call__(self, inputs, cache=None, input_embeddings=None):
        h = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        mask = create_attention_mask(h, cache[self.args.order[0]][0] if cache else None)
        turns = [0] * len(self.layers)
        for number in self.args.order:
            h = self.layers[number](h, mask, cache[number][turns[number]] if cache else None)
            turns[number] += 1
        h = self.model.norm(h)
        return self.lm_head(h) if "lm_head" in self else self.model.embed_tokens.as_linear(h)

    def sanitize(self, weights):
        tied = "lm_head" not in self
        return {k: v for k, v in weights.items() if "rotary_emb.inv_freq" not in k and not (tied and k == "lm_head.weight")}

    @property
    def layers(self):
        return self.model.layers

    def make_cache(self):
        return [CacheList(*(KVCache() for _ in range(self.args.order.count(number)))) for number in range(len(self.layers))]
