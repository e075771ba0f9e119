"""Reverse mode: backwards over the stored trajectory."""

import dataclasses

import tensorflow as tf

from far_ho_tf.autodiff import add, all_finite, vjp, zeros_for_none
from far_ho_tf.hypergradients.base import HyperGradient, Outputs
from far_ho_tf.state import State
from far_ho_tf.variables import path_of


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

    def differentiate(self, problem, num_steps, inputs, restart, search):
        run = _Run(problem, num_steps, inputs, search)
        start, initial_vjp = _initial(problem, inputs, restart)
        steps, state, trajectory, inner_values = run.forward(start)
        outer_value, cotangent, direct = run.outer(state)
        backward_step, cotangent, gradients = run.backward(
            steps, trajectory, state, cotangent, direct
        )
        gradients = run.total(gradients, initial_vjp(cotangent), restart)
        return Outputs(
            outer_value,
            gradients,
            inner_values,
            state,
            all_finite([state, inner_values, outer_value, gradients]),
            steps,
            backward_step,
        )


class _Run:
    """The loops of one hyper-iteration, while they are traced."""

    def __init__(self, problem, num_steps, inputs, search):
        self._problem = problem
        self._num_steps = num_steps
        self._inputs = inputs
        self._search = search
        self._hyperparameters = list(inputs.hyperparameters)
        self._depends = [False] * len(self._hyperparameters)

    def forward(self, start):
        """Trains, and stores the state before each step.

        Returns:
            Number of steps made, final `State`, trajectory (a list of
            `TensorArray`s aligned with the flattened state), inner values.
        """

        def body(step, state, trajectory, inner_values):
            trajectory = [
                array.write(step, tensor)
                for array, tensor in zip(
                    trajectory, tf.nest.flatten(state), strict=True
                )
            ]
            state, value = self._problem.step(
                state, self._hyperparameters, self._number(step), self._batch(step)
            )
            return step + 1, state, trajectory, inner_values.write(step, value)

        trajectory = [
            tf.TensorArray(tensor.dtype, self._num_steps, element_shape=tensor.shape)
            for tensor in tf.nest.flatten(start)
        ]
        inner_values = tf.TensorArray(
            self._problem.dtype, self._num_steps, element_shape=[]
        )
        steps, state, trajectory, inner_values = tf.while_loop(
            lambda step, state, *_: self._goes_on(step < self._num_steps, state),
            body,
            (tf.constant(0), start, trajectory, inner_values),
            parallel_iterations=1,
            maximum_iterations=self._num_steps,
        )
        return steps, state, trajectory, inner_values.stack()

    def outer(self, state):
        """The outer value, its cotangent in the state, its gradient in λ."""
        problem, inputs = self._problem, self._inputs
        batch = problem.outer_data.batch(inputs.outer, inputs.outer_step)
        sources = self._sources(state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            value = problem.outer_value(state, self._hyperparameters, batch)
        variables, extra, direct = vjp(tape, [value], sources, [tf.ones_like(value)])
        self._note(direct)
        if all(g is None for g in [*variables, *extra, *direct]):
            raise ValueError(
                "`outer_objective` does not depend, by anything that has a derivative, "
                "on the trained variables or the hyperparameters. Received variables: "
                f"{[path_of(variable) for variable in problem.variables]}"
            )
        cotangent = State(
            zeros_for_none(variables, state.variables),
            tf.nest.map_structure(tf.zeros_like, state.slots),
            zeros_for_none(extra, _floating(state.extra)),
        )
        return value, cotangent, zeros_for_none(direct, self._hyperparameters)

    def backward(self, steps, trajectory, structure, cotangent, direct):
        """Pulls the cotangent of the final state back to the initial state.

        Args:
            steps: Number of steps to undo.
            trajectory: From `forward`.
            structure: A `State`, for its structure.
            cotangent: A `State` whose extra part holds floating tensors only.
            direct: The gradient in λ to start from, ∂E/∂λ.

        Returns:
            The step at which a search stopped (−1: it ran through), the
            cotangent of the initial state, the gradient in λ.
        """

        def body(step, cotangent, gradients):
            flat = [array.read(step) for array in trajectory]
            state = tf.nest.pack_sequence_as(structure, flat)
            cotangent, terms = self._reverse_step(step, state, cotangent)
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

    def total(self, gradients, initial_terms, restart):
        """Adds α_0 ∂Φ_0/∂λ, and refuses a λ that nothing depends on.

        Past the start, nothing need depend on what only Φ_0 reads.
        """
        if not restart:
            return gradients
        self._note(initial_terms)
        for variable, depends in zip(
            self._problem.hyperparameters, self._depends, strict=True
        ):
            if not depends:
                raise ValueError(
                    f"Nothing depends on the hyperparameter `{path_of(variable)}`: "
                    "neither the gradient of the inner objective nor the "
                    "dynamics, the initial values or the outer objective. "
                    "Received: hyperparameters="
                    f"{[path_of(v) for v in self._problem.hyperparameters]}"
                )
        return add(gradients, initial_terms)

    def _reverse_step(self, step, state, cotangent):
        """α_{t+1} → α_t = α_{t+1} A_t, and the terms α_{t+1} B_t.

        The step is composed of the gradient oracle and the update rule U, and
        so is its vector–Jacobian product: U's first, at the cotangent, which
        gives that of the oracle's gradient; then the oracle's.
        """
        problem, hyperparameters = self._problem, self._hyperparameters
        sources = self._sources(state)
        own = sources[-1]
        with tf.GradientTape(watch_accessed_variables=False) as oracle_tape:
            oracle_tape.watch(sources)
            gradients, extra, _ = problem.oracle(
                state, hyperparameters, self._batch(step)
            )
        with tf.GradientTape(watch_accessed_variables=False) as update_tape:
            update_tape.watch([state.variables, state.slots, gradients, own])
            variables, slots = problem.update(
                state, gradients, hyperparameters, self._number(step)
            )
        by_variables, by_slots, by_gradients, by_own = vjp(
            update_tape,
            [variables, slots],
            [state.variables, state.slots, gradients, own],
            [cotangent.variables, cotangent.slots],
        )
        through_variables, by_extra, through_own = vjp(
            oracle_tape,
            [gradients, _floating(extra)],
            sources,
            [by_gradients, cotangent.extra],
        )
        self._note(by_own)
        self._note(through_own)
        cotangent = State(
            zeros_for_none(add(by_variables, through_variables), state.variables),
            zeros_for_none(by_slots, state.slots),
            zeros_for_none(by_extra, _floating(state.extra)),
        )
        return cotangent, add(by_own, through_own)

    def _sources(self, state):
        return [
            *self._problem.state_sources(state),
            self._problem.hyperparameter_sources(self._hyperparameters),
        ]

    def _number(self, step):
        return self._inputs.first_step + step

    def _batch(self, step):
        return self._problem.inner_data.batch(self._inputs.inner, self._number(step))

    def _goes_on(self, condition, structure):
        if not self._search:
            return condition
        return tf.logical_and(condition, all_finite(structure))

    def _note(self, gradients):
        """Remembers which hyperparameters something depends on."""
        self._depends = [
            depends or gradient is not None
            for depends, gradient in zip(self._depends, gradients, strict=True)
        ]


def _initial(problem, inputs, restart):
    """The state to start from, and the vector–Jacobian product of Φ_0."""
    hyperparameters = list(inputs.hyperparameters)
    if not restart:
        return inputs.start, lambda _: [None] * len(hyperparameters)
    own = problem.hyperparameter_sources(hyperparameters)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(own)
        start = problem.initial_state(inputs.start, hyperparameters)

    def initial_vjp(cotangent):
        return vjp(tape, [start.variables], own, [cotangent.variables])

    return start, initial_vjp


def _floating(tensors):
    return [tensor for tensor in tensors if tensor.dtype.is_floating]
