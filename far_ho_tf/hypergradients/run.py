"""What the runs of all gradient modes share, while they are traced."""

import tensorflow as tf

from far_ho_tf.autodiff import all_finite
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.hypergradients.outer import differentiate_outer


class Run:
    """One hyper-iteration of a problem.

    Args:
        problem: A `BilevelProblem`.
        settings: `Settings`.
        inputs: `Inputs` of symbolic tensors.
    """

    def __init__(self, problem, settings, inputs):
        self._problem = problem
        self._num_steps = settings.num_steps
        self._restart = settings.restart
        self._search = settings.search
        self._inputs = inputs
        self._hyperparameters = list(inputs.hyperparameters)
        self._dependence = Dependence(problem)

    def outer(self, state):
        """See `differentiate_outer`, of the final state."""
        batch = self._problem.outer_data.batch(
            self._inputs.outer, self._inputs.outer_step
        )
        return differentiate_outer(
            self._problem, state, self._hyperparameters, batch, self._dependence
        )

    def _logs(self):
        """`TensorArray`s for what each step tells: (inner value, choice)."""
        specs = (tf.TensorSpec([], self._problem.dtype), self._problem.dynamics.choices)
        return tf.nest.map_structure(
            lambda spec: tf.TensorArray(
                spec.dtype, self._num_steps, element_shape=spec.shape
            ),
            specs,
        )

    def _number(self, step):
        """The number of a step, as data and schedules count it."""
        return self._inputs.first_step + step

    def _batch(self, step):
        return self._problem.inner_data.batch(self._inputs.inner, self._number(step))

    def _goes_on(self, condition, structure):
        if not self._search:
            return condition
        return tf.logical_and(condition, all_finite(structure))


def write(arrays, step, tensors):
    """Writes a structure of tensors to one of `TensorArray`s."""
    return tf.nest.map_structure(lambda a, t: a.write(step, t), arrays, tensors)


def stack(arrays):
    """A structure of `TensorArray`s as one of tensors."""
    return tf.nest.map_structure(lambda array: array.stack(), arrays)
