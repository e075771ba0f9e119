"""Forward mode: tangents that travel with the training run."""

import dataclasses

import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.hypergradients.base import HyperGradient
from far_ho_tf.hypergradients.forward.run import ForwardRun, spread
from far_ho_tf.hypergradients.forward.tangents import (
    Directions,
    hidden_zero,
)
from far_ho_tf.hypergradients.program import Inputs, Outputs, Settings
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.derivatives import floating
from far_ho_tf.variables.state import State, layout


@dataclasses.dataclass(frozen=True)
class ForwardHG(HyperGradient):
    """Forward mode (tangents of the state in every hyperparameter).

    Beside the state s_t runs Z_t = ds_t/dλ, by Z_{t+1} = A_t Z_t + B_t, where
    A_t and B_t are the Jacobians of step t in the state and in λ; in the end
    the hypergradient is ∇E(s_T) Z_T + ∂E/∂λ. With m the number of elements of
    all hyperparameters, time grows with m, and memory is 1 + m copies of the
    state for any number of steps. For few hyperparameters, long runs, and
    real-time updates (`HyperOptimizer.run(mode="online")`).

    Tangents are propagated together where TensorFlow can vectorize a step. What it
    cannot (loops of recurrent layers, `tf.cond`) they pass one by one:
    `result.status.one_by_one` and a warning tell.

    Args:
        jit_compile: See `HyperGradient`.
        chunk_size: Integer, the largest number of tangents that are propagated
            at once; `None` for all. With more elements than that, the run is
            repeated for each chunk, so that they cost time and not memory.
        spread_tangents: Under a strategy with several replicas, whether each of them
            carries a part of the tangents through the whole run, in the place of a
            share of each batch: for many hyperparameters and small batches. Without
            `chunk_size`.

    Example, with w_2 = 2 (1 − 2η)² and so d½w_2²/dη = w_2 · (−8) (1 − 2η):

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(2.0, name="w")
    >>> rate = far.Hyperparameter(0.25, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: w * w,
    ...     outer_objective=lambda: 0.5 * w * w,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ForwardHG().compute(problem, num_steps=2)
    >>> float(w), float(result.hypergradients[0])
    (0.5, -2.0)

    Source: Franceschi et al. 2017, algorithm 2 (Forward-HG).
    """

    chunk_size: int | None = None
    spread_tangents: bool = False

    has_tangents = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)
        require(
            not (self.spread_tangents and self.chunk_size),
            "`spread_tangents` gives each replica one chunk: leave out `chunk_size`.",
            chunk_size=self.chunk_size,
        )

    @property
    def splits_batches(self) -> bool:
        return not self.spread_tangents

    def check_tangents(self, problem: PureProblem, tangents: State | None) -> None:
        if tangents is None:
            return
        start = problem.start
        size = Directions(problem.hyperparameters).size
        slots = problem.dynamics.initial_slots(start.variables)
        expected = tf.nest.map_structure(
            lambda t: tf.TensorSpec((size, *t.shape), t.dtype),
            State(start.variables, slots, floating(start.extra)),
        )
        require(
            isinstance(tangents, State) and layout(tangents) == layout(expected),
            "`tangents` must be those of a result of this problem.",
            tangents=layout(tangents) if isinstance(tangents, State) else tangents,
            expected=layout(expected),
        )

    def keeps_tangents(self, problem: PureProblem, asked: bool | None) -> bool:
        size = Directions(problem.hyperparameters).size
        return self._chunks(size)[0] == 1 if asked is None else bool(asked)

    def differentiate(
        self, problem: PureProblem, settings: Settings, inputs: Inputs
    ) -> Outputs:
        directions = Directions(inputs.hyperparameters)
        if self.spread_tangents and settings.strategy is not None:
            outcome = spread(problem, settings, inputs, directions)
        else:
            number, size = self._chunks(directions.size)
            run = ForwardRun(problem, settings, inputs, directions, size)
            only = hidden_zero(inputs.first_step)
            outcome = run.chunk(only) if number == 1 else run.chunks(number)
        tangents = tf.nest.map_structure(
            lambda rows: rows[: directions.size], outcome.tangents
        )
        hypergradients = directions.split(outcome.hypergradients[: directions.size])
        return Outputs(
            outcome.outer_value,
            hypergradients,
            *outcome.logs,
            outcome.state,
            tangents=tangents if settings.keep_tangents else None,
            finite=outcome.finite,
        )

    def _chunks(self, size: int) -> tuple[int, int]:
        """The number of chunks for `size` tangents, and the length of each."""
        number = -(-size // (self.chunk_size or size))
        return number, -(-size // number)
