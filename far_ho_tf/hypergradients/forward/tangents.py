"""Tangents of the state along directions in λ, carried through training."""

import operator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.distribution.replicas import ONE_REPLICA, OneReplica
from far_ho_tf.graphs.vectorize import map_stack
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.problem.step import Log, OracleValue
from far_ho_tf.variables.derivatives import (
    Linearization,
    Slices,
    floating,
    linearize,
    linearize_gradient,
    values_of,
)
from far_ho_tf.variables.state import State


class Directions:
    """Directions in the space of all elements of all hyperparameters.

    Args:
        hyperparameters: List of tensors λ, or variables, of one dtype.

    Attributes:
        size: Integer m, the number of elements of all hyperparameters.
    """

    def __init__(self, hyperparameters: Sequence[tf.Tensor | Variable]) -> None:
        self._shapes = [tuple(h.shape) for h in hyperparameters]
        self._dtype = hyperparameters[0].dtype
        self._sizes = [tf.TensorShape(shape).num_elements() for shape in self._shapes]
        self.size = sum(self._sizes)

    def units(self, first: int | tf.Tensor, count: int) -> list[tf.Tensor]:
        """Unit vectors `first` to `first + count - 1`; zeros beyond the last.

        Returns:
            List of tensors of shape (count, *hyperparameter.shape).
        """
        rows = tf.one_hot(first + tf.range(count), self.size, dtype=self._dtype)
        return self.split(rows)

    def split(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Cuts the last axis, of length m, into hyperparameters."""
        return [
            tf.reshape(part, (*rows.shape[:-1], *shape))
            for part, shape in zip(
                tf.split(rows, self._sizes, axis=-1), self._shapes, strict=True
            )
        ]


def hidden_zero(step: tf.Tensor) -> tf.Tensor:
    """0, made of a step's number such that compilers do not know it.

    What known directions multiply in the update rule they would write out: constants
    as large as all tangents.
    """
    return tf.minimum(step, 0)


class Propagation:
    """Carries k tangents Z, along k directions in λ, through training.

    Z is a `State` of tensors with a first axis of length k; its extra part
    holds floating tensors only.

    Args:
        problem: A `PureProblem`.
        hyperparameters: List of tensors λ.
        directions: List, aligned with them, of tensors with a first axis of
            length k.
        dependence: A `Dependence` that takes note.

    Source: Franceschi et al. 2017, algorithm 2 (Forward-HG).
    """

    def __init__(
        self,
        problem: PureProblem,
        hyperparameters: list[tf.Tensor],
        directions: list[tf.Tensor],
        dependence: Dependence,
    ) -> None:
        self._problem = problem
        self._hyperparameters = hyperparameters
        self._directions = directions
        self._count = directions[0].shape[0]
        self._dependence = dependence

    def initial(self, start: State, outer_step: tf.Tensor) -> tuple[State, State]:
        """s_0 = Φ_0(λ) and Z_0 = ∂Φ_0/∂λ along the directions."""
        kept = {}

        def moving() -> tuple[list[tf.Tensor], list[Structure]]:
            kept["state"] = self._problem.initial_state(
                start, self._hyperparameters, outer_step
            )
            return kept["state"].variables, kept["state"].slots

        own = self._problem.hyperparameter_sources(self._hyperparameters)
        linear = linearize(moving, own)
        self._dependence.note(linear.depends)
        state = kept["state"]
        tangents = self.zeros(state)
        if any(linear.depends):
            variables, slots = map_stack(linear.jvp, self._directions, linear.targets)
            tangents = tangents._replace(variables=variables, slots=slots)
        return state, tangents

    def zeros(self, state: State) -> State:
        """Z = 0 at a state."""
        return tf.nest.map_structure(
            lambda tensor: tf.zeros((self._count, *tensor.shape), tensor.dtype),
            state._replace(extra=floating(state.extra)),
        )

    def step(
        self,
        state: State,
        tangents: State,
        step: tf.Tensor,
        batch: Structure,
        replicas: OneReplica = ONE_REPLICA,
    ) -> tuple[State, State, Log]:
        """s ← Φ(s, λ), Z ← A Z + B along the directions.

        Returns:
            The new state, its tangents, and the `Log` of the step.
        """
        problem, hyperparameters = self._problem, self._hyperparameters
        own = problem.hyperparameter_sources(hyperparameters)

        def oracle(
            shard: Structure,
        ) -> tuple[OracleValue, list[tf.Tensor | Slices], list[tf.Tensor]]:
            values, linear = self._oracle(state, shard)
            self._dependence.note(linear.depends[-1])
            gradient_tangents, extra_tangents = map_stack(
                linear.jvp,
                [tangents.variables, tangents.extra, self._directions],
                linear.targets,
                obstacle=problem.report.loop,
            )
            by_reading = [
                Slices(tf.einsum("kn...->nk...", tangent), gradient.rows)
                if isinstance(gradient, Slices)
                else tangent
                for gradient, tangent in zip(
                    values.gradients, gradient_tangents, strict=True
                )
            ]
            return values, by_reading, extra_tangents

        values, by_reading, extra_tangents = replicas.mean(oracle, batch)
        choice = problem.choose(state, values, hyperparameters, step, batch, replicas)
        gradients = values.gradients
        gradient_tangents = [
            tf.einsum("nk...->kn...", tangent.values)
            if isinstance(tangent, Slices)
            else tangent
            for tangent in by_reading
        ]
        update = linearize(
            lambda: problem.update(state, gradients, hyperparameters, step, choice),
            [state.variables, state.slots, values_of(gradients), own],
        )
        self._dependence.note(update.depends[-1])
        moved = map_stack(
            update.jvp,
            [tangents.variables, tangents.slots, gradient_tangents, self._directions],
            update.targets,
        )
        new_state = State(*update.targets, values.extra)  # pyright: ignore[reportCallIssue]
        log = Log(values.value, choice)
        return new_state, State(*moved, extra_tangents), log  # pyright: ignore[reportCallIssue]

    def _oracle(
        self, state: State, batch: Structure
    ) -> tuple[OracleValue, Linearization]:
        """The `OracleValue`, and its `Linearization`.

        The latter is of the gradients and of the floating extra state.
        """
        problem, hyperparameters = self._problem, self._hyperparameters
        sources = problem.sources(state, hyperparameters)
        kept: dict[str, Any] = {}

        def targets() -> tuple[list[tf.Tensor], list[tf.Tensor]]:
            kept["values"] = problem.oracle(state, hyperparameters, batch)
            found = kept["values"]
            return values_of(found.gradients), floating(found.extra)

        def extra() -> list[tf.Tensor]:
            kept["partials"], *kept["values"] = problem.partials(
                state, hyperparameters, batch, sources
            )
            return floating(kept["values"][0])  # pyright: ignore[reportArgumentType]

        def partials() -> Structure:
            kept["extra"] = linearize(extra, sources)
            return kept["partials"]

        if not (problem.report.loop and problem.report.symmetric):
            linear = linearize(targets, sources)
            return kept["values"], linear
        first = linearize_gradient(partials, sources)
        second = kept["extra"]
        linear = Linearization(
            (first.targets, second.targets),
            lambda tangents: (first.jvp(tangents), second.jvp(tangents)),
            tf.nest.map_structure(operator.or_, first.depends, second.depends),
        )
        rows = [
            Slices(value, partial.indices)
            if isinstance(partial, tf.IndexedSlices)
            else value
            for value, partial in zip(first.targets, kept["partials"][0], strict=True)
        ]
        return OracleValue(rows, *kept["values"]), linear

    def hypergradients(
        self, cotangent: State, direct: list[tf.Tensor], tangents: State
    ) -> tf.Tensor:
        """⟨∇E, Z⟩ + ∂E/∂λ along each direction: a vector of length k."""
        pairs = zip(
            tf.nest.flatten([cotangent.variables, cotangent.extra, direct]),
            tf.nest.flatten([tangents.variables, tangents.extra, self._directions]),
            strict=True,
        )
        terms = [
            tf.linalg.matvec(
                tf.reshape(tangent, (self._count, -1)), tf.reshape(gradient, [-1])
            )
            for gradient, tangent in pairs
        ]
        # The extra state may have another precision than the variables.
        return tf.add_n([tf.cast(term, self._problem.dtype) for term in terms])
