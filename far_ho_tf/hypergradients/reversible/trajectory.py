"""A training run in integers, and back again."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from far_ho_tf._types import PolymorphicFunction, Structure
from far_ho_tf.checks import require
from far_ho_tf.graphs.functions import not_inlined, once_traced
from far_ho_tf.hypergradients.interfaces import Visit
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.trajectory import Trajectory
from far_ho_tf.hypergradients.reversible import (
    digit_buffers,
    fixed_point,
    fixed_point_steps,
)
from far_ho_tf.hypergradients.run import read, write
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.problem.step import Log
from far_ho_tf.variables.derivatives import all_finite
from far_ho_tf.variables.identity import read as read_variables
from far_ho_tf.variables.state import State

_SAMPLES = 1000


class ReversibleTrajectory(Trajectory):
    """The states of a run of `Momentum`, recovered by undoing its steps.

    A step is v ← γ v + g, w ← w − η v. The integers that stand for g, γ and η must
    be the same in both directions, to the last bit: each comes from one function,
    compiled once, that both loops call.

    Args:
        run: A `Run`.
        xla: Whether XLA compiles gradients and numbers; it does the integers.

    Attributes:
        checks: Mapping to scalar tensors, once the graph is built: the booleans
            "finite", "starts_in_range", "in_range", "momentum" (it can be reversed) and
            "recovered"; "lowest" and "highest" momentum; "bits" of buffer for each
            weight and step; "deviation", see `Digits`; "noise", that of a
            velocity in a step, relative to the largest gradient.

    Source: Maclaurin et al. 2015, algorithms 2 and 3.
    """

    def __init__(self, run: ReverseRun, xla: bool) -> None:
        super().__init__(run, first=0)
        self._xla = xla
        self._numbers = _shared(self._make_numbers, xla)
        self._forces = _shared(self._make_forces, xla)
        # Of integers XLA gets nothing wrong, and holds a third less.
        self._kick = _shared(fixed_point_steps.kick, xla=True)
        self._drift = _shared(fixed_point_steps.drift, xla=True)
        self._undo_kick = _shared(fixed_point_steps.undo_kick, xla=True)
        self._undo_drift = _shared(fixed_point_steps.undo_drift, xla=True)
        self._in_range = _shared(fixed_point_steps.in_range, xla=True)
        self._floats = _shared(self._make_floats, xla=True)
        self.checks: dict[str, tf.Tensor] = {}

    def record(
        self, state: State, logs: Structure
    ) -> tuple[State, Structure, Structure]:
        digits = _follow(self._numbers, tf.range(self._run.num_steps))
        start, unit, largest = self._encode(state)
        spilled = digit_buffers.arrays(digits, state.variables)

        def body(
            step: tf.Tensor,
            exactly: fixed_point_steps.Integers,
            extra: list[tf.Tensor],
            logs: Structure,
            kept: Structure,
            top: tf.Tensor,
            largest: tf.Tensor,
            good: tf.Tensor,
        ) -> tuple[Structure, ...]:
            w, v, b = exactly
            spilled, extras = kept
            extras = write(extras, step, extra)
            spilled, b, top = digit_buffers.spill(digits.spills[step], spilled, b, top)
            _, rates = self._numbers(step)
            g, extra, value, finite, size = self._forces(
                self._floats(w, fixed_point.UNIT), extra, step
            )
            v, b = self._kick(v, b, g, digits.ratios(step), unit)
            exactly = fixed_point_steps.Integers(self._drift(w, v, rates, unit), v, b)
            good &= tf.stack([finite, self._in_range(exactly)])
            logs = write(logs, step, Log(value, {}))
            kept, largest = (spilled, extras), tf.maximum(largest, size)
            return step + 1, exactly, extra, logs, kept, top, largest, good

        extras = self._run.arrays(state.extra, self._run.num_steps)
        top = tf.zeros([len(state.variables)], tf.int32)
        starts_in_range = self._in_range(start)
        good = tf.stack([all_finite(state), starts_in_range])
        _, end, extra, logs, kept, top, largest, good = tf.while_loop(
            lambda step, *_: step < self._run.num_steps,
            body,
            (0, start, state.extra, logs, (spilled, extras), top, largest, good),
            parallel_iterations=1,
        )
        finite, inside = tf.unstack(good)
        self.checks = {
            "finite": finite,
            "in_range": inside,
            "starts_in_range": starts_in_range,
            "momentum": digits.reversible,
            "lowest": digits.lowest,
            "highest": digits.highest,
            "deviation": digits.deviation,
            # No noise where all gradients are zero: digits of zero are zero.
            "noise": tf.math.divide_no_nan(unit * digits.largest_denominator, largest),
            "bits": digit_buffers.bits(digits, state.variables),
        }
        kept = state, end, kept, top, digits, unit
        return self._state(end, extra, unit), logs, kept

    def replay(
        self, kept: Structure, choices: Structure, visit: Visit, carry: Structure
    ) -> Structure:
        start, end, (spilled, extras), top, digits, unit = kept
        if self._xla:
            visit = _shared(visit, xla=True)

        def body(
            step: tf.Tensor,
            carry: Structure,
            exactly: fixed_point_steps.Integers,
            top: tf.Tensor,
        ) -> tuple[Structure, ...]:
            w, v, b = exactly
            _, rates = self._numbers(step)
            w = self._undo_drift(w, v, rates, unit)
            extra = read(extras, step)
            g, *_ = self._forces(self._floats(w, fixed_point.UNIT), extra, step)
            v, b = self._undo_kick(v, b, g, digits.ratios(step), unit)
            b, top = digit_buffers.refill(digits.spills[step], spilled, b, top)
            exactly = fixed_point_steps.Integers(w, v, b)
            carry = visit(step, self._state(exactly, extra, unit), {}, carry)
            return step - 1, carry, exactly, top

        carry, found, _ = self._backwards(body, carry, end, top)
        # Encoded once more: floats are half as large to keep.
        pairs = zip(
            tf.nest.flatten(found),
            tf.nest.flatten(fixed_point_steps.encoded(start, unit)),
            strict=True,
        )
        self.checks["recovered"] = tf.reduce_all(
            [tf.reduce_all(one == other) for one, other in pairs]
        )
        return carry

    def _encode(
        self, state: State
    ) -> tuple[fixed_point_steps.Integers, tf.Tensor, tf.Tensor]:
        """The initial integers, the unit of velocities, and the largest gradient."""
        *_, largest = self._forces(state.variables, state.extra, tf.constant(0))
        moving = [tf.reduce_max(tf.abs(velocity)) for (velocity,) in state.slots]
        moving = tf.cast(tf.reduce_max(moving), tf.float64)
        unit = fixed_point.unit_of(tf.maximum(largest, moving))
        return fixed_point_steps.encoded(state, unit), unit, largest

    def _make_floats(
        self, tensors: list[tf.Tensor], unit: float | tf.Tensor
    ) -> list[tf.Tensor]:
        dtype = self._run.problem.dtype
        return [fixed_point.decode(tensor, dtype, unit) for tensor in tensors]

    def _state(
        self,
        exactly: fixed_point_steps.Integers,
        extra: list[tf.Tensor],
        unit: float | tf.Tensor,
    ) -> State:
        return State(
            self._floats(exactly.variables, fixed_point.UNIT),
            [(velocity,) for velocity in self._floats(exactly.velocities, unit)],
            extra,
        )

    def _make_numbers(self, step: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Momenta, a float64 vector, and learning rates, a list."""
        run = self._run
        return _numbers(run.problem, run.hyperparameters, run.number(step))

    def _make_forces(
        self, variables: list[tf.Tensor], extra: list[tf.Tensor], step: tf.Tensor
    ) -> tuple[Structure, ...]:
        """The gradients, new extra state, inner value; finite? the largest element."""
        found = self._run.problem.oracle(
            State(variables, [], extra),
            self._run.hyperparameters,
            self._run.batch(step),
        )
        largest = [tf.reduce_max(tf.abs(g)) for g in found.gradients]  # pyright: ignore[reportArgumentType, reportCallIssue]
        largest = tf.cast(tf.reduce_max(largest), tf.float64)
        return *found, all_finite(found.gradients), largest


