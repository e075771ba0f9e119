"""One hyper-iteration of reverse mode, over any kind of trajectory."""

import tensorflow as tf

from far_ho_tf.autodiff import add, all_finite, floating, vjp, zeros_for_none
from far_ho_tf.hypergradients.program import Outputs
from far_ho_tf.hypergradients.run import Run, stack
from far_ho_tf.state import State


class ReverseRun(Run):
    """Trains, and pulls the cotangent of the final state back along the run."""

    def differentiate(self, trajectory, first=0):
        """Builds the graph.

        Args:
            trajectory: A `Trajectory` of the steps from `first` on.
            first: Python integer, the number of steps before those that are
                differentiated.

        Returns:
            `Outputs`.

        Source: Franceschi et al. 2017, algorithm 1 (Reverse-HG).
        """
        start, initial_vjp = self._initial()
        before = tf.constant(0), start, self.logs()
        if first:
            before = self.train(tf.constant(first), *before)
        steps, state, logs, kept = trajectory.record(*before)
        outer_value, cotangent, direct = self.outer(state)
        step, (cotangent, gradients) = trajectory.replay(
            kept, logs[1], self.visit, (cotangent, direct)
        )
        gradients = self._total(gradients, initial_vjp(cotangent), first == 0)
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
            derivative_step=tf.where(
                all_finite([cotangent, gradients]), first - 1, step + 1
            ),
        )

    def _pull(self, step, state, choice, cotangent):
        """α_{t+1} → α_t = α_{t+1} A_t, and the terms α_{t+1} B_t.

        The step is composed of the gradient oracle and the update rule U, and
        so is its vector–Jacobian product: U's first, at the cotangent, which
        gives that of the oracle's gradient; then the oracle's.
        """
        problem, hyperparameters = self.problem, self.hyperparameters
        sources = problem.sources(state, hyperparameters)
        own = sources[-1]

        def oracle(share):
            gradients, extra, _ = problem.oracle(state, hyperparameters, share)
            return gradients, floating(extra)

        (gradients, _), pull = self.replicas.pullback(oracle, sources, self.batch(step))
        with tf.GradientTape(watch_accessed_variables=False) as update_tape:
            update_tape.watch([state.variables, state.slots, gradients, own])
            variables, slots = problem.update(
                state, gradients, hyperparameters, self.number(step), choice
            )
        by_variables, by_slots, by_gradients, by_own = vjp(
            update_tape,
            [variables, slots],
            [state.variables, state.slots, gradients, own],
            [cotangent.variables, cotangent.slots],
        )
        through_variables, by_extra, through_own = pull((by_gradients, cotangent.extra))
        self._dependence.note(by_own)
        self._dependence.note(through_own)
        cotangent = State(
            zeros_for_none(add(by_variables, through_variables), state.variables),
            zeros_for_none(by_slots, state.slots),
            zeros_for_none(by_extra, floating(state.extra)),
        )
        return cotangent, add(by_own, through_own)

    def visit(self, step, state, choice, carry):
        """A step back: the cotangent pulled through it, the hypergradients added to."""
        cotangent, gradients = carry
        cotangent, terms = self._pull(step, state, choice, cotangent)
        return cotangent, add(gradients, terms)

    def _initial(self):
        """The state to start from, and the vector–Jacobian product of Φ_0."""
        if not self._restart:
            return self._inputs.start, lambda _: [None] * len(self.hyperparameters)
        own = self.problem.hyperparameter_sources(self.hyperparameters)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            start = self.problem.initial_state(
                self._inputs.start, self.hyperparameters, self._inputs.outer_step
            )

        def initial_vjp(cotangent):
            return vjp(
                tape,
                [start.variables, start.slots],
                own,
                [cotangent.variables, cotangent.slots],
            )

        return start, initial_vjp

    def _total(self, gradients, initial_terms, counts):
        """Adds α_0 ∂Φ_0/∂λ where it counts, and refuses a λ without influence.

        Past the start, nothing need depend on what only Φ_0 reads.
        """
        if not self._restart:
            return gradients
        self._dependence.note(initial_terms)
        self._dependence.check()
        return add(gradients, initial_terms) if counts else gradients
