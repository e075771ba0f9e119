"""The inner runs of a `HyperOptimizer`: where they stand, and how they go on."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from far_ho_tf.checks import check_count, is_integer, require, shown
from far_ho_tf.distribution.strategies import outside_scope
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.episodes import Episodes, check_episodes
from far_ho_tf.hypergradients.execution import Execution, execution_of
from far_ho_tf.hypergradients.nonfinite import DivergenceError, NonFiniteError
from far_ho_tf.hypergradients.result import HyperGradientResult, MeanResult
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.tuning.tasks import Found, Tasks
from far_ho_tf.variables.state import Position

_MODES = ("restart", "online", "warm_restart")
# Of one problem, or of several.
Result: TypeAlias = HyperGradientResult | MeanResult


class InnerRuns:
    """Trains the problems, from run to run, and differentiates.

    Args:
        problems: List of `PureProblem`s that share hyperparameters.
        hypergradient: A `HyperGradient`.
        strategy: A `tf.distribute.Strategy` or `None`.

    Attributes:
        positions: List of the `Position`s where the runs of the problems have arrived.
        episode: Integer, the next episode that has not been seen.
    """

    def __init__(
        self,
        problems: list[PureProblem],
        hypergradient: HyperGradient,
        strategy: tf.distribute.Strategy | None,
    ) -> None:
        self._problems = problems
        self._hypergradient = hypergradient
        self._strategy = strategy
        self._executions: dict[tuple[int, bool], Execution] = {}
        self._has_no_episodes = False
        self._tasks = Tasks(strategy, problems[0].hyperparameters)
        self.positions: list[Position] = [Position() for _ in problems]
        self.episode = 0

    @property
    def outer_step(self) -> int:
        """The number of the next hyper-iteration."""
        return self.positions[0].outer_step

    @outside_scope
    def advance(
        self,
        num_steps: int,
        mode: str,
        episodes: int | Episodes | None = None,
        outer_limit: float | None = None,
        hyper_iterations: int | None = None,
    ) -> Result:
        """Trains and differentiates, without the outer update.

        Where that diverges, positions and models stay as they were.

        Args:
            num_steps, mode, episodes: See `HyperOptimizer.run`.
            outer_limit: See `HyperOptimizer.fit`.
            hyper_iterations: See `HyperGradient.compute`.
        """
        starts = [self._start(mode, position) for position in self.positions]
        numbers, episode = self._numbers(episodes, mode)
        keeps = None if mode == "restart" else True
        results, result = self._compute(
            num_steps, starts, keeps, numbers, hyper_iterations
        )
        _check_limit(result.outer_value, outer_limit)
        # In order, as several problems may share a model.
        for problem, one in zip(self._problems, results, strict=True):
            if one is not None:
                problem.write_back(one.state)  # pyright: ignore[reportArgumentType]
        self.episode = episode
        if numbers is None:
            self.positions = [  # pyright: ignore[reportAttributeAccessIssue]
                Position(first_step=start.first_step + num_steps)
                if one is None
                else one.end
                for one, start in zip(results, starts, strict=True)
            ]
        following = starts[0].outer_step + 1
        self.positions = [
            position._replace(outer_step=following) for position in self.positions
        ]
        return result

    def _start(self, mode: str, position: Position) -> Position:
        """Where a run begins that goes on from a position, or does not."""
        if mode == "restart":
            return Position(outer_step=position.outer_step)
        if mode == "warm_restart":
            return position._replace(tangents=None)
        lacks = position.state is not None and position.tangents is None
        if self._hypergradient.has_tangents and lacks:
            raise ValueError(
                "The last run did not keep its tangents, so that `mode='online'` "
                "cannot go on from it: in chunks (`chunk_size`), `mode='restart'` "
                f"drops them. Received: {self._hypergradient}"
            )
        return position

    def _numbers(
        self, episodes: int | Episodes | None, mode: str
    ) -> tuple[list[int] | None, int]:
        """The numbers of episodes as a list or `None`, and the next that is unseen."""
        unseen = self.episode
        if episodes is None:
            if not self._has_no_episodes:
                for problem in self._problems:
                    check_episodes(problem, None, None, several=False)
                self._has_no_episodes = True
            return None, unseen
        require(
            len(self._problems) == 1,
            "`episodes` are those of one problem, not of a list of them.",
            problems=len(self._problems),
        )
        require(
            mode == "restart",
            "`episodes` begin anew each time: they go with mode='restart' only.",
            mode=mode,
        )
        if is_integer(episodes):
            count = check_count("episodes", episodes)
            episodes = list(range(unseen, unseen + count))
            unseen += count
        check_episodes(self._problems[0], None, episodes, several=False)
        return list(episodes), unseen  # pyright: ignore[reportArgumentType]

    def _compute(
        self,
        num_steps: int,
        starts: list[Position],
        keep_tangents: bool | None,
        episodes: list[int] | None,
        hyper_iterations: int | None,
    ) -> tuple[list[HyperGradientResult | None], Result]:
        """The results of the problems, `None` where on another worker; their mean."""

        def compute(
            index: int,
            strategy: tf.distribute.Strategy | None,
            episodes: list[int] | None = None,
        ) -> HyperGradientResult:
            key = index, episodes is None and strategy is self._strategy
            if key not in self._executions:
                self._executions[key] = execution_of(
                    self._hypergradient, self._problems[index], strategy
                )
            return self._executions[key].run(
                num_steps,
                starts[index],
                keep_tangents,
                episodes,
                hyper_iterations,
                strategy,
            )

        if len(self._problems) == 1 and episodes is None:
            result = compute(0, self._strategy)
            return [result], result
        self._tasks.check(self._problems, episodes is not None)
        if episodes is None:
            return self._over_problems(compute, num_steps)
        return self._over_episodes(compute, num_steps, episodes)

    def _over_problems(
        self, compute: Callable[..., HyperGradientResult], num_steps: int
    ) -> tuple[list[HyperGradientResult | None], MeanResult]:
        count = len(self._problems)

        def work(places: list[int], strategy: tf.distribute.Strategy | None) -> Found:
            pairs = []
            for place in places:
                try:
                    pairs.append(([place], compute(place, strategy)))
                except NonFiniteError as error:
                    text = f"In problem {place}: {error}"
                    raise NonFiniteError(text, error.step) from error
            return pairs

        found, error = self._tasks.run(work, count)
        mean = self._tasks.average(found, error, count, num_steps)
        results: list[HyperGradientResult | None] = [None] * count
        for (place,), result in found:
            results[place] = result
        return results, dataclasses.replace(mean, results=results)

    def _over_episodes(
        self,
        compute: Callable[..., HyperGradientResult],
        num_steps: int,
        episodes: list[int],
    ) -> tuple[list[HyperGradientResult | None], HyperGradientResult]:
        found, error = self._tasks.run(
            lambda places, strategy: [
                (places, compute(0, strategy, [episodes[place] for place in places]))
            ],
            len(episodes),
        )
        mean = self._tasks.average(found, error, len(episodes), num_steps)
        results = [result for _, result in found]
        choices, last = {}, None
        if results:  # There may be fewer episodes than workers.
            last = results[-1]
            choices = tf.nest.map_structure(
                lambda *rows: tf.concat(rows, axis=0), *(one.choices for one in results)
            )
        result = HyperGradientResult(
            outer_value=mean.outer_value,
            hypergradients=mean.hypergradients,
            inner_values=mean.inner_values,
            choices=choices,
            state=last and last.state,
            status=last and last.status,
            outer_values=mean.outer_values,
            names=mean.names,
        )
        return [result if last else None], result

    def write_back(self) -> None:
        """Lets the models hold the states that the last runs arrived at."""
        for problem, position in zip(self._problems, self.positions, strict=True):
            if position.state is not None:
                problem.write_back(position.state)


def check_mode(mode: Any) -> None:
    """Refuses what is no mode of `HyperOptimizer.run`."""
    if mode not in _MODES:
        raise ValueError(
            f"`mode` must be one of {_MODES}. Received: mode={shown(mode)}"
        )


def _check_limit(value: tf.Tensor, limit: float | None) -> None:
    if limit is not None and value > limit:
        raise DivergenceError(
            f"The outer value, {float(value):g}, is above outer_limit={limit:g}."
        )
