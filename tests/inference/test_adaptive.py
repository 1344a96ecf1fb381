"""Adaptive looping against an obvious way: everything from the beginning for each new token, one visit at a time, nothing cached."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_arrays, random_ids, specs

from loopkit.backend import Backend, Weights
from loopkit.errors import UsageError
from loopkit.inference.adaptive import Loop, Step, Until, generate, parse_loop, parse_until
from loopkit.inference.compare import kl_divergence, log_softmax
from loopkit.plan import key_value_slots, repeat
from loopkit.run import Rows, Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

SPEC = Spec(64, 96, 4, 2, 16, 101, "5")
BATCH, LENGTH, NEW = 3, 6, 5
KL, SAME, LATENT = RULES = Until("kl", 0.05), Until("same-top1"), Until("latent", 0.3)


def settled_weights(spec: Spec = SPEC, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights whose sublayers add little, so that repeats settle, some tokens sooner than others."""
    arrays = random_arrays(spec, seed)
    small = ("o_proj.weight", "down_proj.weight")
    return {name: array * np.float32(0.35) if name.endswith(small) else array for name, array in arrays.items()}


def adaptive(
    backend: Backend, weights: Weights, spec: Spec, loop: Loop, prompts: np.ndarray, limit: int = NEW, sampling: Sampling | None = None
) -> list[Step]:
    """What the module under test writes."""
    decoding = backend.decoding(weights, spec, len(loop.plan), len(prompts), prompts.shape[1] + limit)
    return list(generate(backend, weights, spec, decoding, loop, prompts, limit, sampling or Sampling()))


def histogram(steps: list[Step], most: int) -> list[int]:
    """How many tokens ran the block 1, 2, ..., ``most`` times."""
    counts = np.concatenate([step.counts for step in steps])
    return [int((counts == number).sum()) for number in range(1, most + 1)]


