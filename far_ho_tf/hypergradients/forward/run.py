"""A training run that carries tangents with it."""

from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.distribution.packing import TwoLists
from far_ho_tf.distribution.strategies import num_replicas, on_each
from far_ho_tf.graphs.functions import as_one_call
from far_ho_tf.hypergradients.forward.tangents import Directions, Propagation
from far_ho_tf.hypergradients.program import Inputs, Settings
from far_ho_tf.hypergradients.run import Run, stack, write
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.problem.step import Log
from far_ho_tf.variables.derivatives import all_finite
from far_ho_tf.variables.state import State


class Outcome(NamedTuple):
    """What a run with one chunk of tangents yields.

    Attributes:
        hypergradients: Vector of length k: the hypergradient along each direction.
        logs: Inner values and choices, as in `Outputs`.
        tangents: As `HyperGradientResult.tangents`; `()` where not kept.
        others: As in `Outputs`.
    """

    outer_value: tf.Tensor
    hypergradients: tf.Tensor
    logs: Log
    state: State
    tangents: Structure
    finite: tf.Tensor


class ForwardRun(Run):
    """Training runs with `size` tangents at a time."""

    def __init__(
        self,
        problem: PureProblem,
        settings: Settings,
        inputs: Inputs,
        directions: Directions,
        size: int,
    ) -> None:
        super().__init__(problem, settings, inputs)
        self._keep_tangents = settings.keep_tangents
        self._directions = directions
        self._size = size

    def chunks(self, number: int) -> Outcome:
        """One run after another; their hypergradients and tangents are joined.

        The rest of each outcome is that of the last run, `finite` that of all.
        """
        joined = ("hypergradients", "tangents")

        def body(
            index: tf.Tensor, before: Outcome, arrays: Structure
        ) -> tuple[tf.Tensor, Outcome, Structure]:
            outcome = self.chunk(index)
            outcome = outcome._replace(finite=outcome.finite & before.finite)
            arrays = tf.nest.map_structure(
                lambda array, rows: array.write(index, rows),
                arrays,
                [getattr(outcome, name) for name in joined],
            )
            return index + 1, _without(outcome, joined), arrays

        like = self._blank()
        arrays = tf.nest.map_structure(
            lambda t: tf.TensorArray(t.dtype, number, element_shape=t.shape),
            [getattr(like, name) for name in joined],
        )
        _, outcome, arrays = tf.while_loop(
            lambda index, *_: index < number,
            body,
            (tf.constant(0), _without(like, joined), arrays),
            parallel_iterations=1,
            maximum_iterations=number,
        )
        rows = tf.nest.map_structure(lambda array: array.concat(), arrays)
        return outcome._replace(**dict(zip(joined, rows, strict=True)))

    def _blank(self) -> Outcome:
        """An outcome with the right shapes, for a loop to begin with."""
        state, tangents = self._start(self._propagation(0), 0)
        return Outcome(
            tf.zeros([], self.problem.dtype),
            tf.zeros([self._size], self.problem.dtype),
            stack(self.logs()),
            state,
            tangents if self._keep_tangents else (),
            tf.constant(True),
        )

    def chunk(self, index: tf.Tensor) -> Outcome:
        """Trains with the tangents of one chunk."""
        first = index * self._size
        propagation = self._propagation(first)
        state, tangents = self._start(propagation, first)
        state, tangents, logs = self._train(propagation, state, tangents)
        outer_value, cotangent, direct = self.outer(state)
        if self.restart:  # Past it, nothing need depend on what only Φ_0 reads.
            self.dependence.check()
        hypergradients = propagation.hypergradients(cotangent, direct, tangents)
        return Outcome(
            outer_value,
            hypergradients,
            logs,
            state,
            tangents if self._keep_tangents else (),
            all_finite([state, logs, outer_value, hypergradients]),
        )

    def _propagation(self, first: int | tf.Tensor) -> Propagation:
        return Propagation(
            self.problem,
            self.hyperparameters,
            self._directions.units(first, self._size),
            self.dependence,
        )

    def _start(
        self, propagation: Propagation, first: int | tf.Tensor
    ) -> tuple[State, State]:
        if self.restart:
            return propagation.initial(self.inputs.start, self.inputs.outer_step)
        state, given = self.inputs.start, self.inputs.tangents
        if given is None:
            return state, propagation.zeros(state)
        # Zeros beyond the last; a gather would repeat or refuse it.
        padded = tf.nest.map_structure(
            lambda rows: tf.concat(
                [rows, tf.zeros((self._size - 1, *rows.shape[1:]), rows.dtype)], 0
            ),
            given,
        )
        # By tf.slice each other `first_step` would be compiled anew under XLA.
        places = first + tf.range(self._size)
        return state, tf.nest.map_structure(
            lambda rows: tf.gather(rows, places), padded
        )

    def _train(
        self, propagation: Propagation, state: State, tangents: State
    ) -> tuple[State, State, Log]:
        def body(
            step: tf.Tensor, state: State, tangents: State, logs: Log
        ) -> tuple[tf.Tensor, State, State, Log]:
            state, tangents, log = self._propagate(propagation, step, state, tangents)
            return step + 1, state, tangents, write(logs, step, log)

        _, state, tangents, logs = tf.while_loop(
            lambda step, *_: step < self.num_steps,
            body,
            (tf.constant(0), state, tangents, self.logs()),
            parallel_iterations=1,
            maximum_iterations=self.capacity,
        )
        return state, tangents, stack(logs)

    @as_one_call
    def _propagate(
        self, propagation: Propagation, step: tf.Tensor, state: State, tangents: State
    ) -> tuple[State, State, Log]:
        return propagation.step(
            state, tangents, self.number(step), self.batch(step), self.replicas
        )


def spread(
    problem: PureProblem, settings: Settings, inputs: Inputs, directions: Directions
) -> Outcome:
    """A chunk of tangents on each replica; hypergradients and tangents are joined."""
    strategy = settings.strategy
    size = -(-directions.size // num_replicas(strategy))
    run = ForwardRun(
        problem, settings._replace(strategy=None), inputs, directions, size
    )
    program = tf.function(run.chunk, autograph=False, jit_compile=settings.compiled)
    with tf.device(None):  # One program for all devices.
        program = program.get_concrete_function(tf.TensorSpec([], tf.int32))
    made = []

    def on_replica(number: tf.Tensor) -> TwoLists:
        outcome = program(number)
        made.append(outcome)
        rows = (
            outcome.hypergradients,
            outcome.tangents,
            tf.cast(outcome.finite, tf.int32),
        )
        others = _without(outcome, ("hypergradients", "tangents"))
        return tf.nest.flatten(rows), tf.nest.flatten(others)

    rows, others = on_each(strategy, on_replica)
    *rows, finite = rows
    hypergradients, *tangents = [tf.reshape(r, (-1, *r.shape[2:])) for r in rows]
    outcome = tf.nest.pack_sequence_as(
        _without(made[0], ("hypergradients", "tangents")), others
    )
    return outcome._replace(
        hypergradients=hypergradients,
        tangents=tf.nest.pack_sequence_as(made[0].tangents, tangents),
        finite=tf.reduce_all(finite > 0),
    )


def _without(outcome: Outcome, names: Iterable[str]) -> Outcome:
    return outcome._replace(**dict.fromkeys(names, ()))
