"""What is padded with.

A row whose fault is not found any more can be dropped, with its patch.
"""

import pytest
import tensorflow as tf

from tests.differences import assert_derivatives, assert_wrong_without, normals

normal = normals()
CASES = {
    "pad": (
        "PadV2",
        lambda x: tf.pad(x[:2], [[1, 2]], constant_values=x[2]),
        normal(3),
    ),
    "pad, images": (
        "PadV2",
        lambda x: tf.pad(
            tf.reshape(x[:4], [1, 2, 2]), [[0, 0], [1, 0], [0, 1]], constant_values=x[4]
        ),
        normal(5),
    ),
    "diag, padded": (
        "MatrixDiagV3",
        lambda x: tf.linalg.diag(
            tf.reshape(x[:6], [2, 3]), k=(0, 1), num_cols=4, padding_value=x[6]
        ),
        normal(7),
    ),
    "diag_part, padded": (
        "MatrixDiagPartV3",
        lambda x: tf.linalg.diag_part(
            tf.reshape(x[:9], [3, 3]), k=(-1, 1), padding_value=x[9], align="LEFT_LEFT"
        ),
        normal(10),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])
