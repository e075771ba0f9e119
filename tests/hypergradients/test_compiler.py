"""Which compiler takes a run: what XLA computes otherwise, or more slowly."""

import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.hypergradients.compiler import obstacle
from far_ho_tf.problem.inspection import Report
from tests.differences import normals
from tests.helpers import assert_close, relative_error
from tests.known_faults import OTHER_BY_XLA, problem_with

MATRICES = normals()(8, 3, 3)


@pytest.mark.parametrize("name", OTHER_BY_XLA)
def test_what_xla_computes_otherwise_is_left_to_tensorflow(name):
    function = OTHER_BY_XLA[name]
    own, by_xla = (
        tf.function(function, autograph=False, jit_compile=flag)(MATRICES).numpy()
        for flag in (False, True)
    )
    assert_close([abs(by_xla)], [abs(own)], 1e-5)
    assert relative_error(by_xla, own) > 0.1
    problem = problem_with(lambda x: tf.reduce_sum(function(x)), MATRICES[0])
    mode = far.ReverseHG()
    status = mode.compute(problem, 2, hyper_iterations=10**6).status
    assert status.compiler == "graph" and "other signs" in status.reason


def test_complex_eigenvalues_are_not_left_to_xla():
    def function(x):
        matrix = tf.complex(x, tf.constant([[0.0, 1.0], [-1.0, 0.0]], x.dtype))
        return tf.linalg.eigvalsh(matrix + tf.linalg.adjoint(matrix)) * 2

    x = np.array([[1.0, 0.3], [0.3, 2.0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="element types"):
        tf.function(function, jit_compile=True, autograph=False)(tf.constant(x))
    problem = problem_with(lambda x: tf.math.real(function(x)), x)
    with pytest.raises(ValueError, match=r"SelfAdjointEigV2.*another dtype"):
        far.ReverseHG(jit_compile=True).compute(problem, 2)
    assert far.ReverseHG().compute(problem, 2).status.compiler == "graph"


@pytest.mark.parametrize(
    ("product", "convolution", "weights", "slow"),
    [
        (10_000_000, 0, 10, ""),
        (10_000_001, 0, 10, "matrix product of 10,000,001"),
        (235_200_000, 0, 235_200, ""),
        (235_200_001, 0, 235_200, "matrix product of 235,200,001"),
        (0, 300_000, 10**9, ""),
        (0, 300_001, 10**9, "convolution of 300,001"),
    ],
)
def test_the_graph_is_taken_where_it_is_faster(product, convolution, weights, slow):
    """By large convolutions; by products that are large by their examples."""
    found = Report(*[[]] * 4, product, convolution, weights, False, "", True, True)
    for jit_compile, reason in (("auto", slow), (True, "")):
        told = obstacle(jit_compile, found, fixed_shapes=True)
        assert (reason in told) if reason else told == ""
