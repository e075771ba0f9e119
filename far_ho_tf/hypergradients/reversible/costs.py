"""What a step of integers, undone, takes."""

import tensorflow as tf

from far_ho_tf.hypergradients.costs import state_bytes
from far_ho_tf.hypergradients.reverse.costs import of_reverse_step
from far_ho_tf.problem.pure_problem import PureProblem


def of_reversal(problem: PureProblem, compiler: str) -> int:
    """Bytes that a step back of integers holds at most, with those that it is given.

    The loop is a graph: it holds the integers that it began with, and the integers and
    cotangents that a step is given until the step ends, beside the new integers, their
    floats, and what a step back needs.
    """
    back = of_reverse_step(problem, None)
    size = state_bytes(problem)
    integers = 3 * problem.report.weights * tf.int64.size
    beyond = back.bytes(compiler) - 2 * size
    if compiler == "xla":
        beyond += size  # A function's results are not written over what it is given.
    return 3 * integers + 2 * size + beyond
