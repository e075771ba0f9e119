"""The state of the inner training run."""

from typing import NamedTuple

import tensorflow as tf


class State(NamedTuple):
    """The state s_t of the inner training run.

    Attributes:
        variables: List of floating tensors w, aligned with
            `BilevelProblem.variables`.
        slots: Structure of floating tensors, the optimizer's slots: a list with a
            tuple per variable, of its shape and dtype; of a Keras optimizer a list.
        extra: List of tensors of any dtype: what else the inner objective
            changes (BatchNorm statistics, Dropout seeds), aligned with
            `BilevelProblem.extra_variables`.
    """

    variables: list
    slots: list
    extra: list


def layout(structure):
    """The shapes of a structure's tensors, as a structure to compare and show."""
    return tf.nest.map_structure(lambda tensor: str(tensor.shape), structure)
