"""What is found in a graph."""

import numpy as np
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.graphs.search import operations
from tests.helpers import assert_close
from tests.known_faults import problem_with


def test_the_multiplications_of_a_sparse_matrix_are_not_told():
    @tf.function
    def product(x):
        places = tf.constant([[0, 1], [1, 0]], tf.int64)
        sparse = tf.raw_ops.DenseToCSRSparseMatrix(dense_input=x, indices=places)
        return tf.raw_ops.SparseMatrixMatMul(a=sparse, b=x) + x @ x

    graph = product.get_concrete_function(tf.TensorSpec([2, 2], tf.float32)).graph
    found = {op.type: op.multiplications for op in operations(graph, [])}
    assert (found["SparseMatrixMatMul"], found["MatMul"]) == (0, 8)


def test_an_imported_graph_is_searched():
    """Its functions do not tell the shapes of their arguments."""

    @tf.function(autograph=False)
    def called(x):
        return tf.cond(x[0] > 0, lambda: tf.split(2.0 * x, 3)[1], lambda: x[:1])

    traced = called.get_concrete_function(tf.TensorSpec([3], tf.float64))
    names = traced.inputs[0].name, traced.outputs[0].name
    imported = traced.graph.as_graph_def()

    def function(x):
        given = {names[0]: tf.constant([1.0, 2.0, 3.0], x.dtype)}
        return x * tf.graph_util.import_graph_def(imported, given, [names[1]])[0]

    result = far.ReverseHG(jit_compile=False).compute(
        problem_with(function, np.ones(1)), 1
    )
    # Of w²: w = 1 − 32 η, where the objective is 16 w².
    assert_close(result.hypergradients, [2 * (1 - 3.2) * -32], 1e-12)
