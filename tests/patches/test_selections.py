"""What is written over.

A row whose fault is not found any more can be dropped, with its patch.
"""

import pytest
import tensorflow as tf

from tests.differences import assert_derivatives, assert_wrong_without, normals

normal = normals()


def stitched(x):
    return tf.dynamic_stitch([[0, 1, 2], [1, 3], [0]], [x[:3], x[3:5], x[5:6]])


def written_over(x):
    return tf.tensor_scatter_nd_update(x[:3], [[0], [2], [0]], x[3:6])


def written_rows(x):
    rows = tf.reshape(x, [4, 2])
    return tf.tensor_scatter_nd_update(rows[:2], [[1], [1]], rows[2:])


CASES = {
    "dynamic_stitch": ("DynamicStitch", stitched, normal(6)),
    "tensor_scatter_nd_update": ("TensorScatterUpdate", written_over, normal(6)),
    "tensor_scatter_nd_update, rows": ("TensorScatterUpdate", written_rows, normal(8)),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])
