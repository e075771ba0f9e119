"""Where a part of a problem jumps as a hyperparameter moves, which no derivative sees.

A comparison, a rounding, a cast to integers, a sign or a place in an order moves by
steps, whose derivative is zero wherever there is one. That loses nothing where what
they choose between meets at the step (`tf.where(x > h, x, h)`), and is wrong where it
does not (a mask of `uniform >= h`). A graph does not tell one from the other, so the
part is computed: between two values of a hyperparameter it changes by the integral of
its derivative and by its jumps. On ever finer intervals the error of the trapezoidal
rule vanishes, also where there are kinks, and the jumps remain.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.graphs import search
from far_ho_tf.graphs.frames import line_of
from far_ho_tf.problem.lines import Line, Point
from far_ho_tf.problem.parts import Part
from far_ho_tf.variables.identity import path_of, preserved

# Intervals of a line from a hyperparameter's value, and of one that is looked into.
_INTERVALS = 16
# How often one is looked into, and how many of them, beside the largest error of all.
_LEVELS, _TRIED, _LARGE = 4, 3, 0.1
# How many operations messages name, and what jumps, with the remedy.
_NAMED = 3
_ANY = (
    "it",
    "what moves without jumps, such as tf.sigmoid((a - b) / temperature) for a "
    "comparison of a with b; a constraint that keeps the hyperparameter between two "
    "jumps; or a number in its place",
)
_DROPOUT = (
    "the mask of dropout, of which a rate can be no hyperparameter,",
    "keras.layers.GaussianDropout, whose noise moves with its rate; or a relaxed mask, "
    "tf.sigmoid((logit(drawn) - logit(rate)) / temperature)",
)
_LIBRARIES = tuple(os.path.dirname(one.__file__) + os.sep for one in (tf, keras))  # pyright: ignore[reportArgumentType, reportCallIssue]


class Jump(NamedTuple):
    """A place where a part jumps.

    Attributes:
        variables: List of the hyperparameters of which one makes it jump.
        values: Their values there, as tensors.
        operations: List of the `tf.Operation`s that make steps there.
        is_one: Whether there is no other on the line.
    """

    variables: list[Variable]
    values: list[tf.Tensor]
    operations: list[tf.Operation]
    is_one: bool


def may_jump(part: Part) -> bool:
    """Whether a `Part` makes steps of a hyperparameter.

    What TensorFlow makes to differentiate others is left out: it chooses between
    derivatives that differ where there are kinks, and between nothing else.
    """
    if not _has_steps(part.operations):  # Of variables neither, which is known.
        return False
    return _has_steps(search.operations(part.graph, part.roots))


def _has_steps(operations: list[search.Operation]) -> bool:
    return any(op.is_step and "gradient_tape/" not in op.name for op in operations)


def find(
    part: Part,
    variables: list[Variable],
    hyperparameters: list[Variable],
    assigned: list[tf.Variable],
) -> list[Jump]:
    """The jumps of a part in its hyperparameters.

    Args:
        part: A `Part`.
        variables: List of the trained variables.
        hyperparameters: List of variables.
        assigned: List of `tf.Variable`s that the part assigns.

    Returns:
        List of `Jump`s, at most one for each scalar hyperparameter, and one for all
        others together.
    """
    line = _Steps(part, variables, hyperparameters)
    with preserved(assigned):
        found = [line.jump(group) for group in line.groups]
    return [jump for jump in found if jump is not None]


def describe(jump: Jump) -> str:
    """A `Jump` in words: what makes it, and which hyperparameter."""
    what, remedy = _DROPOUT if is_dropout(jump) else _ANY
    return (
        f"holds {named(jump.operations)}: {what} jumps where {_where(jump)}, "
        f"and derivatives leave jumps out, in silence. Remedy: {remedy}."
    )


def named(operations: Sequence[tf.Operation]) -> str:
    """Some operations in words, with the user's lines: one of each type and line."""
    places = {}
    for operation in operations:
        line = line_of(operation)
        place = f", {os.path.basename(line.file)}:{line.line}" if line else ""
        text = f"{operation.type} (`{operation.name}`{place})"
        places.setdefault((operation.type, place or operation.name), text)
    more = " and others" if len(places) > _NAMED else ""
    return ", ".join([*places.values()][:_NAMED]) + more


def is_dropout(jump: Jump) -> bool:
    """Whether it is of a mask that TensorFlow or Keras draws for dropout."""
    return any(
        "dropout" in f"{os.path.basename(frame.filename)}:{frame.name}"
        and frame.filename.startswith(_LIBRARIES)
        for operation in jump.operations
        for frame in operation.traceback or ()
    )


def _where(jump: Jump) -> str:
    if not jump.values[0].shape.rank:
        others = "" if jump.is_one else " and other values"
        passed = f"{float(jump.values[0]):.4g}{others}"
        return f"`{path_of(jump.variables[0])}` passes {passed}"
    names = " or ".join(f"`{path_of(variable)}`" for variable in jump.variables)
    return f"elements of {names} move"


