"""What a training step with tangents takes."""

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.hypergradients.costs import Needs, kept_with_problem, traced
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.forward.tangents import Directions, Propagation
from far_ho_tf.hypergradients.run import Run
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.derivatives import floating
from far_ho_tf.variables.state import State


@kept_with_problem
def of_tangents(problem: PureProblem, count: int) -> Needs:
    """The `Needs` of a training step with so many tangents."""

    def propagate(run: Run, state_and_tangents: tuple[State, State]) -> Structure:
        return _propagation(problem, run.hyperparameters, count).step(
            *state_and_tangents, tf.constant(0), run.batch(0)
        )

    state = problem.state_specs()
    tangents = tf.nest.map_structure(
        lambda t: tf.TensorSpec((count, *t.shape), t.dtype),
        state._replace(extra=floating(state.extra)),
    )
    return traced(problem, propagate, (state, tangents))


def _propagation(
    problem: PureProblem, hyperparameters: list[tf.Tensor], count: int
) -> Propagation:
    directions = Directions(hyperparameters).units(0, count)
    return Propagation(problem, hyperparameters, directions, Dependence(problem))
