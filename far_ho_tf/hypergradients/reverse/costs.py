"""What a step back takes."""

import functools

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import require
from far_ho_tf.hypergradients.costs import Needs, kept_with_problem, state_bytes, traced
from far_ho_tf.hypergradients.reverse.residuals import Keeping
from far_ho_tf.hypergradients.reverse.run import ReverseRun
from far_ho_tf.hypergradients.reverse.split_step import ForPullback
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.derivatives import floating
from far_ho_tf.variables.identity import read
from far_ho_tf.variables.state import State


@kept_with_problem
def of_reverse_step(problem: PureProblem, keeping: Keeping | None) -> Needs:
    """The `Needs` of a step back, with what it repeats of the training step.

    Args:
        problem: A `PureProblem`.
        keeping: See `ReverseRun`.
    """

    def visit(
        run: ReverseRun, state_and_carry: tuple[State, tuple[State, list[tf.Tensor]]]
    ) -> Structure:
        choice = _zeros(problem.dynamics.choices)
        state, carry = state_and_carry
        kept = ForPullback(state, _zeros(run.split.kept)) if run.split else None
        return run.visit(tf.constant(0), state, choice, carry, kept)

    state = problem.state_specs()
    cotangent = state._replace(extra=floating(state.extra))
    carry = cotangent, read(problem.hyperparameters)
    make_run = functools.partial(ReverseRun, keeping=keeping)
    return traced(problem, visit, (state, carry), make_run)


def states_within(problem: PureProblem, count: int, budget: int) -> int:
    """How many states fit into a budget.

    Args:
        problem: A `PureProblem`.
        count: Integer, the number of states that there are.
        budget: Integer, bytes.

    Raises:
        ValueError: If it is less than one state and what a step needs.
    """
    back = of_reverse_step(problem, None)
    require(
        back.complete,
        "`memory_budget` cannot be kept where a step holds loops, or shapes that are "
        "not known: what they take cannot be told. Alternative: a number of states, as "
        "in checkpointing=10.",
        memory_budget=budget,
    )
    size = state_bytes(problem)
    # A quarter more than predicted; and there is one slot more than states.
    fixed = back.in_graph * 5 // 4 + size
    fits = (budget - fixed) // size
    require(
        fits >= 1,
        "`memory_budget` must leave room for one state and a step's own needs, "
        f"{fixed + size} bytes.",
        memory_budget=budget,
    )
    return min(count, fits)


def _zeros(like: Structure) -> Structure:
    return tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), like)
