"""The problem as pure functions of tensors, of which compiled loops are made."""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure, Variable
from far_ho_tf.checks import require
from far_ho_tf.data.source import Source
from far_ho_tf.distribution.replicas import ONE_REPLICA, OneReplica
from far_ho_tf.distribution.strategies import outside_scope
from far_ho_tf.dynamics.bound import BoundDynamics
from far_ho_tf.graphs.failures import explained, part_of
from far_ho_tf.graphs.functions import specs
from far_ho_tf.problem import inspection
from far_ho_tf.problem.initial_map import InitialValue, initial_value
from far_ho_tf.problem.objective import Objective
from far_ho_tf.problem.step import Log, OracleValue, Step
from far_ho_tf.problem.traceable import TraceableProblem
from far_ho_tf.variables.derivatives import Slices, as_slices, filled
from far_ho_tf.variables.identity import assign, dtype_of, find, read
from far_ho_tf.variables.state import State, layout
from far_ho_tf.variables.substitution import (
    substituted,
    tape_sources,
)


class PureProblem(TraceableProblem):
    """What a `BilevelProblem` is to gradient modes: functions of states and tensors.

    Args:
        variables: List of the trained variables.
        owned: List of all variables that the user's owner has.
        hyperparameters: List of variables.
        dtype: Their `tf.DType`.
        dynamics: The `BoundDynamics`.
        inner_objective, outer_objective: `Objective`s.
        inner_data, outer_data: `Source`s.
        initial_map: List of pairs: the index of a variable, and what it starts from.

    Attributes:
        snapshots: List of tensors: what `owned` were when the problem was made.
        executions: Mapping that `execution_of` keeps: what was made for gradient modes.
    """

    def __init__(
        self,
        variables: list[Variable],
        owned: list[Variable],
        hyperparameters: list[Variable],
        dtype: tf.DType,
        dynamics: BoundDynamics,
        inner_objective: Objective,
        outer_objective: Objective,
        inner_data: Source,
        outer_data: Source,
        initial_map: list[tuple[int, InitialValue]],
    ) -> None:
        super().__init__(
            variables, hyperparameters, dynamics, inner_objective, outer_objective
        )
        self.owned = owned
        self.dtype = dtype
        self.inner_data = inner_data
        self.outer_data = outer_data
        self.executions: dict[Any, Any] = {}
        self._initial_map = initial_map
        self._labels = {
            "inner_objective": inner_objective.label,
            "outer_objective": outer_objective.label,
            "dynamics": "`dynamics`",
            "initial_values": "`initial_values`",
        }
        self.snapshots = read(owned)

    @part_of("initial_values")
    def initial_state(
        self, start: State, hyperparameters: list[tf.Tensor], outer_step: tf.Tensor
    ) -> State:
        """Φ_0: the state before the first step.

        Args:
            start: A `State` with the starting values of variables and extra
                state; its slots are not used.
            hyperparameters: List of tensors.
            outer_step: Scalar int32 tensor, the number of the hyper-iteration.

        Returns:
            A `State`.
        """
        variables = list(start.variables)
        names = self.variables + self.hyperparameters
        with substituted(names, start.variables + hyperparameters):
            for index, source in self._initial_map:
                variables[index] = initial_value(
                    self.variables[index], source, outer_step
                )
            slots = self.dynamics.initial_slots(variables)
        return State(variables, slots, start.extra)

    def oracle(
        self, state: State, hyperparameters: list[tf.Tensor], batch: Structure
    ) -> OracleValue:
        """The gradient oracle: what costs the time of a step.

        Args:
            state: A `State`; its slots are not used.
            hyperparameters: List of tensors.
            batch: What the inner objective is called with.

        Returns:
            An `OracleValue`.
        """
        sources = tape_sources(self.variables, state.variables)
        (found,), extra, value = self.partials(state, hyperparameters, batch, [sources])
        gradients = list(map(as_slices, filled(found, state.variables)))
        return OracleValue(gradients, extra, value)

    def partials(
        self,
        state: State,
        hyperparameters: list[tf.Tensor],
        batch: Structure,
        sources: Sequence[Structure],
    ) -> tuple[Structure, list[tf.Tensor], tf.Tensor]:
        """What `oracle` returns, with the gradient in other sources.

        Args:
            sources: Lists of what a tape watches; see `sources`.

        Returns:
            The gradient, structured as the sources, with `None` where the inner
            objective does not read one, and `tf.IndexedSlices` in the place of
            `Slices`; the new extra state; the value.
        """
        names = self.variables + self.extra_variables + self.hyperparameters
        values = state.variables + state.extra + hyperparameters
        with substituted(names, values) as scope:
            gradients, value = self._gradients(sources, batch, scope)
            extra = scope.values_of(self.extra_variables)
        return gradients, extra, value

    @part_of("dynamics")
    def choose(
        self,
        state: State,
        oracle: OracleValue,
        hyperparameters: list[tf.Tensor],
        step: tf.Tensor,
        batch: Structure,
        replicas: OneReplica,
    ) -> dict[str, tf.Tensor]:
        """What the dynamics decide by the inner objective; see `Dynamics.choose`.

        Args:
            oracle: The `OracleValue` of the batch.
            replicas: What shares the batch; see `replicas.as_replicas`.
        """

        def loss(variables: list[tf.Tensor]) -> tf.Tensor:
            moved = state._replace(variables=variables)
            return replicas.mean(
                lambda shard: self.inner_value(moved, hyperparameters, shard), batch
            )

        with substituted(self.hyperparameters, hyperparameters):
            return self.dynamics.choose(
                loss, oracle.value, state.variables, oracle.gradients, step
            )

    @part_of("dynamics")
    def numbers(
        self, hyperparameters: list[tf.Tensor], step: tf.Tensor
    ) -> list[dict[str, tf.Tensor]]:
        """The numeric arguments of the dynamics at a step.

        Returns:
            List of mappings from their names to tensors, one for each variable.
        """
        with substituted(self.hyperparameters, hyperparameters):
            return self.dynamics.numbers_at(step, self.start.variables)

    @part_of("dynamics")
    def update(
        self,
        state: State,
        gradients: list[tf.Tensor | Slices],
        hyperparameters: list[tf.Tensor],
        step: tf.Tensor,
        choice: dict[str, tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[Structure]]:
        """The update rule U: new variables and new slots."""
        with substituted(self.hyperparameters, hyperparameters):
            variables, slots = self.dynamics.update(
                state.variables, gradients, state.slots, step, choice
            )
        return variables, slots

    def step(
        self,
        state: State,
        hyperparameters: list[tf.Tensor],
        step: tf.Tensor,
        batch: Structure,
        replicas: OneReplica = ONE_REPLICA,
    ) -> Step:
        """Φ: one inner step.

        Returns:
            A `Step`.
        """
        oracle = replicas.mean(
            lambda shard: self.oracle(state, hyperparameters, shard), batch
        )
        return self.finish_step(state, oracle, hyperparameters, step, batch, replicas)

    def finish_step(
        self,
        state: State,
        oracle: OracleValue,
        hyperparameters: list[tf.Tensor],
        step: tf.Tensor,
        batch: Structure,
        replicas: OneReplica,
    ) -> Step:
        """Φ from the `OracleValue` of the batch: a `Step`."""
        choice = self.choose(state, oracle, hyperparameters, step, batch, replicas)
        variables, slots = self.update(
            state, oracle.gradients, hyperparameters, step, choice
        )
        new_state = State(variables, slots, oracle.extra)
        return Step(new_state, Log(oracle.value, choice))

    @part_of("inner_objective")
    def inner_value(
        self, state: State, hyperparameters: list[tf.Tensor], batch: Structure
    ) -> tf.Tensor:
        """The inner objective, a scalar."""
        return self._value(self._inner_objective, state, hyperparameters, batch)

    @part_of("outer_objective")
    def outer_value(
        self, state: State, hyperparameters: list[tf.Tensor], batch: Structure
    ) -> tf.Tensor:
        """E(s, λ): the outer objective, a scalar."""
        return self._value(self._outer_objective, state, hyperparameters, batch)

    def _value(
        self,
        objective: Objective,
        state: State,
        hyperparameters: list[tf.Tensor],
        batch: Structure,
    ) -> tf.Tensor:
        names = self.variables + self.extra_variables + self.hyperparameters
        values = state.variables + state.extra + hyperparameters
        with substituted(names, values):
            return objective(batch)

    def sources(
        self, state: State, hyperparameters: list[tf.Tensor]
    ) -> list[list[tf.Tensor | tf.Variable]]:
        """What a tape watches of an objective: what it reads and is floating.

        Returns:
            Three lists: of variables, of extra state, of hyperparameters.
        """
        extra = tape_sources(self.extra_variables, state.extra)
        return [
            tape_sources(self.variables, state.variables),
            [source for source in extra if dtype_of(source).is_floating],
            self.hyperparameter_sources(hyperparameters),
        ]

    def hyperparameter_sources(
        self, hyperparameters: list[tf.Tensor]
    ) -> list[tf.Tensor | tf.Variable]:
        """What a tape watches of the hyperparameters: a list of sources."""
        return tape_sources(self.hyperparameters, hyperparameters)

    def explained(self) -> AbstractContextManager[None]:
        """Within, what TensorFlow and Keras raise names the part that it came from."""
        return explained(self._labels)

    @functools.cached_property
    def report(self) -> inspection.Report:
        """The `Report` on the traced parts of the problem."""
        with self.explained():
            report = outside_scope(inspection.inspect)(self)
        self.dynamics.leave([find(v, self.variables) for v in report.unread])  # pyright: ignore[reportArgumentType]
        return report

    @functools.cached_property
    def extra_variables(self) -> list[Variable]:
        """Variables that the inner objective changes besides the trained."""
        return [
            variable
            for variable in self.report.assigned
            if find(variable, self.variables) is None
        ]

    @functools.cached_property
    def bare_variables(self) -> list[tf.Variable]:
        """The `tf.Variable`s that a run assigns, as it cannot replace them."""
        changed = self.variables + self.extra_variables + self.hyperparameters
        return [v for v in changed if isinstance(v, tf.Variable)]

    @property
    def has_episodes(self) -> bool:
        """Whether some of the data are functions of (step, episode)."""
        return self.inner_data.has_episodes or self.outer_data.has_episodes

    @functools.cached_property
    def start(self) -> State:
        """The `State` that Φ_0 starts from: as the variables were at first."""

        def snapshot(variable: Variable) -> tf.Tensor:
            index = find(variable, self.owned)
            return read([variable])[0] if index is None else self.snapshots[index]

        return State(
            [snapshot(variable) for variable in self.variables],
            [],
            [snapshot(variable) for variable in self.extra_variables],
        )

    def state_specs(self) -> State:
        """A `State` of `tf.TensorSpec`s."""
        slots = self.dynamics.initial_slots(self.start.variables)
        return specs(self.start._replace(slots=slots))

    def check_state(self, state: State) -> None:
        """Refuses a `State` that is not one of this problem."""
        expected = self.state_specs()
        require(
            layout(state) == layout(expected),
            "`state` must be that of a result of this problem.",
            state=layout(state),
            expected=layout(expected),
        )

    def write_back(self, state: State) -> None:
        """Lets the model's own variables hold a state."""
        names = self.variables + self.extra_variables
        assign(names, state.variables + state.extra)
