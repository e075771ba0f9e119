"""What is found out about a problem before its loops are compiled.

The inner objective is traced once. The traced graph tells which state it
changes, and whether it holds operations whose second derivatives TensorFlow
gets wrong or whose values cannot be replayed.
"""

import warnings
from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.preflight import graph_search
from far_ho_tf.preflight.faults import AVOIDS_XLA, FAULTS, REFUSED, REFUSED_BY_XLA
from far_ho_tf.variables import dtype_of, path_of


class Report(NamedTuple):
    """What the traced inner objective tells.

    Attributes:
        assigned: Variables that the objective assigns.
        xla_faults: List of sentences: why XLA would make it wrong.
        xla_differences: List of sentences: why XLA would make it different.
        largest_product: Multiplications in its largest matrix product.
        largest_convolution: Multiplications in its largest convolution.
    """

    assigned: list
    xla_faults: list
    xla_differences: list
    largest_product: int
    largest_convolution: int


def inspect(problem):
    """Traces the inner objective's gradient and searches the graph.

    Args:
        problem: A `BilevelProblem`.

    Returns:
        A `Report`.

    Raises:
        ValueError: If the objective does not depend on the variables, holds
            an operation that would make the hypergradient wrong, or changes a
            floating `tf.Variable`.
    """
    graph, scope, unread = _trace(problem)
    operations = graph_search.operations(graph, _roots(graph, problem))
    sentences = {REFUSED: [], REFUSED_BY_XLA: [], AVOIDS_XLA: []}
    for fault in FAULTS:
        found = [op for op in operations if fault.matches(op)]
        if found:
            sentences[fault.verdict].append(
                f"`inner_objective` holds {found[0].type} (`{found[0].name}`): "
                f"{fault.problem}. Remedy: {fault.remedy}."
            )
    if sentences[REFUSED]:
        raise ValueError(" ".join(sentences[REFUSED]))
    _check_dependence(problem, unread)
    return Report(
        assigned=scope.assigned + _assigned_resources(graph),
        xla_faults=sentences[REFUSED_BY_XLA],
        xla_differences=sentences[AVOIDS_XLA],
        largest_product=_largest(operations, "MatMul"),
        largest_convolution=_largest(operations, "Conv"),
    )


def _trace(problem):
    prepared = problem.inner_data.prepare(0, 1)
    kept = {}

    def gradients(values, hyperparameters, prepared, step):
        batch = problem.inner_data.batch(prepared, step)
        found, kept["scope"] = problem.traced_gradients(values, hyperparameters, batch)
        kept["unread"] = [
            variable
            for variable, gradient in zip(problem.variables, found, strict=True)
            if gradient is None
        ]
        return [gradient for gradient in found if gradient is not None]

    def spec(variable):
        return tf.TensorSpec(variable.shape, dtype_of(variable))

    traced = tf.function(gradients, autograph=False).get_concrete_function(
        [spec(variable) for variable in problem.variables],
        [spec(variable) for variable in problem.hyperparameters],
        prepared,
        tf.TensorSpec([], tf.int32),
    )
    return traced.graph, kept["scope"], kept["unread"]


def _check_dependence(problem, unread):
    paths = ", ".join(f"`{path_of(variable)}`" for variable in unread)
    if len(unread) == len(problem.variables):
        raise ValueError(
            "`inner_objective` does not depend on any of the `variables`. "
            f"Received: {paths}"
        )
    if unread:
        warnings.warn(
            "`inner_objective` does not depend on these variables, whose "
            f"gradient is therefore zero: {paths}",
            stacklevel=2,
        )


def _largest(operations, kind):
    counts = [op.multiplications for op in operations if kind in op.type]
    return max(counts, default=0)


def _roots(graph, problem):
    """The graph's inputs that stand for variables and hyperparameters."""
    variables = problem.variables + problem.hyperparameters
    handles = [variable.handle for variable in variables]
    captured = [
        internal
        for external, internal in graph.captures
        if any(external is handle for handle in handles)
    ]
    return list(graph.inputs[: len(variables)]) + captured


def _assigned_resources(graph):
    """The tf.Variables that the graph assigns; only integer ones can stay."""
    captured = [
        (variable, internal)
        for external, internal in graph.captures
        for variable in graph.variables
        if variable.handle is external
    ]
    flags = graph_search.assigned(graph, [internal for _, internal in captured])
    assigned = [
        variable for (variable, _), flag in zip(captured, flags, strict=True) if flag
    ]
    for variable in assigned:
        if variable.dtype.is_floating:
            raise ValueError(
                "`inner_objective` assigns the floating tf.Variable "
                f"`{path_of(variable)}`, and TensorFlow does not differentiate "
                "assignments of a tf.Variable. Remedy: make it a "
                "keras.Variable, whose assignments are differentiated"
            )
    return assigned
