"""MLX's attention, sigmoid and log-sum-exp made of powers of two, against MLX's own."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")
pytestmark = pytest.mark.usefixtures("mlx")


@pytest.fixture
def made() -> object:
    """The module; skips where MLX's own exponential is used."""
    from loopkit_mlx import exponential

    with mx.stream(mx.cpu):
        if not exponential._slow(mx.zeros(1)):
            pytest.skip("only for x86 CPUs")
        yield exponential


def normal(*shape: int, seed: int = 0) -> object:
    return mx.array(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize(("length", "total"), [(2, 2), (64, 64), (65, 65), (200, 200), (3, 70), (130, 131)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_attention_is_mlxs_own_with_its_gradients(made: object, length: int, total: int, heads: int, groups: int) -> None:
    arrays = [normal(2, n, t, 8, seed=i) for i, (n, t) in enumerate([(heads, length), (groups, total), (groups, total)])]
    ends = normal(2, heads, length, 8, seed=3)
    random = mx.array(np.random.default_rng(4).random((2, 1, length, total)) < 0.5) & mx.tri(length, total, total - length, dtype=mx.bool_)
    random = random | (mx.arange(total) == 0)

    def own(q: object, k: object, v: object, mask: object) -> object:
        return (mx.fast.scaled_dot_product_attention(q, k, v, scale=8**-0.5, mask="causal" if mask is None else mask) * ends).sum()

    def ours(q: object, k: object, v: object, mask: object) -> object:
        return (made.attend(q, k, v, mask) * ends).sum()

    for mask in (None, random):
        expected, found = (mx.value_and_grad(function, argnums=(0, 1, 2))(*arrays, mask) for function in (own, ours))
        np.testing.assert_allclose(np.array(found[0]), np.array(expected[0]), rtol=1e-5, atol=1e-4)
        for mine, theirs in zip(found[1], expected[1], strict=True):
            np.testing.assert_allclose(np.array(mine), np.array(theirs), rtol=1e-4, atol=1e-5)


def test_picked_queries_see_what_the_mask_says(made: object) -> None:
    """Among them some that come earlier in their row than they are in the text."""
    q, k, v = (normal(2, 2, n, 8, seed=i) for i, n in enumerate((80, 100, 100)))
    places = mx.array(np.random.default_rng(4).integers(0, 100, (2, 80)))
    mask = (mx.arange(100) <= places[..., None])[:, None]
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=8**-0.5, mask=mask)
    np.testing.assert_allclose(np.array(made.attend(q, k, v, mask, picked=True)), np.array(expected), rtol=1e-4, atol=1e-5)


def test_large_and_small_numbers_stay_numbers(made: object) -> None:
    x = mx.array([-1e30, -1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4, 1e30])
    np.testing.assert_allclose(np.array(made.sigmoid(x)), np.array(mx.sigmoid(x)), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(np.array(made.logsumexp(x[None])), np.array(mx.logsumexp(x[None], -1)), rtol=1e-6)
    slopes = [np.array(mx.grad(lambda x, f=function: f(x).sum())(x)) for function in (made.sigmoid, mx.sigmoid)]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5, atol=1e-30)
    assert np.isfinite(np.array(mx.grad(lambda x: made.logsumexp(x).sum())(x[None]))).all()
