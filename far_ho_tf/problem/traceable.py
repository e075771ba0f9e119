"""A problem as it is traced to be searched, before its extra state is known."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import Gradient, Structure, Variable
from far_ho_tf.dynamics import BoundDynamics
from far_ho_tf.graphs.failures import part_of
from far_ho_tf.problem.objective import Objective
from far_ho_tf.variables.derivatives import dense
from far_ho_tf.variables.substitution import (
    SubstitutionScope,
    substituted,
    tape_sources,
)


class TraceableProblem:
    """Objectives whose variables can be replaced by tensors.

    Args:
        variables: List of the trained variables.
        hyperparameters: List of variables.
        dynamics: The `BoundDynamics`.
        inner_objective, outer_objective: `Objective`s.
    """

    def __init__(
        self,
        variables: list[Variable],
        hyperparameters: list[Variable],
        dynamics: BoundDynamics,
        inner_objective: Objective,
        outer_objective: Objective,
    ) -> None:
        self.variables = variables
        self.hyperparameters = hyperparameters
        self.dynamics = dynamics
        self._inner_objective = inner_objective
        self._outer_objective = outer_objective

    def keep_rules(self, role: str, codes: frozenset[Any]) -> None:
        """Lets custom gradients of an objective stand for derivatives too.

        Args:
            role: "inner_objective" or "outer_objective".
            codes: Frozen set: the functions, told by their code.
        """
        self._objective(role).kept_rules = codes

    def traced_gradients(
        self,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tuple[list[Gradient | None], SubstitutionScope]:
        """For the inspection: the oracle before extra state is known.

        Returns:
            Gradients (with `None` where the objective does not read the
            variable, and `tf.IndexedSlices`) and the `SubstitutionScope` of the call.
        """
        with self._keras_substituted(values, hyperparameters) as scope:
            sources = tape_sources(self.variables, values)
            (gradients,), _ = self._gradients([sources], batch, scope)
        return gradients, scope

    @part_of("outer_objective")
    def traced_outer_value(
        self,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tf.Tensor:
        """The same for the outer objective; returns its value."""
        with self._keras_substituted(values, hyperparameters):
            return self._outer_objective(batch)

    def forward_value(
        self,
        role: str,
        values: list[tf.Tensor],
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tf.Tensor:
        """The value of an objective before extra state is known; see `keep_rules`."""
        names = self.variables + self.hyperparameters
        with substituted(names, values + hyperparameters):
            return self._objective(role)(batch)

    def _objective(self, role: str) -> Objective:
        is_inner = role == "inner_objective"
        return self._inner_objective if is_inner else self._outer_objective

    def _keras_substituted(
        self, values: list[tf.Tensor], hyperparameters: list[tf.Tensor]
    ) -> AbstractContextManager[SubstitutionScope]:
        """Replaces Keras variables; bare tf.Variables are left to be captured."""
        pairs = zip(
            self.variables + self.hyperparameters,
            values + hyperparameters,
            strict=True,
        )
        pairs = [pair for pair in pairs if isinstance(pair[0], keras.Variable)]
        return substituted([v for v, _ in pairs], [value for _, value in pairs])

    @part_of("inner_objective")
    def _gradients(
        self, sources: Sequence[Structure], batch: Structure, scope: SubstitutionScope
    ) -> tuple[list[Structure], tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            scope.tape = tape
            value = self._inner_objective(batch)
        flat = tf.nest.flatten(sources)
        gradients = tape.gradient(value, flat + scope.watched)
        scope.reads_again = any(g is not None for g in gradients[len(flat) :])
        variables, *others = tf.nest.pack_sequence_as(sources, gradients[: len(flat)])
        if not self.dynamics.reads_slices:
            variables = [dense(gradient) for gradient in variables]
        return [variables, *tf.nest.map_structure(dense, others)], value
