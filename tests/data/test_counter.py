"""Stateless random numbers: values that never change, permutations that are permutations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.data.counter import below, bits, distinct, key, mix, permute, shuffled, subkeys

keys = st.integers(0, 2**32).map(lambda seed: key("test", seed))


def test_known_values_of_splitmix64():
    """The first outputs of the published generator with state 0."""
    words = bits(np.uint64(0), np.arange(1), 3)[0]
    assert [hex(word) for word in words.tolist()] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_values_are_the_same_forever():
    assert int(key("copy-words", "train", 0)) == 9389096005419062162
    assert permute(key("order"), 8, np.arange(8)).tolist() == [1, 7, 4, 2, 6, 3, 5, 0]


@given(keys, st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(1, 9))
def test_an_item_does_not_depend_on_its_neighbours(stream, numbers, count):
    together = bits(stream, np.array(numbers), count)
    alone = np.concatenate([bits(stream, np.array([number]), count) for number in numbers])
    assert (together == alone).all()


@given(keys, st.integers(1, 3000))
def test_permute_is_a_permutation(stream, size):
    assert sorted(permute(stream, size, np.arange(size))) == list(range(size))


@given(keys, st.integers(1, 500), st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_permute_takes_a_key_for_each_position(stream, size, numbers):
    each = subkeys(stream, np.array(numbers))
    positions = np.array(numbers) % size
    alone = [permute(each[i], size, positions[i : i + 1])[0] for i in range(len(numbers))]
    assert permute(each, size, positions).tolist() == alone


@pytest.mark.parametrize("size", [10, 100])
def test_permute_sends_every_position_everywhere(size):
    keys = subkeys(key("uniform"), np.arange(4000))
    places = permute(np.repeat(keys, size), size, np.tile(np.arange(size), 4000)).reshape(4000, size)
    seen = np.array([np.bincount(column, minlength=size) for column in places.T])
    expected = 4000 / size
    assert ((seen - expected) ** 2 / expected).sum() / (size - 1) ** 2 < 1.3  # chi-squared a degree of freedom


@given(keys, st.integers(1, 12), st.integers(0, 30))
def test_distinct_draws_differ(stream, count, extra):
    drawn = distinct(bits(stream, np.arange(50), count), count + extra)
    assert drawn.min() >= 0
    assert drawn.max() < count + extra
    assert all(len(set(row)) == count for row in drawn.tolist())


def test_distinct_and_shuffled_are_uniform():
    words = bits(key("uniform"), np.arange(24_000), 3)
    for drawn, orders in ((distinct(words, 4), 24), (shuffled(words), 6)):
        _, counts = np.unique(drawn, axis=0, return_counts=True)
        assert len(counts) == orders
        assert abs(counts - 24_000 / orders).max() < 6 * (24_000 / orders) ** 0.5


def test_mix_is_a_bijection_on_a_sample():
    x = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix(x))) == len(x)
    assert abs(below(mix(x), 2).mean() - 0.5) < 0.01
