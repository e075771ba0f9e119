"""Products at zeros, and of complex numbers.

A row whose fault is not found any more can be dropped, with its patch.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.differences import (
    assert_derivatives,
    assert_wrong_without,
    complex_of,
    normals,
    parts,
)

normal = normals()


def spread(x):
    """Distinct numbers, the first of which are x."""
    return tf.concat([x, tf.constant([0.7, -0.4], x.dtype)], 0)


CASES = {
    "cumprod": ("Cumprod", lambda x: parts(tf.math.cumprod(complex_of(x))), normal(8)),
    "reduce_prod": (
        "Cumprod",
        lambda x: parts([tf.reduce_prod(complex_of(x))]),
        normal(8),
    ),
    "log of |product|": (
        "Cumprod",
        lambda x: tf.math.log(tf.abs(tf.reduce_prod(complex_of(x)))),
        normal(6),
    ),
    "segment_prod": (
        "SegmentProd",
        lambda x: parts(tf.math.segment_prod(complex_of(x), [0, 0, 1])),
        normal(6),
    ),
    "segment_prod, of any length": (
        "SegmentProd",
        lambda x: parts(
            tf.math.segment_prod(
                complex_of(x), tf.boolean_mask([0, 0, 1], tf.abs(x[:3]) >= 0)
            )
        ),
        normal(6),
    ),
    "unsorted_segment_prod": (
        "UnsortedSegmentProd",
        lambda x: parts(tf.math.unsorted_segment_prod(complex_of(x), [1, 0, 1], 2)),
        normal(6),
    ),
    "segment_prod at two zeros": (
        "SegmentProd",
        lambda x: tf.math.segment_prod(x, [0, 0, 0, 0, 1]),
        np.array([0.0, 0.85, 0.4, 0.0, 0.3]),
    ),
    "unsorted_segment_prod at two zeros": (
        "UnsortedSegmentProd",
        lambda x: tf.math.unsorted_segment_prod(
            tf.reshape(x, [3, 2]), [[1, 0], [1, -1], [1, 1]], 3
        ),
        np.array([0.0, 0.85, 0.4, 0.7, 0.0, 0.3]),
    ),
    "unsorted_segment_prod, rows": (
        None,
        lambda x: tf.math.unsorted_segment_prod(tf.reshape(x, [3, 2]), [1, 0, 1], 2),
        np.array([0.0, 0.85, 0.4, 0.7, 0.0, 0.3]),
    ),
    "cumprod at zero": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x)),
        np.array([0.85, 0.0, 0.3]),
    ),
    "cumprod at zeros, exclusive": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x), exclusive=True),
        np.array([0.0, 0.5, 0.0]),
    ),
    "cumprod at zero, reverse": (
        "Cumprod",
        lambda x: tf.math.cumprod(tf.reshape(spread(x), [1, 5]), axis=1, reverse=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "cumprod at zero, both": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x), axis=-1, exclusive=True, reverse=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "reduce_prod at zero": (
        "Cumprod",
        lambda x: tf.reduce_prod(spread(x), keepdims=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "reduce_prod at two zeros": (
        "Cumprod",
        lambda x: tf.reduce_prod(spread(x), keepdims=True),
        np.array([0.0, 0.85, 0.0]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])
