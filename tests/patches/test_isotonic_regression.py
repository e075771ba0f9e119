"""Isotonic regression.

A row whose fault is not found any more can be dropped, with its patch.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.differences import assert_derivatives, assert_wrong_without, normals

normal = normals()
CASES = {
    "isotonic_regression": (
        "IsotonicRegression",
        lambda x: tf.nn.isotonic_regression(x)[0],
        np.array([0.1, 0.5, 0.2, 0.9, 0.3]),
    ),
    "isotonic_regression, rows": (
        None,
        lambda x: tf.nn.isotonic_regression(tf.reshape(x, [2, 3]), False)[0],
        normal(6),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])
