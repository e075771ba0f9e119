"""What a gradient mode returns."""

import dataclasses

import tensorflow as tf

from far_ho_tf.variables.state import State


@dataclasses.dataclass(frozen=True)
class Status:
    """What the user must know about a hypergradient.

    Attributes:
        compiler: "xla" or "graph".
        reason: Why not XLA, or an empty string.
        finite: Always true: a result that is not finite is raised instead.
        truncated: Number of last steps that were differentiated, where the run
            went on from a state without its tangents, or `truncation` was asked for;
            `None` for all steps.
        kept_states: Number of states that reverse mode kept at any time.
        buffer_bits: Of `ReversibleHG`, bits for each weight and step.
        one_by_one: Tuple of the types of operations that TensorFlow cannot vectorize.
            Forward mode's tangents, or episodes, pass them one by one, and so the
            whole step where one is a loop or a branch ("StatelessWhile",
            "StatelessIf"), which takes longer and is warned of. Values are the same.
    """

    compiler: str
    reason: str = ""
    finite: bool = True
    truncated: int | None = None
    kept_states: int | None = None
    buffer_bits: float | None = None
    one_by_one: tuple = ()


@dataclasses.dataclass(frozen=True)
class HyperGradientResult:
    """A hypergradient and what came with it.

    Attributes:
        outer_value: Scalar tensor E(s_T, λ).
        hypergradients: List of tensors dE(s_T(λ), λ)/dλ, aligned with
            `problem.hyperparameters`, of their shapes and dtypes.
        inner_values: Tensor of shape (num_steps,): the inner objective before
            each step.
        choices: Mapping from the names of what the dynamics chose in each step
            (see `Dynamics.choices`) to tensors whose first axis has num_steps.
        state: The final `State` s_T.
        status: A `Status`.
        tangents: In forward mode dS_T/dλ: a `State` of tensors whose first
            axis goes over all elements of all hyperparameters, its extra part
            of floating tensors only. `None` in other modes, and where they
            were not kept.
        outer_values: Of a run over several problems or episodes, the outer value
            of each; `outer_value` is their mean. Then inner values and choices have a
            first axis that counts episodes, and the state is that of the last. Of a
            list of problems, choices, state, status and tangents are lists, with
            `None` for those that ran on another worker.
    """

    outer_value: tf.Tensor
    hypergradients: list
    inner_values: tf.Tensor
    choices: dict
    state: State
    status: Status
    tangents: State | None = None
    outer_values: tf.Tensor | None = None
