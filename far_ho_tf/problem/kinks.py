"""Hyperparameters that move the training by jumps alone, of which none is in a value.

At a kink a value is continuous, and its gradient jumps. A margin of a hinge loss, or a
bound to which errors are clipped, tells only at which examples that is: the gradient by
which the weights move does not depend on it but by jumps, so that its derivative is
zero, wherever there is one, and the hypergradient with it. Where a hyperparameter moves
the gradient in other ways, too, as what goes through ReLUs does, nothing is told.
"""

import numpy as np
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.graphs import search
from far_ho_tf.problem.jumps import named
from far_ho_tf.problem.lines import Line
from far_ho_tf.problem.parts import Part
from far_ho_tf.variables.identity import find as find_variable
from far_ho_tf.variables.identity import path_of, preserved

# Types of operations that have kinks, between points where they are smooth.
_KINKS = (
    *("Abs", "ClipByValue", "LeakyRelu", "Max", "Maximum", "MaxPool", "Min", "Minimum"),
    *("Relu", "Relu6", "Select", "SelectV2", "SoftThreshold"),
)
_INTERVALS = 8
# What counts as no slope, beside how much the gradient changes.
_FLAT = 1e-3


def may_matter(part: Part) -> bool:
    """Whether a hyperparameter of a `Part` goes into what has kinks."""
    if not _with_kinks(part.operations):  # Of variables neither, which is known.
        return False
    return bool(_with_kinks(search.operations(part.graph, part.roots)))


def find(
    part: Part,
    variables: list[Variable],
    hyperparameters: list[Variable],
    assigned: list[tf.Variable],
    told: list[Variable],
) -> list[str]:
    """Sentences on the hyperparameters that move a part's gradient by jumps alone.

    Args:
        part: The `Part` of the inner objective.
        variables: List of the trained variables.
        hyperparameters: List of variables.
        assigned: List of `tf.Variable`s that the part assigns.
        told: List of the hyperparameters of which jumps have been told already.
    """
    line, found = None, []
    for index, variable in enumerate(hyperparameters):
        if find_variable(variable, told) is not None:
            continue
        operations = search.operations(part.graph, part.roots_of[index])
        operations = _with_kinks(operations)
        if not operations:
            continue
        with preserved(assigned):
            line = line or Line(part, variables, hyperparameters, part.gradient)
            if any(_jumps_alone(line, one) for one in line.directions([index])):
                found.append(_sentence(part, variable, operations))
    return found


def _with_kinks(operations: list[search.Operation]) -> list[search.Operation]:
    """Those that have kinks and depend on the roots of their search."""
    return [
        operation
        for operation in operations
        if operation.type in _KINKS
        and any(operation.depends)
        and "gradient_tape/" not in operation.name
    ]


def _jumps_alone(line: Line, direction: list[tf.Tensor]) -> bool:
    """Whether the gradient changes along a line, and is flat at all points of it."""
    values, slopes = [], []
    for place in np.linspace(0.0, 1.0, _INTERVALS + 1):
        point = line.point(place, direction)
        if not np.isfinite([point.value, point.slope]).all():
            return False
        values.append(point.value)
        slopes.append(abs(point.slope))
        # Most end here, at the first point.
        if slopes[-1] > _FLAT * np.max(np.abs(values)):
            return False
    change = np.abs(np.diff(values)).sum()
    noise = line.noise * np.max(np.abs(values))
    return change > noise and np.mean(slopes) < _FLAT * change


def _sentence(
    part: Part, variable: Variable, operations: list[search.Operation]
) -> str:
    made = {operation.name: operation for operation in part.graph.get_operations()}
    known = [made[one.name] for one in operations if one.name in made]
    by = named(known) if known else operations[0].type
    return (
        f"`{part.name}` depends on `{path_of(variable)}` by {by}: it moves the "
        "gradient of the weights by jumps alone, where it passes an example, and "
        "derivatives leave jumps out, in silence. Remedy: what bends without a kink, "
        "such as tf.nn.softplus(x / t) * t in the place of tf.nn.relu(x), or "
        "tf.sqrt(x**2 + t) in that of tf.abs(x)."
    )
