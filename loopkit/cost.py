"""What a model costs: parameters, FLOPs and memory, computed from a Spec and a plan.

A multiply-add counts as two FLOPs. Counted are the matrix products and attention's two products, as torch's FLOP counter does;
norms, rotary positions and activations are left out. The embedding look-up is free, the head is not.
"""

from collections.abc import Iterable
from math import prod

from loopkit.plan import Plan
from loopkit.spec import Spec


def parameters(spec: Spec, embeddings: bool = True) -> int:
    """Unique parameters; without ``embeddings``, neither the embedding nor an untied head."""
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    return sum(prod(shape) for name, shape in spec.shapes().items() if embeddings or name not in tables)


def effective_parameters(spec: Spec, plan: Plan | None = None, embeddings: bool = True) -> int:
    """Parameters counted once a visit: what the unrolled model would have."""
    extra = len(spec.plan if plan is None else plan) - spec.n_layers
    return parameters(spec, embeddings) + extra * layer_parameters(spec)


def layer_parameters(spec: Spec) -> int:
    """Parameters of one layer."""
    return sum(prod(shape) for shape in spec.layer_shapes().values())


def visit_flops(spec: Spec, context: float) -> float:
    """Inference FLOPs a token of one visit, attending to ``context`` positions."""
    products = sum(prod(shape) for shape in spec.layer_shapes().values() if len(shape) == 2)
    attention = 2 * spec.num_attention_heads * spec.head_dim * context
    return 2 * (products + attention)


def token_flops(spec: Spec, plan: Plan | None = None, context: float = 0) -> float:
    """Inference FLOPs a token that attends to ``context`` positions, itself among them: all visits and the head."""
    visits = len(spec.plan if plan is None else plan)
    return visits * visit_flops(spec, context) + 2 * spec.hidden_size * spec.vocab_size


def sequence_flops(spec: Spec, length: int, plan: Plan | None = None) -> float:
    """Inference FLOPs of one sequence with logits at every position; attention counted causally, ``(length + 1) / 2``."""
    return length * token_flops(spec, plan, (length + 1) / 2)


def training_flops(spec: Spec, stages: Iterable[tuple[Plan, int]], length: int) -> float:
    """Training FLOPs of a run: for each stage its plan and its tokens, in sequences of ``length``.

    The backward pass costs twice the forward pass (Kaplan et al. 2020, section 2.1).
    """
    return sum(3 * tokens * token_flops(spec, plan, (length + 1) / 2) for plan, tokens in stages)


def cache_bytes(spec: Spec, plan: Plan | None = None, length: int = 1, itemsize: int = 4) -> int:
    """Size in bytes of the keys and values of ``length`` positions, one slot a visit."""
    visits = len(spec.plan if plan is None else plan)
    return visits * 2 * spec.num_key_value_heads * spec.head_dim * length * itemsize
