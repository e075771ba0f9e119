"""Whole training runs, of problems or episodes, spread over replicas."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import tensorflow as tf

from far_ho_tf._types import Variable
from far_ho_tf.checks import require
from far_ho_tf.distribution.strategies import (
    WorkerLostError,
    local_replicas,
    num_replicas,
    summed,
)
from far_ho_tf.distribution.worker_agreement import check_agreement
from far_ho_tf.hypergradients.nonfinite import NonFiniteError
from far_ho_tf.hypergradients.result import HyperGradientResult, MeanResult
from far_ho_tf.hyperparameters.hyperparameter import names_of
from far_ho_tf.notices import in_context
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import path_of

# The results of runs, each with the places of the problem, or of the episodes.
Found: TypeAlias = list[tuple[list[int], HyperGradientResult]]


class Tasks:
    """The replicas of a strategy, each of which makes some of the runs.

    Those of one machine work at the same time; their programs are traced once.

    Args:
        strategy: A supported `tf.distribute.Strategy` or `None`.
        hyperparameters: List of variables.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy | None, hyperparameters: list[Variable]
    ) -> None:
        self._hyperparameters = hyperparameters
        self._strategy = strategy
        self._checked: list[bool] = []
        self._count = num_replicas(strategy)
        self._local = local_replicas(strategy)

    def check(self, problems: list[PureProblem], episodes: bool) -> None:
        """Refuses problems that cannot run at the same time, and workers that differ.

        Args:
            problems: List of `PureProblem`s, always the same.
            episodes: Whether they are episodes of one.
        """
        if episodes in self._checked:
            return
        for problem in problems:
            check_agreement(problem, self._strategy)
        orders = [
            dataset
            for problem in problems
            for source in (problem.inner_data, problem.outer_data)
            for dataset, _ in source.shuffles()
        ]
        several = len({id(dataset) for dataset in orders}) < len(orders)
        require(
            self._count == 1 or not (several or (episodes and orders)),
            "Replicas that read one tf.data.Dataset which shuffles draw its orders at "
            "random times. Shuffle by far.Batches, or give each problem its own.",
            datasets=orders,
        )
        bare = [v for problem in problems for v in problem.bare_variables]
        require(
            len(self._local) == 1 or not bare,
            "Several replicas cannot train the same tf.Variable at the same time: make "
            "it a keras.Variable.",
            variables=[path_of(variable) for variable in bare],
        )
        self._checked.append(episodes)

    def run(
        self,
        work: Callable[[list[int], tf.distribute.Strategy | None], Found],
        number: int,
    ) -> tuple[Found, Exception | None]:
        """Makes this worker's part of the runs.

        Args:
            work: Callable(list of places, strategy for one device) -> list of pairs
                (places, `HyperGradientResult` for them).
            number: Integer, the number of runs of all replicas; places count from 0.

        Returns:
            The pairs, in order; the error that ended a run, or `None`.
        """

        def attempt(
            replica: tuple[int, tf.distribute.Strategy | None],
        ) -> Found | Exception:
            index, strategy = replica
            first, last = (number * r // self._count for r in (index, index + 1))
            try:
                return work(list(range(first, last)), strategy) if first < last else []
            except Exception as error:  # The other workers must hear of it.
                return error

        if len(self._local) == 1:
            outcomes = [attempt(self._local[0])]
        else:
            with ThreadPoolExecutor(len(self._local)) as threads:
                outcomes = list(threads.map(in_context(attempt), self._local))
        errors = [one for one in outcomes if isinstance(one, Exception)]
        found = [] if errors else [pair for pairs in outcomes for pair in pairs]  # pyright: ignore[reportGeneralTypeIssues]
        return found, errors[0] if errors else None

    def average(
        self, found: Found, error: Exception | None, number: int, num_steps: int
    ) -> MeanResult:
        """The mean of the runs of all workers.

        Args:
            found, error: What `run` returned.
            number, num_steps: Integers, of runs and of their steps.

        Returns:
            A `MeanResult` without `results`.

        Raises:
            The error, if there was one; else `NonFiniteError` if a run of another
            worker ended in it, and `WorkerLostError` if one ended in another error.
        """
        dtype = self._hyperparameters[0].dtype
        hypergradients = [tf.zeros(h.shape, h.dtype) for h in self._hyperparameters]
        outer, inner = tf.zeros([number], dtype), tf.zeros([number, num_steps], dtype)
        for places, result in found:
            rows = [[place] for place in places]
            outer = tf.tensor_scatter_nd_update(
                outer, rows, tf.reshape(_outer_values(result), [-1])
            )
            inner = tf.tensor_scatter_nd_update(
                inner, rows, tf.reshape(result.inner_values, [-1, num_steps])
            )
            hypergradients = [
                total + len(places) * gradient
                for total, gradient in zip(
                    hypergradients, result.hypergradients, strict=True
                )
            ]
        diverged = isinstance(error, NonFiniteError)
        failures = tf.constant([diverged, error is not None and not diverged])
        hypergradients, outer, inner, failures = summed(
            self._strategy, (hypergradients, outer, inner, tf.cast(failures, dtype))
        )
        if error is not None:
            raise error
        diverged, failed = failures.numpy()
        if failed:
            raise WorkerLostError("A run of another worker failed; see what it says.")
        if diverged:
            raise NonFiniteError("A run of another worker diverged; see what it says.")
        return MeanResult(
            outer_value=tf.reduce_mean(outer),
            hypergradients=[total / number for total in hypergradients],
            results=[],
            outer_values=outer,
            inner_values=inner,
            names=tuple(names_of(self._hyperparameters)),
        )


def _outer_values(result: HyperGradientResult) -> tf.Tensor:
    one = result.outer_values is None
    return result.outer_value if one else result.outer_values  # pyright: ignore[reportReturnType]
