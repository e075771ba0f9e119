"""One hyper-iteration of reverse mode, over any kind of trajectory."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.distribution.replicas import ONE_REPLICA
from far_ho_tf.graphs.functions import as_one_call, specs
from far_ho_tf.hypergradients.interfaces import Trajectory
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.hypergradients.reverse.residuals import Keeping
from far_ho_tf.hypergradients.reverse.split_step import ForPullback, Split, Traced, flat
from far_ho_tf.hypergradients.run import Run, stack
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.problem.step import Step
from far_ho_tf.variables.derivatives import (
    Slices,
    add,
    all_finite,
    floating,
    values_of,
    vjp,
    with_values,
    zeros_for_none,
)
from far_ho_tf.variables.state import State


class ReverseRun(Run):
    """Trains, and pulls the cotangent of the final state back along the run.

    Args:
        problem, settings, inputs: See `Run`.
        keeping: A `Keeping`: what may be kept of a step beside its state, so that less
            of it is made again on the way back; `None`: all of it is made again.

    Attributes:
        split: A `Split` of the steps, or `None`.
    """

    def __init__(
        self,
        problem: PureProblem,
        settings: Settings,
        inputs: Inputs,
        keeping: Keeping | None = None,
    ) -> None:
        super().__init__(problem, settings, inputs)
        self.split = None if keeping is None else self._split_steps(keeping)
        if self.split is not None:
            self.kept = self.split.kept

    def differentiate(
        self, trajectory: Trajectory, first: tf.Tensor | None = None
    ) -> Outputs:
        """Builds the graph.

        Args:
            trajectory: A `Trajectory` of the steps from `first` on.
            first: Scalar int32 tensor, the number of steps before those that are
                differentiated; `None`: there are none.

        Returns:
            `Outputs`.

        Source: Franceschi et al. 2017, algorithm 1 (Reverse-HG).
        """
        start, initial_vjp = self.initial()
        before: Structure = start, self.logs()
        if first is not None:
            before = self.train(first, *before)
        state, logs, kept = trajectory.record(*before)
        outer_value, cotangent, direct = self.outer(state)
        cotangent, hypergradients = trajectory.replay(
            kept, logs.choice, self.visit, (cotangent, direct)
        )
        hypergradients = self._total(hypergradients, initial_vjp(cotangent), first)
        inner_values, choices = stack(logs)
        return Outputs(
            outer_value,
            hypergradients,
            inner_values,
            choices,
            state,
            tangents=None,
            finite=all_finite([state, inner_values, outer_value, hypergradients]),
        )

    def step_and_residuals(
        self, step: tf.Tensor, state: State
    ) -> tuple[Step, list[tf.Tensor]]:
        """A `Step`, and the list of what `split` keeps of it."""
        if self.split is None:
            return self.step(step, state), []
        return self._split_step(step, state)

    @as_one_call
    def _split_step(
        self, step: tf.Tensor, state: State
    ) -> tuple[Step, list[tf.Tensor]]:
        batch = self.batch(step)
        oracle, residuals = self.split.oracle(step, state, batch)  # pyright: ignore[reportOptionalMemberAccess]
        made = self.problem.finish_step(
            state,
            oracle,
            self.hyperparameters,
            self.number(step),
            batch,
            self.replicas,
        )
        return made, residuals

    def redo_and_residuals(
        self, step: tf.Tensor, state: State, choice: dict[str, tf.Tensor]
    ) -> tuple[State, list[tf.Tensor]]:
        """`redo`, and what `split` keeps of the step."""
        if self.split is None:
            return self.redo(step, state, choice), []
        return self._split_redo(step, state, choice)

    @as_one_call
    def _split_redo(
        self, step: tf.Tensor, state: State, choice: dict[str, tf.Tensor]
    ) -> tuple[State, list[tf.Tensor]]:
        oracle, residuals = self.split.oracle(step, state, self.batch(step))  # pyright: ignore[reportOptionalMemberAccess]
        return self.moved(step, state, oracle, choice), residuals

    def _split_steps(self, keeping: Keeping) -> Split | None:
        """The `Split` of the steps; `None` where they have to be left whole."""
        several = self.replicas is not ONE_REPLICA
        if several or self.problem.bare_variables:
            return None
        if self.problem.report.has_control_flow:  # It would be no safe one.
            return None
        # Not made within, since sources of data may hold loops, as those that shuffle.
        batch = self.batch(tf.constant(0))
        if not all(isinstance(t, tf.Tensor) for t in flat(batch)):
            return None
        state = self.problem.state_specs()
        step = tf.TensorSpec([], tf.int32)
        choices = dict(self.problem.dynamics.choices)
        cotangent = state._replace(extra=floating(state.extra))
        like = step, state, specs(batch), choices, cotangent
        split = Split(self._trace, like, keeping)
        return split if split.is_safe else None

    def _trace(
        self,
        step: tf.Tensor,
        state: State,
        batch: Structure,
        choice: dict[str, tf.Tensor],
        cotangent: State,
    ) -> Traced:
        """A step and its pullback, as `Split` takes them."""
        kept = {}
        pulled = self._pull(step, state, batch, choice, cotangent, kept)
        return Traced(kept["oracle"], kept["new"], pulled)

    def _pull(
        self,
        step: tf.Tensor,
        state: State,
        batch: Structure,
        choice: dict[str, tf.Tensor],
        cotangent: State,
        kept: dict[str, Any],
    ) -> tuple[State, list[tf.Tensor | None]]:
        """α_{t+1} → α_t = α_{t+1} A_t, and the terms α_{t+1} B_t.

        Puts what the step makes on the way into the mapping `kept`.

        The step is composed of the gradient oracle and the update rule U, and
        so is its vector–Jacobian product: U's first, at the cotangent, which
        gives that of the oracle's gradient; then the oracle's.
        """
        problem, hyperparameters = self.problem, self.hyperparameters
        sources = problem.sources(state, hyperparameters)
        own = sources[-1]

        def oracle(
            shard: Structure,
        ) -> tuple[list[tf.Tensor | Slices], list[tf.Tensor]]:
            kept["oracle"] = problem.oracle(state, hyperparameters, shard)
            return kept["oracle"].gradients, floating(kept["oracle"].extra)

        (gradients, _), pull = self.replicas.pullback(oracle, sources, batch)
        values = values_of(gradients)
        with tf.GradientTape(watch_accessed_variables=False) as update_tape:
            update_tape.watch([state.variables, state.slots, values, own])
            variables, slots = problem.update(
                state, gradients, hyperparameters, self.number(step), choice
            )
        kept["new"] = variables, slots
        by_variables, by_slots, by_gradients, by_own = vjp(
            update_tape,
            [variables, slots],
            [state.variables, state.slots, values, own],
            [cotangent.variables, cotangent.slots],
        )
        by_gradients = with_values(gradients, by_gradients)
        through_variables, by_extra, through_own = pull((by_gradients, cotangent.extra))
        self.dependence.note(by_own)
        self.dependence.note(through_own)
        cotangent = State(
            zeros_for_none(add(by_variables, through_variables), state.variables),
            zeros_for_none(by_slots, state.slots),
            zeros_for_none(by_extra, floating(state.extra)),
        )
        return cotangent, add(by_own, through_own)

    @as_one_call
    def visit(
        self,
        step: tf.Tensor,
        state: State,
        choice: dict[str, tf.Tensor],
        carry: tuple[State, list[tf.Tensor]],
        known: ForPullback | None = None,
    ) -> tuple[State, list[tf.Tensor]]:
        """A step back: the cotangent pulled through it, the hypergradients added to.

        Args:
            step, state, choice: As in the step.
            carry: Cotangent of the new state, hypergradients so far.
            known: `ForPullback`, where there is a `split`.
        """
        cotangent, hypergradients = carry
        given = step, state, self.batch(step), choice, cotangent
        if known is None:
            cotangent, terms = self._pull(*given, {})
        else:
            new = known.state.variables, known.state.slots
            cotangent, terms = self.split.pull(given, new, known.residuals)  # pyright: ignore[reportOptionalMemberAccess]
        return cotangent, add(hypergradients, terms)  # pyright: ignore[reportReturnType]

    def initial(self) -> tuple[State, Callable[[State], list[tf.Tensor | None]]]:
        """The state to start from, and the vector–Jacobian product of Φ_0."""
        if not self.restart:
            return self.inputs.start, lambda _: [None] * len(self.hyperparameters)
        own = self.problem.hyperparameter_sources(self.hyperparameters)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(own)
            start = self.problem.initial_state(
                self.inputs.start, self.hyperparameters, self.inputs.outer_step
            )

        def initial_vjp(cotangent: State) -> list[tf.Tensor | None]:
            return vjp(
                tape,
                [start.variables, start.slots],
                own,
                [cotangent.variables, cotangent.slots],
            )

        return start, initial_vjp

    def _total(
        self,
        hypergradients: list[tf.Tensor],
        initial_terms: list[tf.Tensor | None],
        first: tf.Tensor | None,
    ) -> list[tf.Tensor]:
        """Adds α_0 ∂Φ_0/∂λ where it counts, and refuses a λ without influence.

        Past the start, nothing need depend on what only Φ_0 reads.
        """
        if not self.restart:
            return hypergradients
        self.dependence.note(initial_terms)
        self.dependence.check()
        if first is not None:
            initial_terms = [
                None if t is None else tf.where(first == 0, t, tf.zeros_like(t))
                for t in initial_terms
            ]
        return add(hypergradients, initial_terms)  # pyright: ignore[reportReturnType]
