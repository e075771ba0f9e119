"""One real-time step after another, on batches that come from Keras."""

from typing import Any, NamedTuple

import tensorflow as tf

from far_ho_tf.autodiff import all_finite
from far_ho_tf.data import as_source
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.outer import differentiate_outer
from far_ho_tf.hypergradients.program import Program
from far_ho_tf.hypergradients.tangents import Directions, Propagation
from far_ho_tf.state import State
from far_ho_tf.variables import assign, read


class StepInputs(NamedTuple):
    """What a compiled step takes: λ, s, Z, the number of the step, the batch."""

    hyperparameters: list
    state: State
    tangents: Any
    step: tf.Tensor
    batch: Any


class RealTimeTraining:
    """The state of a real-time run in variables, and what moves it.

    Weights and other state stay in the model's own variables; slots, tangents
    and counters are in variables of this object.

    Args:
        problem: A `BilevelProblem` whose inner data are a `Placeholder`.
        predictions: Callable() -> what the model predicted when the inner
            objective was last traced.
        hyper_data: Data of the outer objective.
        outer_update: An `OuterUpdate`, or `None` to train only.
        update_every: Integer, steps between updates.
        outer_limit: Number or `None`; see `HyperOptimizer.fit`.
        jit_compile: `True`, `False` or `"auto"`.

    Attributes:
        outer_value: Variable, the last outer value; before the first update
            that of the state at the beginning.
        read_directly: Names of the hyperparameters that the outer objective
            reads itself.
    """

    def __init__(
        self,
        problem,
        predictions,
        hyper_data,
        outer_update,
        update_every,
        outer_limit,
        jit_compile,
    ):
        self._problem = problem
        self._predictions = predictions
        self._outer_update = outer_update
        self._update_every = update_every
        self._outer_limit = float("inf") if outer_limit is None else outer_limit
        self._dependence = Dependence(problem)
        self._outer_dependence = Dependence(problem)
        self._make_variables()
        if outer_update is not None:
            self._next_hyper_batch = _hyper_batches(hyper_data, self._outer_step)
            self.outer_value.assign(self._first_outer_value())
            self.read_directly = self._outer_dependence.paths()
        self._advance = self._compiled(jit_compile)

    @property
    def diverged(self):
        """Whether an update found NaN, infinity, or too high an outer value."""
        return bool(self._diverged)

    def step(self, batch):
        """Trains on a batch and, every `update_every` steps, tunes.

        Args:
            batch: As Keras passes it.

        Returns:
            The loss before the step, and the predictions that gave it.
        """
        state, tangents, value, predictions = self._advance(self._inputs(batch))
        self._problem.write_back(state)
        _assign(self._slots, state.slots)
        _assign(self._tangents, tangents)
        self._step.assign_add(1)
        if self._outer_update is not None:
            due = tf.logical_and(
                self._step % self._update_every == 0, tf.logical_not(self._diverged)
            )
            tf.cond(due, self._tune, lambda: None)
        return value, predictions

    def recover(self):
        """Goes back to the last good update: weights, other state and λ.

        Slots and tangents start again from zero.
        """
        self._problem.write_back(self._good)
        assign(self._problem.hyperparameters, self._good_hyperparameters)
        self._forget()
        self._diverged.assign(False)

    def restart(self):
        """Begins again at step 0 from what the model's variables hold now."""
        self._forget()
        for variable in (self._step, self._outer_step):
            variable.assign(0)
        self._diverged.assign(False)
        self._keep_as_good()

    def _forget(self):
        for variable in tf.nest.flatten([self._slots, self._tangents]):
            variable.assign(tf.zeros_like(variable))

    def _keep_as_good(self):
        _assign(self._good, self._state()._replace(slots=[]))
        _assign(self._good_hyperparameters, read(self._problem.hyperparameters))

    def _make_variables(self):
        problem = self._problem
        start = State(read(problem.variables), [], read(problem.extra_variables))
        start = start._replace(slots=problem.dynamics.initial_slots(start.variables))
        self._slots = tf.nest.map_structure(_variable, start.slots)
        self._tangents = ()
        if self._outer_update is not None:
            tangents = self._propagation(read(problem.hyperparameters)).zeros(start)
            self._tangents = tf.nest.map_structure(_variable, tangents)
        self._good = tf.nest.map_structure(_variable, start._replace(slots=[]))
        self._good_hyperparameters = [
            _variable(value) for value in read(problem.hyperparameters)
        ]
        self._step = _variable(tf.constant(0))
        self._outer_step = _variable(tf.constant(0))
        self._diverged = _variable(tf.constant(False))
        self.outer_value = _variable(tf.constant(0.0, problem.dtype))

    def _first_outer_value(self):
        problem = self._problem

        def outer_value(state, hyperparameters, prepared):
            batch = problem.outer_data.batch(prepared, tf.constant(0))
            value, _, _ = differentiate_outer(
                problem, state, list(hyperparameters), batch, self._outer_dependence
            )
            return value

        outer_value = tf.function(outer_value, autograph=False)
        outer_value._omit_frequent_tracing_warning = True  # It traces once.
        return outer_value(
            self._state(),
            read(problem.hyperparameters),
            problem.outer_data.prepare(0, 1),
        )

    def _compiled(self, jit_compile):
        """The step as a tf.function, by XLA or not."""
        source = self._problem.inner_data
        program = Program(
            jit_compile,
            self._problem.report,
            source.has_fixed_shapes(source.specs),
            lambda inputs, _: self._move(inputs),
        )
        if program.compiler == "xla":  # Tries it, on nothing that counts.
            program(self._inputs(source.zeros()))
        return program.function

    def _inputs(self, batch):
        return StepInputs(
            read(self._problem.hyperparameters),
            self._state(),
            tf.nest.map_structure(tf.identity, self._tangents),
            tf.identity(self._step),
            batch,
        )

    def _move(self, inputs):
        hyperparameters = list(inputs.hyperparameters)
        if self._outer_update is None:
            state, value = self._problem.step(
                inputs.state, hyperparameters, inputs.step, inputs.batch
            )
            return state, (), value, self._predictions()
        state, tangents, value = self._propagation(hyperparameters).step(
            inputs.state, inputs.tangents, inputs.step, inputs.batch
        )
        return state, tangents, value, self._predictions()

    def _propagation(self, hyperparameters):
        directions = Directions(hyperparameters)
        return Propagation(
            self._problem,
            hyperparameters,
            directions.units(0, directions.size),
            self._dependence,
        )

    def _tune(self):
        """Moves the hyperparameters, unless something is not good."""
        state, hyperparameters = self._state(), read(self._problem.hyperparameters)
        value, cotangent, direct = differentiate_outer(
            self._problem,
            state,
            hyperparameters,
            self._next_hyper_batch(),
            self._dependence,
        )
        self._dependence.check()
        gradients = self._propagation(hyperparameters).gradients(
            cotangent, direct, self._tangents
        )
        good = tf.logical_and(
            all_finite([state, value, gradients]), value <= self._outer_limit
        )
        self.outer_value.assign(value)
        self._outer_step.assign_add(1)

        def keep():
            self._keep_as_good()
            self._outer_update.apply(Directions(hyperparameters).split(gradients))

        def stop():
            self._diverged.assign(True)

        tf.cond(good, keep, stop)

    def _state(self):
        return State(
            read(self._problem.variables),
            tf.nest.map_structure(tf.identity, self._slots),
            read(self._problem.extra_variables),
        )


def _hyper_batches(hyper_data, step):
    """A callable that makes the next batch, in the graph."""
    if isinstance(hyper_data, tf.data.Dataset):
        return iter(hyper_data.repeat()).get_next
    source = as_source(hyper_data, "hyper_data")
    prepared = source.prepare(0, 1)
    return lambda: source.batch(prepared, tf.identity(step))


def _variable(value):
    return tf.Variable(value, trainable=False)


def _assign(variables, values):
    assign(tf.nest.flatten(variables), tf.nest.flatten(values))
