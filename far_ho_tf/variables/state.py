"""The state of the inner training run."""

from typing import NamedTuple

import tensorflow as tf

from far_ho_tf._types import Structure

# How many shapes a state shows of each of its parts.
_SHOWN = 4


class State(NamedTuple):
    """The state s_t of the inner training run.

    Attributes:
        variables: List of floating tensors w, aligned with
            `BilevelProblem.variables`.
        slots: Structure of floating tensors, the optimizer's slots: a list with a
            tuple per variable, of its shape and dtype; of a Keras optimizer a list.
        extra: List of tensors of any dtype: what else the inner objective
            changes (BatchNorm statistics, Dropout seeds). Keras variables come in
            the order in which it assigns them first, and `tf.Variable`s after them.
    """

    variables: list[tf.Tensor]
    slots: list[Structure]
    extra: list[tf.Tensor]

    def __repr__(self) -> str:
        parts = []
        for name, tensors in zip(self._fields, self, strict=True):
            shapes = [getattr(one, "shape", one) for one in tf.nest.flatten(tensors)]
            more = f", ... ({len(shapes)})" if len(shapes) > _SHOWN else ""
            listed = ", ".join(map(str, shapes[:_SHOWN]))
            parts.append(f"{name}: {listed}{more}" if shapes else f"{name}: none")
        return f"State({'; '.join(parts)})"


class Position(NamedTuple):
    """Where a run stands, to go on from.

    Attributes:
        state: A `State`; `None` for Φ_0, with which a run begins.
        tangents: In forward mode the tangents of the state, so that derivatives are
            those of all steps since Φ_0; `None`: it is a constant.
        first_step: Integer, the number of the next inner step, by which data and
            schedules count.
        outer_step: Integer, the number of the hyper-iteration, by which the outer data
            count.
    """

    state: State | None = None
    tangents: State | None = None
    first_step: int = 0
    outer_step: int = 0


def layout(structure: Structure) -> Structure:
    """The shapes of a structure's tensors, as a structure to compare and show."""
    return tf.nest.map_structure(lambda tensor: str(tensor.shape), structure)
