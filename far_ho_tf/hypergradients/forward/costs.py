"""What a training step with tangents takes."""

import tensorflow as tf

from far_ho_tf.hypergradients.costs import kept, traced
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.forward.tangents import Directions, Propagation
from far_ho_tf.variables.derivatives import floating


@kept
def of_tangents(problem, count):
    """The `Needs` of a training step with so many tangents."""

    def propagate(run, state_and_tangents):
        return _propagation(problem, run.hyperparameters, count).step(
            *state_and_tangents, tf.constant(0), run.batch(0)
        )

    state = problem.state_specs()
    tangents = tf.nest.map_structure(
        lambda t: tf.TensorSpec((count, *t.shape), t.dtype),
        state._replace(extra=floating(state.extra)),
    )
    return traced(problem, propagate, (state, tangents))


def _propagation(problem, hyperparameters, count):
    directions = Directions(hyperparameters).units(0, count)
    return Propagation(problem, hyperparameters, directions, Dependence(problem))
