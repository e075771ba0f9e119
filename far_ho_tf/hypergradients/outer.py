"""The outer objective at the end of a run, and its gradients."""

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import warn_user
from far_ho_tf.distribution.replicas import ONE_REPLICA, OneReplica
from far_ho_tf.hypergradients.dependence import Dependence
from far_ho_tf.problem.inspection import outer_of_nothing
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.derivatives import floating, zeros_for_none
from far_ho_tf.variables.state import State


def differentiate_outer(
    problem: PureProblem,
    state: State,
    hyperparameters: list[tf.Tensor],
    batch: Structure,
    dependence: Dependence,
    replicas: OneReplica = ONE_REPLICA,
) -> tuple[tf.Tensor, State, list[tf.Tensor]]:
    """The outer value E(s, λ), its cotangent in s, and its gradient in λ.

    Args:
        problem: A `PureProblem`.
        state: A `State`.
        hyperparameters: List of tensors.
        batch: What the outer objective is called with.
        dependence: A `Dependence` that takes note.
        replicas: What shares the batch; see `replicas.as_replicas`.

    Returns:
        The value; the cotangent, a `State` whose extra part holds floating
        tensors only; the list of gradients ∂E/∂λ.

    Raises:
        ValueError: If the outer objective depends on neither.
    """
    sources = problem.sources(state, hyperparameters)
    value, pull = replicas.pullback(
        lambda shard: problem.outer_value(state, hyperparameters, shard), sources, batch
    )
    variables, extra, direct = pull(tf.ones_like(value))
    dependence.note(direct)
    if all(g is None for g in [*variables, *extra, *direct]):
        raise ValueError(outer_of_nothing(problem.variables))
    if all(g is None for g in [*variables, *extra]) and problem.report.outer_reads:
        warn_user(
            "`outer_objective` does not depend, by anything that has a derivative, on "
            "the trained variables that it reads: the hypergradient tells nothing of "
            "the training, only of the hyperparameters that it reads itself. A usual "
            "cause: an accuracy, or another count, in the place of a loss."
        )
    cotangent = State(
        zeros_for_none(variables, state.variables),
        tf.nest.map_structure(tf.zeros_like, state.slots),
        zeros_for_none(extra, floating(state.extra)),
    )
    return value, cotangent, zeros_for_none(direct, hyperparameters)
