"""The inner runs of a `HyperOptimizer`: where they stand, and how they go on."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from far_ho_tf.checks import check_count, is_integer, require
from far_ho_tf.hypergradients import NonFiniteError
from far_ho_tf.hypergradients.episodes import check_episodes
from far_ho_tf.tuning.tasks import Tasks

_MODES = ("restart", "online", "warm_restart")


class Position(NamedTuple):
    """Where the runs of the problems have arrived.

    Attributes:
        states: List of `State`s, `None` for Φ_0.
        tangents: List of tangents or `None`.
        first_step: Integer, the next inner step.
        outer_step: Integer, the next step of the outer data.
        episode: Integer, the next episode that has not been seen.
    """

    states: list
    tangents: list
    first_step: int
    outer_step: int
    episode: int

    def lacks_tangents(self):
        """Whether there are states without tangents."""
        return any(
            state is not None and tangents is None
            for state, tangents in zip(self.states, self.tangents, strict=True)
        )


def _beginning(problems, outer_step=0, episode=0):
    nothing = [None] * len(problems)
    return Position(nothing, nothing, 0, outer_step, episode)


class InnerRuns:
    """Trains the problems, from run to run, and differentiates.

    Args:
        problems: List of `BilevelProblem`s that share hyperparameters.
        hypergradient: A `HyperGradient`.
        strategy: A `tf.distribute.Strategy` or `None`.

    Attributes:
        position: A `Position`.
    """

    def __init__(self, problems, hypergradient, strategy):
        self._problems = problems
        self._hypergradient = hypergradient
        self._strategy = strategy
        self._tasks = Tasks(strategy, problems[0].hyperparameters)
        self.position = _beginning(problems)

    def evaluate(
        self,
        num_steps,
        mode,
        episodes=None,
        outer_limit=None,
        hyper_iterations=None,
    ):
        """Trains and differentiates, without the outer update.

        Where that diverges, position and models stay as they were.

        Args:
            num_steps, mode, episodes: See `HyperOptimizer.run`.
            outer_limit: See `HyperOptimizer.fit`.
            hyper_iterations: See `HyperGradient.compute`.
        """
        check_mode(mode)
        position = self.position
        count = len(self._problems)
        if mode == "restart":
            position = _beginning(self._problems, position.outer_step, position.episode)
        elif mode == "warm_restart":
            position = position._replace(tangents=[None] * count)
        elif self._hypergradient.has_tangents and position.lacks_tangents():
            raise ValueError(
                "The last run did not keep its tangents, so that `mode='online'` "
                "cannot go on from it: in chunks (`chunk_size`), `mode='restart'` "
                f"drops them. Received: {self._hypergradient}"
            )
        numbers, episode = self._numbers(episodes, mode, position.episode)
        results, result = self._compute(
            num_steps, mode, numbers, position, hyper_iterations
        )
        _check_limit(result.outer_value, outer_limit)
        # In order, as several problems may share a model.
        for problem, one in zip(self._problems, results, strict=True):
            if one is not None:
                problem.write_back(one.state)
        position = position._replace(outer_step=position.outer_step + 1)
        if episodes is None:
            position = position._replace(
                states=[one and one.state for one in results],
                tangents=[one and one.tangents for one in results],
                first_step=position.first_step + num_steps,
            )
        self.position = position._replace(episode=episode)
        return result

    def _numbers(self, episodes, mode, unseen):
        """The numbers of episodes as a list or `None`, and the next that is unseen."""
        if episodes is None:
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
        return list(episodes), unseen

    def _compute(self, num_steps, mode, episodes, position, hyper_iterations):
        """The results of the problems, `None` where on another worker; their mean."""

        def compute(index, strategy, episodes=None):
            return self._hypergradient.compute(
                self._problems[index],
                num_steps,
                position.states[index],
                position.first_step,
                position.outer_step,
                position.tangents[index],
                keep_tangents=None if mode == "restart" else True,
                episodes=episodes,
                strategy=strategy,
                write_back=False,
                hyper_iterations=hyper_iterations,
            )

        if len(self._problems) == 1 and episodes is None:
            result = compute(0, self._strategy)
            return [result], result
        self._tasks.check(self._problems, episodes is not None)
        if episodes is None:
            return self._over_problems(compute, num_steps)
        return self._over_episodes(compute, num_steps, episodes)

    def _over_problems(self, compute, num_steps):
        count = len(self._problems)

        def work(places, strategy):
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
        results = [None] * count
        for (place,), result in found:
            results[place] = result
        mean = dataclasses.replace(
            mean,
            choices=[one and one.choices for one in results],
            state=[one and one.state for one in results],
            status=[one and one.status for one in results],
            tangents=[one and one.tangents for one in results],
        )
        return results, mean

    def _over_episodes(self, compute, num_steps, episodes):
        found, error = self._tasks.run(
            lambda places, strategy: [
                (places, compute(0, strategy, [episodes[place] for place in places]))
            ],
            len(episodes),
        )
        mean = self._tasks.average(found, error, len(episodes), num_steps)
        if not found:  # There are fewer episodes than workers.
            return [None], mean
        results = [result for _, result in found]
        last = results[-1]
        choices = tf.nest.map_structure(
            lambda *rows: tf.concat(rows, axis=0), *(one.choices for one in results)
        )
        mean = dataclasses.replace(
            mean, choices=choices, state=last.state, status=last.status
        )
        return [mean], mean

    def write_back(self):
        """Lets the models hold the states that the last runs arrived at."""
        for problem, state in zip(self._problems, self.position.states, strict=True):
            if state is not None:
                problem.write_back(state)


def check_mode(mode):
    """Refuses what is no mode of `HyperOptimizer.run`."""
    if mode not in _MODES:
        raise ValueError(f"`mode` must be one of {_MODES}. Received: mode={mode!r}")


def _check_limit(value, limit):
    if limit is not None and value > limit:
        raise NonFiniteError(
            f"The outer value, {float(value):g}, is above outer_limit={limit:g}."
        )
