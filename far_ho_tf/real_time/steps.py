"""One real-time step after another, on batches that come from Keras."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.data import Placeholder
from far_ho_tf.graphs.functions import TRACING, once_traced
from far_ho_tf.hypergradients import NonFiniteError
from far_ho_tf.hypergradients.compiler import Program
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.forward.tangents import (
    Directions,
    Propagation,
    hidden_zero,
)
from far_ho_tf.hypergradients.outer import differentiate_outer
from far_ho_tf.hypergradients.result import Status
from far_ho_tf.patches.kernels import kernel_rewrites
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.real_time.objectives import Objectives
from far_ho_tf.tuning.outer_update import OuterUpdate
from far_ho_tf.variables.derivatives import all_finite
from far_ho_tf.variables.identity import assign, read
from far_ho_tf.variables.state import State


class Carried(NamedTuple):
    """What goes on from step to step beside the model: variables.

    Attributes:
        slots: Structure of variables.
        tangents: A `State` of variables; `()` where nothing is tuned.
        step, outer_step: Counters of steps and of updates.
        diverged: Whether an update found NaN, infinity, or too high an outer
            value.
        outer_value: The last outer value; before the first update that of the
            state at the beginning.
        good: A `State` without slots: that of the last good update.
        good_hyperparameters: The hyperparameters that it was trained with.
    """

    slots: Structure
    tangents: Structure
    step: tf.Variable
    outer_step: tf.Variable
    diverged: tf.Variable
    outer_value: tf.Variable
    good: State
    good_hyperparameters: list[tf.Variable]


class StepInputs(NamedTuple):
    """What a compiled step takes: λ, s, Z, the number of the step, the batch."""

    hyperparameters: list[tf.Tensor]
    state: State
    tangents: Structure
    step: tf.Tensor
    batch: Structure


class RealTimeTraining:
    """What trains and tunes a model step by step.

    Weights and other state stay in the model's own variables, the rest in
    `carried`.

    Args:
        problem: A `PureProblem` whose inner data are a `Placeholder`.
        objectives: The `Objectives` that it is made of.
        outer_update: An `OuterUpdate`, or `None` to train only.
        update_every: Integer, steps between updates.
        outer_limit: Number or `None`; see `HyperOptimizer.fit`.
        jit_compile: `True`, `False` or `"auto"`.
        previous: A `RealTimeTraining` of the same model and hyperparameters, to
            go on from; `None` to begin.

    Attributes:
        batches: The `Placeholder` of the inner data.
        carried: A `Carried`.
        read_directly: Names of the hyperparameters that the outer objective
            reads itself.
    """

    def __init__(
        self,
        problem: PureProblem,
        objectives: Objectives,
        outer_update: OuterUpdate | None,
        update_every: int,
        outer_limit: float | None,
        jit_compile: bool | str,
        previous: "RealTimeTraining | None" = None,
    ) -> None:
        self.batches: Placeholder = problem.inner_data  # pyright: ignore[reportAttributeAccessIssue]
        self._problem = problem
        self._objectives = objectives
        self._outer_update = outer_update
        self._update_every = update_every
        self._outer_limit = float("inf") if outer_limit is None else outer_limit
        self._dependence = Dependence(problem)
        self._outer_dependence = Dependence(problem)
        self._outer_value = once_traced(self._trace_outer_value)
        self.carried = self._fresh() if previous is None else previous.carried
        if outer_update is not None:
            self._read_hyper_batch = problem.outer_data.reader()
            if previous is None:
                self._evaluate()
        self.read_directly = self._outer_dependence.paths()
        self._advance = self._compiled(jit_compile)

    @property
    def status(self) -> Status:
        """A `Status`: which compiler runs the steps, and why."""
        program = self._program
        return Status(program.compiler, program.reason, one_by_one=program.one_by_one)

    def step(self, batch: Structure) -> tuple[tf.Tensor, Structure]:
        """Trains on a batch and, every `update_every` steps, tunes.

        Args:
            batch: As Keras passes it.

        Returns:
            The loss before the step, and the predictions that gave it.
        """
        with self._problem.explained():
            return self._step(batch)

    def _step(self, batch: Structure) -> tuple[tf.Tensor, Structure]:
        carried = self.carried
        state, tangents, value, predictions = self._advance(self._inputs(batch))
        self._problem.write_back(state)
        _assign([carried.slots, carried.tangents], [state.slots, tangents])
        carried.step.assign_add(1)
        if self._outer_update is not None:
            due = tf.logical_and(
                carried.step % self._update_every == 0,  # pyright: ignore[reportOperatorIssue]
                tf.logical_not(carried.diverged),
            )
            tf.cond(due, self._tune, lambda: None)
        return value, predictions

    def check_next(self) -> None:
        """Says so if a schedule, or the data of the updates, end before it."""
        step = int(self.carried.step)
        self._problem.dynamics.check_last(step)
        self._problem.dynamics.check_values()
        if self._outer_update is not None and (step + 1) % self._update_every == 0:
            self._problem.outer_data.check_last(int(self.carried.outer_step))

    def has_diverged(self, finished: bool = False) -> bool:
        """Whether an update found that it diverged.

        Args:
            finished: Whether to look at the steps since the last update too.
        """
        if self._outer_update is None:
            return False
        if finished and not bool(self.carried.diverged):
            value = self._value()
            finite = all_finite([self._state(), value])
            return not (bool(finite) and bool(value <= self._outer_limit))
        return bool(self.carried.diverged)

    def keep_as_good(self) -> None:
        """Takes the present state, unless it is not finite, for good."""
        state, hyperparameters = self._state(), read(self._problem.hyperparameters)
        if bool(all_finite([state, hyperparameters])):
            self._keep(state, hyperparameters)

    def recover(self) -> None:
        """Goes back to the last good state: weights, other state and λ.

        Slots and tangents start again from zero.
        """
        self._problem.write_back(self.carried.good)
        assign(self._problem.hyperparameters, self.carried.good_hyperparameters)
        self._forget()

    def restart(self) -> None:
        """Begins again at step 0 from what the model's variables hold now."""
        self._forget()
        for counter in (self.carried.step, self.carried.outer_step):
            counter.assign(0)
        self.keep_as_good()
        if self._outer_update is not None:
            self._evaluate()

    def _forget(self) -> None:
        slots = self._problem.dynamics.initial_slots(read(self._problem.variables))
        _assign(self.carried.slots, slots)
        for variable in tf.nest.flatten(self.carried.tangents):
            variable.assign(tf.zeros_like(variable))
        self.carried.diverged.assign(False)

    def _fresh(self) -> Carried:
        problem = self._problem
        start = State(read(problem.variables), [], read(problem.extra_variables))
        slots = problem.dynamics.initial_slots(start.variables)
        hyperparameters = read(problem.hyperparameters)
        tangents = ()
        if self._outer_update is not None:
            propagation = self._propagation(hyperparameters)
            tangents = propagation.zeros(start._replace(slots=slots))
        return Carried(
            _variables(slots),
            _variables(tangents),
            step=_variable(tf.constant(0)),
            outer_step=_variable(tf.constant(0)),
            diverged=_variable(tf.constant(False)),
            outer_value=_variable(tf.constant(0.0, problem.dtype)),
            good=_variables(start),
            good_hyperparameters=_variables(hyperparameters),
        )

    def _evaluate(self) -> None:
        """Takes the outer value of the state at the beginning."""
        value = self._value()
        if not bool(all_finite([value])):
            raise NonFiniteError(
                f"The loss on `hyper_data` is {float(value)} before the first step: "
                "look into these data, and into the weights."
            )
        self.carried.outer_value.assign(value)

    def _value(self) -> tf.Tensor:
        """The outer value of the present state, on the first of `hyper_data`."""
        problem = self._problem
        return self._outer_value(
            self._state(),
            read(problem.hyperparameters),
            problem.outer_data.prepare(0, 1),
        )

    def _trace_outer_value(
        self, state: State, hyperparameters: Sequence[tf.Tensor], prepared: Structure
    ) -> tf.Tensor:
        batch = self._problem.outer_data.batch(prepared, tf.constant(0))
        value, _, _ = self._outer(
            state, list(hyperparameters), batch, self._outer_dependence
        )
        return value

    def _outer(self, *arguments: Any) -> tuple[tf.Tensor, State, list[tf.Tensor]]:
        """See `differentiate_outer`, of the problem; in a graph that XLA leaves."""
        with TRACING, kernel_rewrites(xla=False):
            return differentiate_outer(self._problem, *arguments)

    def _compiled(self, jit_compile: bool | str) -> Program:
        """The step, by XLA or not."""
        program = Program(
            jit_compile,
            self._problem.report,
            self.batches.has_fixed_shapes(self.batches.specs),
            lambda inputs, *_: self._move(inputs),
        )
        if program.compiler == "xla":  # Tries it, on nothing that counts.
            program(self._inputs(self.batches.zeros()))
        self._program = program
        return program

    def _inputs(self, batch: Structure) -> StepInputs:
        return StepInputs(
            read(self._problem.hyperparameters),
            self._state(),
            tf.nest.map_structure(tf.identity, self.carried.tangents),
            tf.identity(self.carried.step),
            batch,
        )

    def _move(
        self, inputs: StepInputs
    ) -> tuple[State, Structure, tf.Tensor, Structure]:
        hyperparameters = list(inputs.hyperparameters)
        self._objectives.predictions = None
        if self._outer_update is None:
            tangents = ()
            state, log = self._problem.step(
                inputs.state, hyperparameters, inputs.step, inputs.batch
            )
        else:
            propagation = self._propagation(hyperparameters, hidden_zero(inputs.step))
            state, tangents, log = propagation.step(
                inputs.state, inputs.tangents, inputs.step, inputs.batch
            )
        return state, tangents, log.value, self._objectives.predictions

    def _propagation(
        self, hyperparameters: list[tf.Tensor], first: int | tf.Tensor = 0
    ) -> Propagation:
        directions = Directions(hyperparameters)
        return Propagation(
            self._problem,
            hyperparameters,
            directions.units(first, directions.size),
            self._dependence,
        )

    def _tune(self) -> None:
        """Moves the hyperparameters, unless something is not good."""
        carried = self.carried
        state, hyperparameters = self._state(), read(self._problem.hyperparameters)
        value, cotangent, direct = self._outer(
            state,
            hyperparameters,
            self._read_hyper_batch(tf.identity(carried.outer_step)),
            self._dependence,
        )
        self._dependence.check()
        hypergradients = self._propagation(hyperparameters).hypergradients(
            cotangent, direct, carried.tangents
        )
        good = tf.logical_and(
            all_finite([state, value, hypergradients]), value <= self._outer_limit
        )
        carried.outer_value.assign(value)
        carried.outer_step.assign_add(1)

        def move() -> None:
            self._keep(state, hyperparameters)
            self._outer_update.apply(Directions(hyperparameters).split(hypergradients))  # pyright: ignore[reportOptionalMemberAccess]

        tf.cond(good, move, lambda: _assign([carried.diverged], [True]))

    def _keep(self, state: State, hyperparameters: list[tf.Tensor]) -> None:
        _assign(self.carried.good, state._replace(slots=[]))
        _assign(self.carried.good_hyperparameters, hyperparameters)

    def _state(self) -> State:
        return State(
            read(self._problem.variables),
            tf.nest.map_structure(tf.identity, self.carried.slots),
            read(self._problem.extra_variables),
        )


def _variable(value: tf.Tensor) -> tf.Variable:
    return tf.Variable(value, trainable=False)


def _variables(values: Structure) -> Structure:
    return tf.nest.map_structure(_variable, values)


def _assign(variables: Structure, values: Structure) -> None:
    assign(tf.nest.flatten(variables), tf.nest.flatten(values))
