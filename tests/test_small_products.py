"""Small matrix products under XLA: sums of elementwise products, the same numbers."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops

import far_ho_tf as far
from far_ho_tf.hypergradients.products import fused_small_products
from tests.helpers import Classification

MAT_MUL = gen_math_ops.mat_mul


def kinds(function, *arguments):
    """The kinds of a traced function's operations."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {operation.type for operation in graph.get_operations()}


def fused(function):
    def within(*arguments):
        with fused_small_products():
            return function(*arguments)

    return within


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_values_and_two_derivatives(transpose_a, transpose_b):
    random = np.random.RandomState(0)
    a = tf.constant(random.randn(*((3, 5) if transpose_a else (5, 3))))
    b = tf.constant(random.randn(*((2, 3) if transpose_b else (3, 2))))

    def derivatives(a, b):
        with tf.GradientTape() as outer:
            outer.watch([a, b])
            with tf.GradientTape() as inner:
                inner.watch([a, b])
                product = tf.matmul(a, b, transpose_a, transpose_b)
                value = tf.reduce_sum(tf.sin(product))
            first = inner.gradient(value, [a, b])
            norm = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 3)
        return product, *first, *outer.gradient(norm, [a, b])

    expected = derivatives(a, b)
    for found, one in zip(fused(derivatives)(a, b), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-12, atol=1e-13)
    assert "MatMul" in kinds(derivatives, a, b)
    assert "MatMul" not in kinds(fused(derivatives), a, b)
    assert gen_math_ops.mat_mul is MAT_MUL


@pytest.mark.parametrize(
    "shapes, dtype",
    [
        (((40, 20), (20, 6)), tf.float32),
        (((4, 2), (2, 3)), tf.float16),
        (((None, 2), (2, 3)), tf.float32),
    ],
)
def test_others_stay_products(shapes, dtype):
    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    assert "MatMul" in kinds(fused(tf.matmul), *specs)


@pytest.mark.parametrize("compiler", ["xla", "graph"])
def test_programs(compiler, monkeypatch):
    """XLA's have none of those small products; graphs have."""
    called = []

    def counted(a, b, *arguments, **options):
        called.append((a.shape, b.shape))
        return MAT_MUL(a, b, *arguments, **options)

    monkeypatch.setattr("far_ho_tf.hypergradients.products._product", counted)
    monkeypatch.setattr(gen_math_ops, "mat_mul", counted)
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    bilevel = problem.bilevel(far.GradientDescent(rate), [rate])
    assert bilevel.report  # What is traced for it is traced before.
    called.clear()
    far.ReverseHG(jit_compile=compiler == "xla").compute(bilevel, 3)
    assert bool(called) == (compiler == "graph")
