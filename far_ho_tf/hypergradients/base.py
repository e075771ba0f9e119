"""The strategy that every gradient mode is, and `compute`, which all of them have."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import (
    KERAS_NAMES,
    check_count,
    check_steps,
    did_you_mean,
    require,
)
from far_ho_tf.distribution.strategies import (
    check_strategy,
    num_replicas,
    outside_scope,
)
from far_ho_tf.graphs.buffers import capacity
from far_ho_tf.hypergradients.episodes import Episodes, check_episodes
from far_ho_tf.hypergradients.execution import execution_of
from far_ho_tf.hypergradients.interfaces import Room
from far_ho_tf.hypergradients.program import Buffers, Inputs, Outputs, Settings
from far_ho_tf.hypergradients.result import HyperGradientResult
from far_ho_tf.hypergradients.starting import checked_start, given_start
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.state import Position, State


@dataclasses.dataclass(frozen=True)
class HyperGradient(abc.ABC):
    """A way to compute the hypergradient of a `BilevelProblem`.

    Args:
        jit_compile: `True` compiles the loops with XLA, `False` runs them as
            plain graphs, `"auto"` chooses and says what it chose in `result.status`
            (see docs/decisions/0043-auto-compiler.md). It compiles nothing for the few
            steps of a short `HyperOptimizer.fit`.
    """

    jit_compile: bool | str = "auto"

    # Whether the mode carries tangents from run to run.
    has_tangents = False
    # Whether its loops are compiled as a whole.
    compiles_loops = True
    # Whether several replicas share each batch.
    splits_batches = True

    def __post_init__(self) -> None:
        if not isinstance(self.jit_compile, bool) and self.jit_compile != "auto":
            raise ValueError(
                "`jit_compile` must be True, False or 'auto'. Received: "
                f"jit_compile={self.jit_compile!r}"
            )

    @abc.abstractmethod
    def differentiate(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> Outputs:
        """Builds the graph of one hyper-iteration.

        Args:
            problem: A `PureProblem`.
            settings: `Settings`.
            inputs: `Inputs` of symbolic tensors.

        Returns:
            `Outputs`.
        """

    def buffers(self, problem: PureProblem, num_steps: int) -> Room:
        """What a program for so many steps, and for fewer, holds.

        Args:
            problem: A `PureProblem`.
            num_steps: Python integer T.

        Returns:
            `Buffers`, or another hashable tuple with its attributes.
        """
        del problem
        return Buffers(capacity(num_steps))

    def itinerary(self, problem: PureProblem, num_steps: int) -> Structure:
        """What a program must be told of the steps of a run: a structure of tensors."""
        del problem, num_steps
        return ()

    def check(self, problem: PureProblem) -> None:
        """Refuses a problem that the mode cannot differentiate."""
        del problem

    def check_tangents(self, problem: PureProblem, tangents: State | None) -> None:
        """Refuses tangents that a run cannot begin with."""
        del problem
        require(
            tangents is None,
            "Tangents are carried on in forward mode only. Remedy: "
            "start=result.end._replace(tangents=None), which counts from there on.",
            mode=self,
        )

    def describe(self, problem: PureProblem, num_steps: int) -> dict[str, Any]:
        """What the mode adds to the `Status` of such runs: a mapping, by its fields."""
        del problem, num_steps
        return {}

    def verify(self, checks: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        """Raises if what a run checked does not hold; see `Outputs.checks`.

        Returns:
            What it adds to the `Status` of this run: a mapping, by its fields.
        """
        del checks
        return {}

    def keeps_tangents(self, problem: PureProblem, asked: bool | None) -> bool:
        """Whether a run returns its final tangents.

        Args:
            problem: A `PureProblem`.
            asked: `True`, `False`, or `None` for the mode's own choice.
        """
        del problem, asked
        return False

    def held(self, problem: PureProblem, num_steps: int) -> int:
        """The bytes, at least, that a run of so many steps holds for all of them.

        Args:
            problem: A `PureProblem`.
            num_steps: Python integer T.
        """
        return capacity(num_steps) * problem.dtype.size  # The inner values.

    @outside_scope
    @did_you_mean(**KERAS_NAMES)
    def compute(
        self,
        problem: BilevelProblem,
        num_steps: int,
        start: Position | None = None,
        *before: Any,
        keep_tangents: bool | None = None,
        episodes: Episodes | None = None,
        strategy: tf.distribute.Strategy | None = None,
        write_back: bool = True,
        hyper_iterations: int | None = None,
        state: State | None = None,
        tangents: State | None = None,
        first_step: int | None = None,
        outer_step: int | None = None,
    ) -> HyperGradientResult:
        """Trains for `num_steps` and differentiates through the training.

        Afterwards the model's variables hold s_T. The first call for a problem traces
        and compiles, which takes seconds; later calls run. So do calls with another
        `num_steps` of the same size: up to 8, 9 to 16, 17 to 32 and so on, in finer
        steps where the states take more than 64 MB. An equal problem made anew is
        traced again, but not compiled; nor, by `far.compile_cache`, is that of another
        process.

        Args:
            problem: A `BilevelProblem`.
            num_steps: Positive integer T.
            start: A `far.Position` to go on from, such as the `end` of a result;
                `None` for Φ_0. Of `ForwardHG` it has tangents, so that the
                hypergradient is that of the whole run. Other modes refuse
                tangents: `start=result.end._replace(tangents=None)`. Without
                them the hypergradient counts from there on.
            keep_tangents: In forward mode whether the result has tangents;
                `None` keeps them unless they are propagated in chunks.
            episodes: List of integers, where a data callable of the problem takes
                (step, episode): the run is made for each, and the results are
                averaged. They are vectorized, but under XLA, where they go one after
                another.
            strategy: A `tf.distribute.Strategy`, over whose replicas each batch is
                split; `None` for one device. See `HyperOptimizer`.
            write_back: Whether the model's variables are to hold s_T afterwards.
            hyper_iterations: How many such calls there will be, this one among them,
                so that `jit_compile="auto"` compiles nothing for a few; `None`: many.
            *before, state, tangents, first_step, outer_step: What `start` holds, as
                this method took it before: they warn.

        Returns:
            A `HyperGradientResult`.

        Raises:
            ValueError: If an argument is wrong, nothing depends on a
                hyperparameter, or the problem holds an operation whose
                derivatives are not right.
            NonFiniteError: If NaN or infinity appears.

        Example, half of a run and the rest:

        >>> import far_ho_tf as far, keras
        >>> w = keras.Variable(1.0, name="w")
        >>> rate = far.Hyperparameter(0.25, name="rate")
        >>> problem = far.BilevelProblem(
        ...     inner_objective=lambda: w * w,
        ...     outer_objective=lambda: 1.0 * w,
        ...     variables=[w],
        ...     dynamics=far.GradientDescent(rate),
        ...     hyperparameters=[rate],
        ... )
        >>> half = far.ForwardHG().compute(problem, num_steps=1)
        >>> whole = far.ForwardHG().compute(problem, num_steps=1, start=half.end)
        >>> float(whole.hypergradients[0])  # d(1 − 2η)²/dη = −4 (1 − 2η).
        -2.0
        """
        if tf.inside_function():
            raise ValueError(
                "`compute` cannot be called inside a tf.function: it makes its own. "
                f"Received a call inside: {tf.compat.v1.get_default_graph().name}"
            )
        require(
            isinstance(problem, BilevelProblem),
            "`problem` must be a BilevelProblem.",
            problem=problem,
        )
        start = given_start(start, before, (state, tangents, first_step, outer_step))
        pure = problem.pure
        with pure.explained():
            start = checked_start(self, pure, start)
            num_steps = check_steps(num_steps, start.first_step)
            several = num_replicas(check_strategy(strategy)) > 1
            check_episodes(pure, start.state, episodes, several)
            if hyper_iterations is not None:
                hyper_iterations = check_count("hyper_iterations", hyper_iterations)
            execution = execution_of(self, pure, strategy)
        result = execution.run(
            num_steps, start, keep_tangents, episodes, hyper_iterations, strategy
        )
        if write_back:
            pure.write_back(result.state)  # pyright: ignore[reportArgumentType]
        return result
