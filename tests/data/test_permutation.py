"""The permutation that shuffles epochs: a bijection, and uniform."""

import numpy as np
import pytest
import tensorflow as tf

from far_ho_tf.data.permutation import hash32, permute

SIZES = [1, 2, 3, 5, 16, 1000]


def images(size, key):
    return permute(tf.range(size), size, tf.constant(key, tf.uint32)).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_bijection(size):
    for key in (0, 1, 2, 3, 2**31, 2**32 - 1):
        result = images(size, key)
        assert result.dtype == np.int32
        np.testing.assert_array_equal(np.sort(result), np.arange(size))


def test_keys_give_different_orders():
    orders = {tuple(images(1000, key)) for key in range(20)}
    assert len(orders) == 20
    assert len({images(1000, key)[0] for key in range(20)}) > 15


def test_key_per_element():
    index = tf.constant([[0, 1, 2, 3], [0, 1, 2, 3]])
    keys = tf.constant([[5], [6]], tf.uint32)
    expected = np.stack([images(4, 5), images(4, 6)])
    np.testing.assert_array_equal(permute(index, 4, keys), expected)


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_positions_are_uniform(size):
    """Over many keys each element goes equally often to each place."""
    num_keys = 4000
    keys = tf.cast(tf.range(num_keys), tf.uint32)[:, None]
    index = tf.tile(tf.range(size)[None], [num_keys, 1])
    result = permute(index, size, keys).numpy()
    for column in result.T:
        counts = np.bincount(column, minlength=size)
        chi_square = ((counts - num_keys / size) ** 2).sum() * size / num_keys
        degrees = size - 1
        # Far above the quantile of 1 − 10⁻⁴, far below what a bias would give.
        assert chi_square < degrees + 6 * np.sqrt(2 * degrees) + 10


def test_neighbours_are_separated():
    """As far apart as in a random order: on average a third of the size."""
    gaps = [np.abs(np.diff(images(1000, key))).mean() for key in range(20)]
    assert np.mean(gaps) == pytest.approx(1000 / 3, rel=0.02)


@pytest.mark.parametrize("size", [5, 1000, 2**31 - 1])
def test_graph_and_xla_agree_with_eager(size):
    index = tf.constant([0, 1, 4, size - 1])
    key = tf.constant(7, tf.uint32)
    expected = permute(index, size, key).numpy()
    assert ((expected >= 0) & (expected < size)).all()
    for jit_compile in (False, True):
        function = tf.function(permute, jit_compile=jit_compile)
        np.testing.assert_array_equal(function(index, size, key), expected)


def test_hash_equals_its_definition():
    def reference(value):
        for multiplier, shift in ((0x7FEB352D, 16), (0x846CA68B, 15)):
            value = (value ^ (value >> shift)) * multiplier % 2**32
        return value ^ (value >> 16)

    values = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    expected = [reference(value) for value in values]
    np.testing.assert_array_equal(hash32(tf.constant(values, tf.uint32)), expected)
