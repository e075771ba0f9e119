"""A training run in integers, and back again."""

import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import all_finite
from far_ho_tf.checks import require
from far_ho_tf.hypergradients import digits, exact, integers
from far_ho_tf.hypergradients.run import read, write
from far_ho_tf.hypergradients.trajectory import Trajectory
from far_ho_tf.state import State
from far_ho_tf.variables import read as read_variables


class Reversal(Trajectory):
    """The states of a run of `Momentum`, recovered by undoing its steps.

    A step is v ← γ v + g, w ← w − η v. The integers that stand for g, γ and η must
    be the same in both directions, to the last bit: each comes from one function,
    compiled once, that both loops call.

    Args:
        run: A `Run`.
        xla: Whether XLA compiles the steps.

    Attributes:
        checks: Mapping to scalar tensors, once the graph is built: the booleans
            "finite", "in_range", "momentum" (it can be reversed) and "recovered";
            "bits" of buffer for each weight and step.

    Source: Maclaurin et al. 2015, algorithms 2 and 3.
    """

    def __init__(self, run, xla):
        super().__init__(run, first=0)
        self._xla = xla
        self._numbers = _shared(self._make_numbers, xla)
        self._forces = _shared(self._make_forces, xla)
        # Of integers XLA gets nothing wrong, and holds a third less.
        self._kick = _shared(integers.kick, xla=True)
        self._drift = _shared(integers.drift, xla=True)
        self._undo_kick = _shared(integers.undo_kick, xla=True)
        self._undo_drift = _shared(integers.undo_drift, xla=True)
        self._in_range = _shared(integers.in_range, xla=True)
        self.checks = {}

    def record(self, step, state, logs):
        start = integers.encoded(state)
        plan = self._plan()
        spilled = digits.arrays(plan, state.variables)

        def body(step, exactly, extra, logs, kept, top, good):
            w, v, b = exactly
            spilled, extras = kept
            extras = write(extras, step, extra)
            spilled, b, top = digits.spill(plan.spills[step], spilled, b, top)
            _, rates = self._numbers(step)
            g, extra, value, finite = self._forces(self._floats(w), extra, step)
            v, b = self._kick(v, b, g, plan.ratios(step))
            exactly = integers.Integers(self._drift(w, v, rates), v, b)
            good &= tf.stack([finite, self._in_range(exactly)])
            logs = write(logs, step, (value, {}))
            return step + 1, exactly, extra, logs, (spilled, extras), top, good

        extras = self._run.arrays(state.extra, self._count)
        top = tf.zeros([len(state.variables)], tf.int32)
        good = tf.stack([all_finite(state), integers.in_range(start)])
        step, end, extra, logs, kept, top, good = tf.while_loop(
            lambda step, *_: step < self._run.num_steps,
            body,
            (step, start, state.extra, logs, (spilled, extras), top, good),
            parallel_iterations=1,
        )
        finite, inside = tf.unstack(good)
        self.checks = {
            "finite": finite,
            "in_range": inside,
            "momentum": plan.reversible,
            "bits": digits.bits(plan, state.variables),
        }
        kept = state, end, kept, top, plan
        return step, self._state(end, extra), logs, kept

    def replay(self, kept, choices, visit, carry):
        start, end, (spilled, extras), top, plan = kept
        if self._xla:
            visit = _shared(visit, xla=True)

        def body(step, carry, exactly, top):
            w, v, b = exactly
            _, rates = self._numbers(step)
            w = self._undo_drift(w, v, rates)
            extra = read(extras, step)
            g, *_ = self._forces(self._floats(w), extra, step)
            v, b = self._undo_kick(v, b, g, plan.ratios(step))
            b, top = digits.refill(plan.spills[step], spilled, b, top)
            exactly = integers.Integers(w, v, b)
            carry = visit(step, self._state(exactly, extra), {}, carry)
            return step - 1, carry, exactly, top

        step, carry, found, _ = self._backwards(body, carry, end, top)
        # Encoded once more: floats are half as large to keep.
        pairs = zip(
            tf.nest.flatten(found),
            tf.nest.flatten(integers.encoded(start)),
            strict=True,
        )
        self.checks["recovered"] = tf.reduce_all(
            [tf.reduce_all(one == other) for one, other in pairs]
        )
        return step, carry

    def _floats(self, tensors):
        return [exact.decode(tensor, self._run.problem.dtype) for tensor in tensors]

    def _state(self, exactly, extra):
        return State(
            self._floats(exactly.variables),
            [(velocity,) for velocity in self._floats(exactly.velocities)],
            extra,
        )

    def _make_numbers(self, step):
        """Momenta, a float64 vector, and learning rates, a list."""
        momenta, rates = [], []
        for number in self._run.problem.numbers(
            self._run.hyperparameters, self._run.number(step)
        ):
            momenta.append(_momentum(number))
            rates.append(tf.cast(number["learning_rate"], tf.float64))
        for index in self._run.problem.dynamics.idle:
            momenta[index] = tf.constant(1.0, tf.float64)
            rates[index] = tf.constant(0.0, tf.float64)
        return tf.stack(momenta), rates

    def _make_forces(self, variables, extra, step):
        """The gradients as integers, new extra state, and the inner value."""
        gradients, extra, value = self._run.problem.oracle(
            State(variables, [], extra),
            self._run.hyperparameters,
            self._run.batch(step),
        )
        kicks = [exact.encode(gradient) for gradient in gradients]
        return kicks, extra, value, all_finite(gradients)

    def _plan(self):
        """The `digits.Plan` of all steps' momenta."""
        momenta = tf.map_fn(
            lambda step: self._numbers(step)[0],
            tf.range(self._count),
            fn_output_signature=tf.float64,
        )
        return digits.plan(momenta)


def bits(problem, num_steps):
    """Bits of buffer for each weight and step, from the momenta as they are now."""

    def of_step(step):
        numbers = problem.numbers(read_variables(problem.hyperparameters), step)
        return tf.stack([_momentum(number) for number in numbers])

    momenta = tf.function(
        lambda: tf.map_fn(of_step, tf.range(num_steps), fn_output_signature=tf.float64),
        autograph=False,
    )()
    each = tf.reduce_mean(-tf.math.log(momenta), axis=0) / np.log(2.0)
    return float(digits.mean_over_elements(each, problem.start.variables))


def _momentum(number):
    require(
        number["momentum"].shape.rank == 0,
        "ReversibleHG takes one momentum for each variable.",
        shape=tuple(number["momentum"].shape),
    )
    return tf.cast(number["momentum"], tf.float64)


def _shared(function, xla):
    """One compiled function, that gives the same bits wherever it is called."""
    return tf.function(
        function,
        autograph=False,
        jit_compile=xla,
        experimental_attributes=None if xla else {"_noinline": True},
    )