def bits(problem: PureProblem, num_steps: int) -> np.ndarray:
    """Bits of buffer for an element of each variable and step: a vector.

    From the momenta that the hyperparameters now make, at `_SAMPLES` steps at most.

    Raises:
        ValueError: If one of them cannot be undone.
    """

    def follow(
        hyperparameters: list[tf.Tensor], steps: tf.Tensor
    ) -> digit_buffers.Digits:
        return _follow(lambda step: _numbers(problem, hyperparameters, step), steps)

    compute = once_traced(follow)
    steps = tf.range(0, num_steps, math.ceil(num_steps / _SAMPLES))
    found = compute(read_variables(problem.hyperparameters), steps)
    require(
        bool(found.reversible),
        "ReversibleHG needs momenta from 2⁻¹⁷ to 1.",
        lowest=float(found.lowest),
        highest=float(found.highest),
    )
    ratios = found.denominators.numpy() / found.numerators.numpy()
    return np.mean(np.log2(ratios), axis=0)


def _follow(
    numbers: Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]], steps: tf.Tensor
) -> digit_buffers.Digits:
    """`Digits` of the momenta of steps."""
    momenta = tf.map_fn(
        lambda step: numbers(step)[0], steps, fn_output_signature=tf.float64
    )
    return digit_buffers.follow(momenta)


def _numbers(
    problem: PureProblem, hyperparameters: list[tf.Tensor], step: tf.Tensor
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    momenta, rates = [], []
    for number in problem.numbers(hyperparameters, step):
        require(
            number["momentum"].shape.rank == 0,
            "ReversibleHG takes one momentum for each variable.",
            shape=tuple(number["momentum"].shape),
        )
        momenta.append(tf.cast(number["momentum"], tf.float64))
        rates.append(tf.cast(number["learning_rate"], tf.float64))
    for index in problem.dynamics.idle:
        momenta[index] = tf.constant(1.0, tf.float64)
        rates[index] = tf.constant(0.0, tf.float64)
    return tf.stack(momenta), rates


def _shared(function: Callable[..., Structure], xla: bool) -> PolymorphicFunction:
    """One compiled function, that gives the same bits wherever it is called."""
    if xla:
        return tf.function(function, autograph=False, jit_compile=True)
    return not_inlined(function)