class _Steps(Line):
    """The same, with the operations that make steps.

    Attributes:
        groups: List of lists of the indices of hyperparameters that operations which
            make steps depend on: scalars one by one, all others at once, since the
            weights of networks may be many.
    """

    def __init__(
        self, part: Part, variables: list[Variable], hyperparameters: list[Variable]
    ) -> None:
        self._operations, self._nested = [], []
        self.groups = []
        super().__init__(part, variables, hyperparameters, part.forward)

    def jump(self, group: list[int]) -> Jump | None:
        """A `Jump` as the hyperparameters of a group move, or `None`."""
        for direction in self.directions(group):
            place, operations, is_one = self._on_line(direction)
            if operations:
                moved = self.moved(place, direction)  # pyright: ignore[reportArgumentType]
                values = [moved[index] for index in group]
                names = [self.hyperparameters[index] for index in group]
                return Jump(names, values, operations, is_one)
        return None

    def steps(self, hyperparameters: list[tf.Tensor]) -> list[list[tf.Tensor]]:
        self._note_steps(hyperparameters)
        return [[tf.identity(o) for o in _discrete(one)] for one in self._operations]

    def _note_steps(self, hyperparameters: list[tf.Tensor]) -> None:
        """Notes which operations of the graph so far make steps, and of what."""
        graph = tf.compat.v1.get_default_graph()
        scalars = [[i] for i, one in enumerate(hyperparameters) if not one.shape.rank]
        others = [i for i, one in enumerate(hyperparameters) if one.shape.rank]
        names = set()
        for group in [*scalars, others]:
            roots = [hyperparameters[index] for index in group]
            handles = [getattr(self.hyperparameters[i], "handle", None) for i in group]
            roots += [
                internal
                for external, internal in graph.captures
                if any(external is handle for handle in handles)
            ]
            found = search.operations(graph, roots)
            steps = [op.name for op in found if op.is_step]
            if steps:
                self.groups.append(group)
            names.update(steps)
        self._operations = [
            operation
            for operation in graph.get_operations()
            if operation.name in names and not _is_of_a_rule(operation)
        ]
        self._nested = [
            operation
            for function in graph.as_graph_def().library.function
            for operation in _operations(graph, function.signature.name)
            if operation.name in names
        ]

    def _on_line(
        self, direction: list[tf.Tensor]
    ) -> tuple[float | None, list[tf.Operation], bool]:
        """The place of a jump, and the operations that make steps there."""
        points = {}

        def at(place: float) -> Point:
            if place not in points:
                points[place] = self.point(place, direction)
            return points[place]

        def counts(interval: tuple[float, float], error: float) -> bool:
            return error > self._least(at, interval)

        errors = _errors(at, 0.0, 1.0, self._differ)
        least = _LARGE * max(errors.values())
        # The nearest first.
        large = [one for one in errors.items() if one[1] >= least and counts(*one)]
        for interval, error in large[:_TRIED]:
            place, found = self._within(at, interval, error)
            if found:
                return place, found, len(large) == 1
        return None, [], True

    def _within(
        self, at: Callable[[float], Point], interval: tuple[float, float], error: float
    ) -> tuple[float | None, list[tf.Operation]]:
        """The same in an interval whose error does not vanish on finer ones."""
        remains = True
        for _ in range(_LEVELS):
            errors = _errors(at, *interval, self._differ)
            # With a kink, it falls by the number of intervals or so; with nothing, by
            # more; at a pole it rises as much, and a little if jumps cancelled.
            share = sum(errors.values()) / error
            interval, error = max(errors.items(), key=lambda one: one[1])
            if share > 8 or not error:
                return None, []
            remains &= share >= 0.5
            if error < self.noise * abs(at(interval[0]).value):
                break  # Of many small jumps each is lost in rounding at last.
        # Or what is left of it at last is more than a change of slope makes.
        slopes = [at(place).slope for place in interval]
        bend = (interval[1] - interval[0]) * abs(slopes[1] - slopes[0]) / 2
        if not (remains or error > max(2 * bend, self._least(at, interval))):
            return None, []
        low, high = (at(place).steps for place in interval)
        steps = [
            operation
            for operation, one, other in zip(self._operations, low, high, strict=True)
            if one != other
        ]
        return interval[1], steps or self._nested

    def _least(
        self, at: Callable[[float], Point], interval: tuple[float, float]
    ) -> float:
        """The error that counts in an interval."""
        return self.noise * max(abs(at(place).value) for place in interval)

    def _differ(self, one: Point, other: Point) -> bool:
        """Whether a jump may be between two points."""
        return bool(self._nested) or one.steps != other.steps


def _errors(
    at: Callable[[float], Point],
    begin: float,
    end: float,
    differ: Callable[[Point, Point], bool],
) -> dict[tuple[float, float], float]:
    """By finer interval, what the integral of the derivative leaves of a change.

    Args:
        at: Callable(place) -> `Point`.
        begin, end: Those of the interval that is divided.
        differ: Callable(point, point) -> whether a jump may be between them.
    """
    errors = {}
    for low, high in itertools.pairwise(np.linspace(begin, end, _INTERVALS + 1)):
        one, other = at(low), at(high)
        change = other.value - one.value
        error = abs(change - (high - low) * (one.slope + other.slope) / 2)
        errors[low, high] = error if np.isfinite(error) and differ(one, other) else 0.0
    return errors


def _discrete(operation: tf.Operation) -> list[tf.Tensor]:
    """The outputs that are steps: not what a sorting makes besides."""
    outputs = operation.outputs
    return [o for o in outputs if not o.dtype.is_floating] or outputs


def _is_of_a_rule(operation: tf.Operation) -> bool:
    """Whether it is a sign by which an optimizer moves, which its dynamics tell of."""
    return operation.type == "Sign" and any(
        frame.name == "update_step" for frame in operation.traceback or ()
    )


def _operations(graph: tf.Graph, name: str) -> list[tf.Operation]:
    return graph._get_function(name).graph.get_operations()
