"""Max pooling that keeps the size of its input is refused, wherever it is."""

import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.differences import normals
from tests.helpers import relative_error
from tests.known_faults import max_pool, problem_with

normal = normals()


def max_pool_of_one_size(x):
    return tf.nn.max_pool2d(x, 3, 1, "SAME")


def max_pool_3d_of_one_size(x):
    return tf.nn.max_pool3d(x, 3, 1, "SAME")


KEEPING_SIZE = {
    "MaxPoolGrad": (
        max_pool_of_one_size,
        normal(1, 6, 6, 2, dtype="float32"),
        tf.raw_ops.MaxPoolGradGrad,
    ),
    "MaxPool3DGrad": (
        max_pool_3d_of_one_size,
        normal(1, 5, 5, 5, 1, dtype="float32"),
        tf.raw_ops.MaxPool3DGradGrad,
    ),
}


@pytest.mark.parametrize("operation", KEEPING_SIZE)
def test_max_pooling_that_keeps_the_size_overwrites_its_input(operation):
    """In a graph, where the input's memory may be used again."""
    function, x, second = KEEPING_SIZE[operation]
    rank = x.ndim - 2
    window = {"ksize": [1, *[3] * rank, 1], "strides": [1] * (rank + 2)}

    def product(direction):
        return second(
            orig_input=x,
            orig_output=function(x),
            grad=2.0 * tf.roll(direction, 1, 0),
            padding="SAME",
            **window,
        )

    direction = normal(*x.shape, dtype="float32")
    right = product(direction)
    assert relative_error(tf.function(product)(direction), right) > 0.1


@pytest.mark.parametrize("operation", KEEPING_SIZE)
def test_the_library_refuses_max_pooling_that_keeps_the_size(operation):
    function, x, _ = KEEPING_SIZE[operation]
    with pytest.raises(ValueError, match=f"holds {operation}.*stride of 2"):
        far.ReverseHG().compute(problem_with(function, x), 2)


def _in_a_loop(pool, x):
    def turn(i, total):
        return i + 1, total + tf.reduce_sum(pool(x * tf.cast(i + 1, x.dtype)))

    return tf.while_loop(lambda i, _: i < 2, turn, (0, tf.constant(0.0)))[1]


WHERE = {
    "branch": lambda pool, x: tf.cond(
        x[0, 0, 0, 0] > -9.0, lambda: tf.reduce_sum(pool(x)), lambda: tf.reduce_sum(x)
    ),
    "second part": lambda pool, x: pool(tf.split(x, [1, 3], axis=3)[1]),
    "branch of a part": lambda pool, x: tf.cond(
        x[0, 0, 0, 0] > -9.0,
        lambda: pool(tf.split(x, [1, 3], axis=3)[1]),
        lambda: pool(tf.split(x, [1, 3], axis=3)[1]) * 2.0,
    ),
    "loop": _in_a_loop,
    "map": lambda pool, x: tf.map_fn(lambda one: pool(one[None]), x),
    "unknown size": lambda pool, x: pool(
        x[:, : tf.cast(tf.round(0.0 * tf.reduce_sum(x) + 6.0), tf.int32)]
    ),
}


@pytest.mark.parametrize("where", WHERE)
def test_wherever_the_size_is_to_be_found(where):
    """Functions read what is pooled as arguments; other operations make several."""
    x = normal(2, 6, 6, 4, dtype="float32")
    mode = far.ReverseHG(jit_compile=False)
    with pytest.raises(ValueError, match=r"holds MaxPoolGrad.*stride of 2"):
        mode.compute(
            problem_with(lambda x: WHERE[where](max_pool_of_one_size, x), x), 2
        )
    mode.compute(problem_with(lambda x: WHERE[where](max_pool, x), x), 2)
