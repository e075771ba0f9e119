"""Derivatives of complex numbers.

A row whose fault is not found any more can be dropped, with its patch.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.differences import (
    assert_derivatives,
    assert_wrong_without,
    complex_of,
    matrix,
    normals,
    parts,
)

normal = normals()
CASES = {
    "slogdet": (
        "LogMatrixDeterminant",
        lambda x: parts(tf.stack(tf.linalg.slogdet(matrix(x)))),
        normal(8),
    ),
    "slogdet, real": (
        None,
        lambda x: tf.linalg.slogdet(tf.reshape(x, [2, 2, 2]))[1],
        normal(8),
    ),
    "sqrtm": (
        "MatrixSquareRoot",
        lambda x: parts(tf.linalg.sqrtm(matrix(x))),
        np.array([3, 0.2, -0.1, 2, 0.3, 0.2, -0.4, 0.1]),
    ),
    "sqrtm, a batch": (
        None,
        lambda x: tf.linalg.sqrtm(
            3 * tf.eye(2, dtype=x.dtype) + tf.reshape(x, [2, 2, 2])
        ),
        0.3 * normal(8),
    ),
    "squared_difference": (
        "SquaredDifference",
        lambda x: parts(tf.math.squared_difference(*tf.split(complex_of(x), [1, 3]))),
        normal(8),
    ),
    "multiply_no_nan": (
        "MulNoNan",
        lambda x: parts(tf.math.multiply_no_nan(*tf.split(complex_of(x), 2))),
        normal(8),
    ),
    "xdivy": (
        "Xdivy",
        lambda x: parts(tf.math.xdivy(*tf.split(complex_of(x), [1, 3]))),
        normal(8),
    ),
    "xlogy": (
        "Xlogy",
        lambda x: parts(tf.math.xlogy(*tf.split(complex_of(x), 2))),
        normal(8),
    ),
    "tridiagonal_solve": (
        "TridiagonalSolve",
        lambda x: parts(
            tf.linalg.tridiagonal_solve(
                tf.reshape(complex_of(x[:18]), [3, 3]), complex_of(x[18:])
            )
        ),
        np.r_[normal(3), 4 + normal(3), normal(18)],
    ),
    "reduce_euclidean_norm": (
        "EuclideanNorm",
        lambda x: parts(tf.math.reduce_euclidean_norm(complex_of(x), keepdims=True)),
        normal(6),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])
