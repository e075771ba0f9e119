"""The state of the inner training run."""

from typing import NamedTuple


class State(NamedTuple):
    """The state s_t of the inner training run.

    Attributes:
        variables: List of floating tensors w, aligned with
            `BilevelProblem.variables`.
        slots: List with a tuple of optimizer slots per variable, each of the
            variable's shape and dtype.
        extra: List of tensors of any dtype: what else the inner objective
            changes (BatchNorm statistics, Dropout seeds), aligned with
            `BilevelProblem.extra_variables`.
    """

    variables: list
    slots: list
    extra: list