def obvious_logits(
    backend: Backend, weights: Weights, spec: Spec, loop: Loop, ids: list[int], counts: list[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits after the last token, and the stream after each pass, when token t runs the block ``counts[t]`` times.

    A token that has left enters every visit of a later pass as it entered that visit of its last pass, so its keys and values are
    those; what comes out for it is dropped.
    """

    def visit(x: np.ndarray, layer: int) -> np.ndarray:
        run = Run((layer,), overwrite={0: x})
        return backend.hidden(backend.advance(weights, spec, backend.enter(weights, spec, Rows(np.array([ids]))), run)[0])

    x = backend.hidden(backend.enter(weights, spec, Rows(np.array([ids]))))
    for layer in loop.before:
        x = visit(x, layer)
    entered: dict[tuple[int, int], np.ndarray] = {}
    streams = [x]
    for number in range(1, loop.most + 1):
        for place, layer in enumerate(loop.block):
            for t, count in enumerate(counts):
                if number > count:
                    x[:, t] = entered[count, place][:, t]
            entered[number, place] = x.copy()
            x = visit(x, layer)
        for t, count in enumerate(counts):
            if number > count:
                x[:, t] = streams[count][:, t]
        streams.append(x.copy())
    for layer in loop.after:
        x = visit(x, layer)
    return logits_of(backend, weights, spec, x), streams


def logits_of(backend: Backend, weights: Weights, spec: Spec, x: np.ndarray) -> np.ndarray:
    """Final norm and head on the last position of a stream, in numpy."""
    get = backend.get(weights, ["model.norm.weight", "model.embed_tokens.weight" if spec.tie_word_embeddings else "lm_head.weight"])
    scale, head = get.values()
    last = x[0, -1].astype(np.float64)
    normed = last / np.sqrt((last**2).mean() + spec.rms_norm_eps) * scale
    return normed @ head.T.astype(np.float64)


def obvious(
    backend: Backend, weights: Weights, spec: Spec, loop: Loop, prompt: list[int], limit: int = NEW
) -> tuple[list[int], list[int], float]:
    """Tokens, counts, and how near any decision was to going the other way."""
    ids, counts, margin = list(prompt), [loop.most] * (len(prompt) - 1), np.inf
    tokens: list[int] = []
    for _ in range(limit):
        logits = None
        for number in range(1, loop.most + 1):
            before = logits
            logits, streams = obvious_logits(backend, weights, spec, loop, ids, [*counts, number])
            now, earlier = streams[number][0, -1], streams[number - 1][0, -1]
            if loop.until.criterion == "latent":
                value, limit_value = np.linalg.norm(now - earlier) / np.linalg.norm(now), loop.until.threshold
            elif before is None:
                continue
            elif loop.until.criterion == "kl":
                value, limit_value = kl_divergence(log_softmax(before), log_softmax(logits)), loop.until.threshold
            else:
                value, limit_value = float(before.argmax() != logits.argmax()), 0.5
            margin = min(margin, abs(value / limit_value - 1))
            if value < limit_value:
                break
        assert logits is not None
        best = np.sort(logits)[-2:]
        margin = min(margin, best[1] - best[0])
        counts.append(number)
        tokens.append(int(logits.argmax()))
        ids.append(tokens[-1])
    return tokens, counts[len(prompt) - 1 :], float(margin)


@pytest.mark.parametrize(
    ("plan", "rule"),
    [
        (plan, rule)
        for plan, kl, latent in (("1:3x4", 0.043, 0.4), ("0:2x3", 0.15, 0.6), ("3:5x4", 0.03, 0.33))
        for rule in (Until("kl", kl), SAME, Until("latent", latent))
    ],
    ids=str,
)
def test_tokens_and_counts_are_those_of_the_obvious_way(backend: Backend, device: str, plan: str, rule: Until) -> None:
    weights = backend.put(settled_weights(), device, "float32")
    loop = parse_loop(plan, SPEC.plan, rule)
    prompts = random_ids(SPEC, BATCH, LENGTH)
    steps = adaptive(backend, weights, SPEC, loop, prompts)
    assert sum(histogram(steps, loop.most)[:-1])  # some settle: those leave their last pass's keys and values behind
    for row, prompt in enumerate(prompts):
        tokens, counts, margin = obvious(backend, weights, SPEC, loop, prompt.tolist())
        assert margin > 1e-4  # otherwise rounding decides, and nothing is shown
        assert [int(step.tokens[row]) for step in steps] == tokens
        assert [int(step.counts[row]) for step in steps] == counts


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.data())
def test_any_model_agrees_with_the_obvious_way(backend: Backend, device: str, data: st.DataObject) -> None:
    spec = data.draw(specs())
    cuts = sorted(data.draw(st.sets(st.integers(0, len(spec.plan)), min_size=2, max_size=2)))
    rule = data.draw(st.sampled_from(RULES))
    loop = parse_loop(f"{cuts[0]}:{cuts[1]}x{data.draw(st.integers(1, 4))}", spec.plan, rule)
    weights = backend.put(settled_weights(spec), device, "float32")
    prompt = random_ids(spec, 1, data.draw(st.integers(1, 4)), data.draw(st.integers(0, 9)))
    tokens, counts, margin = obvious(backend, weights, spec, loop, prompt[0].tolist(), 3)
    if margin > 1e-3:
        steps = adaptive(backend, weights, spec, loop, prompt, 3)
        assert [step.tokens[0] for step in steps] == tokens
        assert [step.counts[0] for step in steps] == counts


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_batch_gives_what_each_row_gives_alone(backend: Backend, device: str, rule: Until) -> None:
    weights = backend.put(settled_weights(), device, "float32")
    loop = parse_loop("1:3x5", SPEC.plan, rule)
    prompts = random_ids(SPEC, 6, LENGTH, seed=2)
    sampling = Sampling(0.5, 3)
    together = adaptive(backend, weights, SPEC, loop, prompts, 8, sampling)
    assert len({int(count) for step in together for count in step.counts}) > 1
    assert any(len(set(step.counts.tolist())) > 1 for step in together)
    for row in range(len(prompts)):
        for many, one in zip(together, adaptive(backend, weights, SPEC, loop, prompts[row : row + 1], 8, sampling), strict=True):
            assert (many.tokens[row], many.counts[row]) == (one.tokens[0], one.counts[0])
            np.testing.assert_allclose(many.values[: len(one.values), row], one.values[:, 0], rtol=1e-3, atol=1e-6)
            assert np.isnan(many.values[len(one.values) :, row]).all()


def test_what_never_settles_is_the_plain_loop(backend: Backend, device: str) -> None:
    weights = backend.put(settled_weights(), device, "float32")
    prompts = random_ids(SPEC, 1, LENGTH)
    steps = adaptive(backend, weights, SPEC, parse_loop("1:3x3", SPEC.plan, Until("latent", 1e-9)), prompts)
    run = Run(repeat(SPEC.plan, 1, 3, 3))
    plain = backend.stream(weights, SPEC, prompts[0].tolist(), run, key_value_slots(run.plan), NEW, Sampling())
    assert [int(step.tokens[0]) for step in steps] == list(plain)
    assert histogram(steps, 3) == [0, 0, NEW]


def test_what_settles_at_once_runs_as_little_as_it_may(backend: Backend, device: str) -> None:
    weights = backend.put(settled_weights(), device, "float32")
    prompts = random_ids(SPEC, 2, 1)
    for rule, least in ((Until("kl", 1e9), 2), (Until("latent", 1e9), 1)):
        steps = adaptive(backend, weights, SPEC, parse_loop("1:3x4", SPEC.plan, rule), prompts)
        assert histogram(steps, 4) == [2 * NEW * (number == least) for number in range(1, 5)]


def test_half_precision_goes_the_same_way(backend: Backend, device: str) -> None:
    weights = backend.put(settled_weights(), device, "bfloat16")
    prompts = random_ids(SPEC, 2, LENGTH)
    loop = parse_loop("1:3x4", SPEC.plan, LATENT)
    steps = adaptive(backend, weights, SPEC, loop, prompts, 2)
    full = adaptive(backend, backend.put(settled_weights(), device, "float32"), SPEC, loop, prompts, 2)
    np.testing.assert_allclose(steps[0].values[0], full[0].values[0], rtol=0.05)


@given(st.sampled_from(["kl", "latent"]), st.floats(1e-12, 1e6))
def test_rules_print_as_they_are_read(name: str, threshold: float) -> None:
    rule = parse_until(f"{name}<{threshold!r}")
    assert rule.threshold == threshold
    assert parse_until(str(rule)).threshold == pytest.approx(threshold, rel=1e-5)
    assert parse_until(" same-top1 ") == Until("same-top1")
    assert str(Until("same-top1")) == "same-top1"
    assert parse_until(" kl < 1e-3 ") == Until("kl", 1e-3)


@pytest.mark.parametrize("text", ["", "kl", "kl<", "kl<0", "kl<-1", "kl<nan", "kl<inf", "same-top1<1", "entropy<1", "latent=0.1", "kl<1<2"])
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="examples: kl<1e-3"):
        parse_until(text)


@pytest.mark.parametrize("plan", ["5", "layers:0,1,1,2", "1:3x2,4:5x2", "1:3x2@damped"])
def test_plans_that_are_not_one_block(plan: str) -> None:
    with pytest.raises(UsageError, match="8:12x8"):
        parse_loop(plan, SPEC.plan, "same-top1")


def test_a_block_outside_the_model() -> None:
    with pytest.raises(UsageError, match="outside this plan"):
        parse_loop("4:9x2", SPEC.plan, "same-top1")
