"""Reverse mode: backwards over the stored trajectory."""

import dataclasses

import tensorflow as tf

from far_ho_tf.autodiff import add, all_finite, floating, vjp, zeros_for_none
from far_ho_tf.hypergradients.base import HyperGradient, Outputs
from far_ho_tf.hypergradients.run import Run, stack, write
from far_ho_tf.state import State


@dataclasses.dataclass(frozen=True)
class ReverseHG(HyperGradient):
    """Reverse mode (backpropagation through the training run).

    The forward loop stores every state s_t. The backward loop goes from α_T =
    ∇E(s_T) to α_0 by α_t = α_{t+1} A_t and adds up α_{t+1} B_t, where A_t and
    B_t are the Jacobians of step t in the state and in λ. Time: about four
    training runs, for any number of hyperparameters. Memory: num_steps
    copies of the state.

    Args:
        jit_compile: See `HyperGradient`.

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
    >>> result = far.ReverseHG().compute(problem, num_steps=2)
    >>> float(w), float(result.hypergradients[0])
    (0.5, -2.0)

    Source: Franceschi et al. 2017, algorithm 1 (Reverse-HG).
    """

    def differentiate(self, problem, settings, inputs):
        run = _Run(problem, settings, inputs)
        start, initial_vjp = run.initial()
        steps, state, trajectory, logs = run.forward(start)
        outer_value, cotangent, direct = run.outer(state)
        derivative_step, cotangent, gradients = run.backward(
            steps, (trajectory, logs[1]), cotangent, direct
        )
        gradients = run.total(gradients, initial_vjp(cotangent))
        inner_values, choices = stack(logs)
        return Outputs(
            outer_value,
            gradients,
            inner_values,
            choices,
            state,
            tangents=None,
            finite=all_finite([state, inner_values, outer_value, gradients]),
            steps=steps,
            derivative_step=derivative_step,
        )


class _Run(Run):
    """The loops over stored states."""

    def initial(self):
        """The state to start from, and the vector–Jacobian product of Φ_0."""
        if not self._restart:
            return self._inputs.start, lambda _: [None] * len(self._hyperparameters)
        own = self._problem.hyperparameter_sources(self._hyperparameters)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            start = self._problem.initial_state(
                self._inputs.start, self._hyperparameters, self._inputs.outer_step
            )

        def initial_vjp(cotangent):
            return vjp(tape, [start.variables], own, [cotangent.variables])

        return start, initial_vjp

    def forward(self, start):
        """Trains, and stores the state before each step.

        Returns:
            Number of steps made, final `State`, trajectory (a `State` of
            `TensorArray`s), `_logs`.
        """

        def body(step, state, trajectory, logs):
            new_state, value, choice = self._problem.step(
                state, self._hyperparameters, self._number(step), self._batch(step)
            )
            trajectory = write(trajectory, step, state)
            return step + 1, new_state, trajectory, write(logs, step, (value, choice))

        trajectory = tf.nest.map_structure(
            lambda tensor: tf.TensorArray(
                tensor.dtype, self._num_steps, element_shape=tensor.shape
            ),
            start,
        )
        return tf.while_loop(
            lambda step, state, *_: self._goes_on(step < self._num_steps, state),
            body,
            (tf.constant(0), start, trajectory, self._logs()),
            parallel_iterations=1,
            maximum_iterations=self._num_steps,
        )

    def backward(self, steps, trajectory, cotangent, direct):
        """Pulls the cotangent of the final state back to the initial state.

        Args:
            steps: Number of steps to undo.
            trajectory: Pair of the states and the choices of `forward`.
            cotangent: A `State` whose extra part holds floating tensors only.
            direct: The gradient in λ to start from, ∂E/∂λ.

        Returns:
            The step at which a search stopped (−1: it ran through), the
            cotangent of the initial state, the gradient in λ.
        """

        def body(step, cotangent, gradients):
            state, choice = tf.nest.map_structure(
                lambda array: array.read(step), trajectory
            )
            cotangent, terms = self._reverse_step(step, state, choice, cotangent)
            return step - 1, cotangent, add(gradients, terms)

        step, cotangent, gradients = tf.while_loop(
            lambda step, *rest: self._goes_on(step >= 0, rest),
            body,
            (steps - 1, cotangent, direct),
            parallel_iterations=1,
            maximum_iterations=self._num_steps,
        )
        if self._search:
            step = tf.where(all_finite([cotangent, gradients]), -1, step + 1)
        return step, cotangent, gradients

    def total(self, gradients, initial_terms):
        """Adds α_0 ∂Φ_0/∂λ, and refuses a λ that nothing depends on.

        Past the start, nothing need depend on what only Φ_0 reads.
        """
        if not self._restart:
            return gradients
        self._dependence.note(initial_terms)
        self._dependence.check()
        return add(gradients, initial_terms)

    def _reverse_step(self, step, state, choice, cotangent):
        """α_{t+1} → α_t = α_{t+1} A_t, and the terms α_{t+1} B_t.

        The step is composed of the gradient oracle and the update rule U, and
        so is its vector–Jacobian product: U's first, at the cotangent, which
        gives that of the oracle's gradient; then the oracle's.
        """
        problem, hyperparameters = self._problem, self._hyperparameters
        sources = problem.sources(state, hyperparameters)
        own = sources[-1]
        with tf.GradientTape(watch_accessed_variables=False) as oracle_tape:
            oracle_tape.watch(sources)
            gradients, extra, _ = problem.oracle(
                state, hyperparameters, self._batch(step)
            )
        with tf.GradientTape(watch_accessed_variables=False) as update_tape:
            update_tape.watch([state.variables, state.slots, gradients, own])
            variables, slots = problem.update(
                state, gradients, hyperparameters, self._number(step), choice
            )
        by_variables, by_slots, by_gradients, by_own = vjp(
            update_tape,
            [variables, slots],
            [state.variables, state.slots, gradients, own],
            [cotangent.variables, cotangent.slots],
        )
        through_variables, by_extra, through_own = vjp(
            oracle_tape,
            [gradients, floating(extra)],
            sources,
            [by_gradients, cotangent.extra],
        )
        self._dependence.note(by_own)
        self._dependence.note(through_own)
        cotangent = State(
            zeros_for_none(add(by_variables, through_variables), state.variables),
            zeros_for_none(by_slots, state.slots),
            zeros_for_none(by_extra, floating(state.extra)),
        )
        return cotangent, add(by_own, through_own)
