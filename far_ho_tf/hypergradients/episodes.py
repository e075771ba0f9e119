"""One run for each of many episodes: tasks, seeds or folds of one problem."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from far_ho_tf.checks import is_integer, require
from far_ho_tf.graphs.vectorize import map_stack
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.state import State

# The numbers of episodes.
Episodes: TypeAlias = Sequence[int] | np.ndarray


def check_episodes(
    problem: PureProblem, state: State | None, episodes: Any, several: bool
) -> None:
    """Refuses numbers of episodes that a problem cannot be run for.

    Args:
        problem: A `PureProblem`.
        state: The `State` to start from, or `None`.
        episodes: What was given for them; `None` for none.
        several: Whether batches are split over replicas.
    """
    if episodes is None:
        require(
            not problem.has_episodes,
            "A data callable of the problem takes (step, episode): say which "
            "`episodes` to run.",
            episodes=None,
        )
        return
    require(
        problem.has_episodes,
        "`episodes` need `inner_data` or `outer_data` that is a callable of two "
        "arguments without defaults, (step, episode).",
        episodes=episodes,
    )
    require(
        isinstance(episodes, (list, tuple, range, np.ndarray))
        and np.ndim(episodes) == 1
        and len(episodes)
        and all(is_integer(number) and 0 <= number < 2**31 for number in episodes),
        "`episodes` must be a list of integers from 0 to 2**31 - 1 (or, for a "
        "`HyperOptimizer`, how many of the next ones).",
        episodes=episodes,
    )
    require(
        state is None,
        "Episodes begin anew each time: mode='restart', without a `state`.",
        state=state,
    )
    require(
        not several,
        "`compute` splits batches over replicas; whole episodes are spread over them "
        "by `HyperOptimizer(strategy=...)`.",
        episodes=episodes,
    )


def over_episodes(
    differentiate: Callable[[PureProblem, Settings, Inputs], Outputs],
    problem: PureProblem,
    settings: Settings,
    inputs: Inputs,
    fixed_shapes: bool,
) -> Outputs:
    """The mean `Outputs` of episodes.

    Args:
        differentiate: `HyperGradient.differentiate`, for one episode.
        problem: A `PureProblem`.
        settings: `Settings`.
        inputs: `Inputs`, whose `episode` is a vector.
        fixed_shapes: Whether all batches have one, known shape.

    Returns:
        `Outputs`, whose `finite` has an element for each episode.
    """

    def one(episode: tf.Tensor) -> Outputs:
        outputs = differentiate(problem, settings, inputs._replace(episode=episode))
        require(
            not outputs.checks,
            "A gradient mode that verifies its runs differentiates no episodes: "
            "`Outputs.checks` must be empty where `Inputs.episode` is given.",
            checks=list(outputs.checks),
        )
        return outputs._replace(tangents=(), outer_values=())

    # XLA cannot compile vectorized loops. A bare tf.Variable, which a run assigns,
    # has one value at a time.
    together = fixed_shapes and not (settings.compiled or problem.bare_variables)
    outputs = map_stack(one, inputs.episode, _specs(problem, settings), together)
    return outputs._replace(
        outer_value=tf.reduce_mean(outputs.outer_value),
        hypergradients=[tf.reduce_mean(g, axis=0) for g in outputs.hypergradients],
        state=tf.nest.map_structure(lambda rows: rows[-1], outputs.state),
        tangents=None,
        outer_values=outputs.outer_value,
    )


def _specs(problem: PureProblem, settings: Settings) -> Outputs:
    """The shapes and dtypes of one episode's `Outputs`."""
    scalar = tf.TensorSpec([], problem.dtype)
    by_step = tf.nest.map_structure(
        lambda spec: tf.TensorSpec([settings.buffers.steps, *spec.shape], spec.dtype),
        (scalar, problem.dynamics.choices),
    )
    return Outputs(
        scalar,
        [tf.TensorSpec(h.shape, problem.dtype) for h in problem.hyperparameters],  # pyright: ignore[reportArgumentType]
        *by_step,
        problem.state_specs(),  # pyright: ignore[reportCallIssue]
        tangents=(),
        finite=tf.TensorSpec([], tf.bool),
        outer_values=(),
    )
