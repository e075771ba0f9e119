"""Forward mode: tangents that travel with the training run."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.distribution.strategies import num_replicas, on_each
from far_ho_tf.graphs.functions import as_one_call
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.compiler import Outputs
from far_ho_tf.hypergradients.forward.tangents import (
    Directions,
    Propagation,
    hidden_zero,
)
from far_ho_tf.hypergradients.run import Run, stack, write
from far_ho_tf.variables.derivatives import all_finite


@dataclasses.dataclass(frozen=True)
class ForwardHG(HyperGradient):
    """Forward mode (tangents of the state in every hyperparameter).

    Beside the state s_t runs Z_t = ds_t/dλ, by Z_{t+1} = A_t Z_t + B_t, where
    A_t and B_t are the Jacobians of step t in the state and in λ; in the end
    the hypergradient is ∇E(s_T) Z_T + ∂E/∂λ. With m the number of elements of
    all hyperparameters, time grows with m, and memory is 1 + m copies of the
    state for any number of steps. For few hyperparameters, long runs, and
    real-time updates (`HyperOptimizer.run(mode="online")`).

    Tangents are propagated together where TensorFlow can vectorize a step. What it
    cannot (loops of recurrent layers, `tf.cond`) they pass one by one:
    `result.status.one_by_one` and a warning tell.

    Args:
        jit_compile: See `HyperGradient`.
        chunk_size: Integer, the largest number of tangents that are propagated
            at once; `None` for all. With more elements than that, the run is
            repeated for each chunk, so that they cost time and not memory.
        spread_tangents: Under a strategy with several replicas, whether each of them
            carries a part of the tangents through the whole run, in the place of a
            share of each batch: for many hyperparameters and small batches. Without
            `chunk_size`.

    Example, with w_2 = 2 (1 − 2η)² and so d½w_2²/dη = w_2 · (−8) (1 − 2η):

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(2.0, name="w")
    >>> rate = far.Hyperparameter(0.25, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: w * w,
    ...     outer_objective=lambda: 0.5 * w * w,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ForwardHG().compute(problem, num_steps=2)
    >>> float(w), float(result.hypergradients[0])
    (0.5, -2.0)

    Source: Franceschi et al. 2017, algorithm 2 (Forward-HG).
    """

    chunk_size: int | None = None
    spread_tangents: bool = False

    has_tangents = True

    def __post_init__(self):
        super().__post_init__()
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)
        require(
            not (self.spread_tangents and self.chunk_size),
            "`spread_tangents` gives each replica one chunk: leave out `chunk_size`.",
            chunk_size=self.chunk_size,
        )

    @property
    def splits_batches(self):
        return not self.spread_tangents

    def keeps_tangents(self, problem, asked):
        size = Directions(problem.hyperparameters).size
        return self._chunks(size)[0] == 1 if asked is None else bool(asked)

    def differentiate(self, problem, settings, inputs):
        directions = Directions(inputs.hyperparameters)
        if self.spread_tangents and settings.strategy is not None:
            outcome = _spread(problem, settings, inputs, directions)
        else:
            number, size = self._chunks(directions.size)
            run = _Run(problem, settings, inputs, directions, size)
            only = hidden_zero(inputs.first_step)
            outcome = run.chunk(only) if number == 1 else run.chunks(number)
        tangents = tf.nest.map_structure(
            lambda rows: rows[: directions.size], outcome.tangents
        )
        gradients = directions.split(outcome.gradients[: directions.size])
        return Outputs(
            outcome.outer_value,
            gradients,
            *outcome.logs,
            outcome.state,
            tangents=tangents if settings.keep_tangents else None,
            finite=outcome.finite,
        )

    def _chunks(self, size):
        """The number of chunks for `size` tangents, and the length of each."""
        number = -(-size // (self.chunk_size or size))
        return number, -(-size // number)


class _Outcome(NamedTuple):
    """What a run with one chunk of tangents yields.

    Attributes:
        gradients: Vector of length k: the hypergradient along each direction.
        logs: Inner values and choices, as in `Outputs`.
        tangents: As `HyperGradientResult.tangents`; `()` where not kept.
        others: As in `Outputs`.
    """

    outer_value: tf.Tensor
    gradients: tf.Tensor
    logs: tuple
    state: Any
    tangents: Any
    finite: tf.Tensor


class _Run(Run):
    """Training runs with `size` tangents at a time."""

    def __init__(self, problem, settings, inputs, directions, size):
        super().__init__(problem, settings, inputs)
        self._keep_tangents = settings.keep_tangents
        self._directions = directions
        self._size = size

    def chunks(self, number):
        """One run after another; their gradients and tangents are joined.

        The rest of each outcome is that of the last run, `finite` that of all.
        """
        joined = ("gradients", "tangents")

        def body(index, before, arrays):
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

    def _blank(self):
        """An outcome with the right shapes, for a loop to begin with."""
        state, tangents = self._start(self._propagation(0), 0)
        return _Outcome(
            tf.zeros([], self.problem.dtype),
            tf.zeros([self._size], self.problem.dtype),
            stack(self.logs()),
            state,
            tangents if self._keep_tangents else (),
            tf.constant(True),
        )

    def chunk(self, index):
        """Trains with the tangents of one chunk."""
        first = index * self._size
        propagation = self._propagation(first)
        state, tangents = self._start(propagation, first)
        state, tangents, logs = self._train(propagation, state, tangents)
        outer_value, cotangent, direct = self.outer(state)
        if self._restart:  # Past it, nothing need depend on what only Φ_0 reads.
            self._dependence.check()
        gradients = propagation.gradients(cotangent, direct, tangents)
        return _Outcome(
            outer_value,
            gradients,
            logs,
            state,
            tangents if self._keep_tangents else (),
            all_finite([state, logs, outer_value, gradients]),
        )

    def _propagation(self, first):
        return Propagation(
            self.problem,
            self.hyperparameters,
            self._directions.units(first, self._size),
            self._dependence,
        )

    def _start(self, propagation, first):
        if self._restart:
            return propagation.initial(self._inputs.start, self._inputs.outer_step)
        state, given = self._inputs.start, self._inputs.tangents
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

    def _train(self, propagation, state, tangents):
        def body(step, state, tangents, logs):
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
    def _propagate(self, propagation, step, state, tangents):
        return propagation.step(
            state, tangents, self.number(step), self.batch(step), self.replicas
        )


def _spread(problem, settings, inputs, directions):
    """A chunk of tangents on each replica; their gradients and tangents are joined."""
    strategy = settings.strategy
    size = -(-directions.size // num_replicas(strategy))
    run = _Run(problem, settings._replace(strategy=None), inputs, directions, size)
    program = tf.function(run.chunk, autograph=False, jit_compile=settings.compiled)
    with tf.device(None):  # One program for all devices.
        program = program.get_concrete_function(tf.TensorSpec([], tf.int32))
    made = []

    def on_replica(number):
        outcome = program(number)
        made.append(outcome)
        rows = outcome.gradients, outcome.tangents, tf.cast(outcome.finite, tf.int32)
        others = _without(outcome, ("gradients", "tangents"))
        return tf.nest.flatten(rows), tf.nest.flatten(others)

    rows, others = on_each(strategy, on_replica)
    *rows, finite = rows
    gradients, *tangents = [tf.reshape(r, (-1, *r.shape[2:])) for r in rows]
    outcome = tf.nest.pack_sequence_as(
        _without(made[0], ("gradients", "tangents")), others
    )
    return outcome._replace(
        gradients=gradients,
        tangents=tf.nest.pack_sequence_as(made[0].tangents, tangents),
        finite=tf.reduce_all(finite > 0),
    )


def _without(outcome, names):
    return outcome._replace(**dict.fromkeys(names, ()))
