"""What all gradient modes share: running, checking and reporting."""

import abc
import contextlib
import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from far_ho_tf.checks import check_count, require
from far_ho_tf.distribution import check_strategy, device, num_replicas
from far_ho_tf.hypergradients.division import check_division
from far_ho_tf.hypergradients.nonfinite import raise_non_finite
from far_ho_tf.hypergradients.program import Program
from far_ho_tf.hypergradients.tangents import check_tangents
from far_ho_tf.problem import BilevelProblem
from far_ho_tf.state import State
from far_ho_tf.variables import assign, read


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
    """

    compiler: str
    reason: str = ""
    finite: bool = True
    truncated: int | None = None
    kept_states: int | None = None
    buffer_bits: float | None = None


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
    """

    outer_value: tf.Tensor
    hypergradients: list
    inner_values: tf.Tensor
    choices: dict
    state: State
    status: Status
    tangents: State | None = None


def average(results):
    """The mean of several problems' results that share hyperparameters.

    Args:
        results: List of `HyperGradientResult`s.

    Returns:
        A `HyperGradientResult` whose inner values are stacked to shape
        (problems, num_steps) and whose choices, state, status and tangents are
        lists; the result itself where there is one.
    """
    if len(results) == 1:
        return results[0]
    gradients = zip(*(result.hypergradients for result in results), strict=True)
    return HyperGradientResult(
        outer_value=tf.reduce_mean([result.outer_value for result in results]),
        hypergradients=[tf.reduce_mean(tf.stack(g), axis=0) for g in gradients],
        inner_values=tf.stack([result.inner_values for result in results]),
        choices=[result.choices for result in results],
        state=[result.state for result in results],
        status=[result.status for result in results],
        tangents=[result.tangents for result in results],
    )


class Settings(NamedTuple):
    """What is fixed while a program is traced.

    Attributes:
        num_steps: Python integer T.
        restart: Whether to start from Φ_0 or from `Inputs.start`.
        keep_tangents: Whether the final tangents are asked for.
        strategy: A `tf.distribute.Strategy` or `None`.
        search: Whether to stop each loop at the first state, tangent or
            cotangent that is not finite.
        compiled: Whether XLA is to compile what the mode compiles by itself.
    """

    num_steps: int
    restart: bool
    keep_tangents: bool
    strategy: Any = None
    search: bool = False
    compiled: bool = False


class Inputs(NamedTuple):
    """What a compiled program takes.

    Attributes:
        hyperparameters: List of tensors λ.
        start: The `State` to start from.
        tangents: In forward mode the tangents to start from; `None` for zero.
        inner, outer: What the data sources prepared.
        first_step, outer_step: int32 scalars.
    """

    hyperparameters: list
    start: State
    tangents: State | None
    inner: Any
    outer: Any
    first_step: tf.Tensor
    outer_step: tf.Tensor


class Outputs(NamedTuple):
    """What a compiled program returns.

    Attributes:
        outer_value, hypergradients, inner_values, choices, state, tangents: As
            in `HyperGradientResult`.
        finite: Scalar boolean: are all of them?
        steps: int32 scalar: how many steps the training made. It stops early
            only in a search for the first non-finite value.
        derivative_step: int32 scalar: the step in which such a search found
            the derivative of the state not to be finite; −1 for the initial
            values, num_steps for the outer objective.
        checks: Mapping from names to scalars: what the mode verifies.
    """

    outer_value: tf.Tensor
    hypergradients: list
    inner_values: tf.Tensor
    choices: dict
    state: State
    tangents: State | None
    finite: tf.Tensor
    steps: tf.Tensor
    derivative_step: tf.Tensor
    checks: dict = {}


@dataclasses.dataclass(frozen=True)
class HyperGradient(abc.ABC):
    """A way to compute the hypergradient of a `BilevelProblem`.

    Args:
        jit_compile: `True` compiles the loops with XLA, `False` runs them as
            plain graphs, `"auto"` chooses (see BUILD_NOTES.md) and says what
            it chose in `result.status`.
    """

    jit_compile: bool | str = "auto"

    # Whether the mode carries tangents from run to run.
    has_tangents = False
    # Whether its loops are compiled as a whole.
    compiles_loops = True

    def __post_init__(self):
        if not isinstance(self.jit_compile, bool) and self.jit_compile != "auto":
            raise ValueError(
                "`jit_compile` must be True, False or 'auto'. Received: "
                f"jit_compile={self.jit_compile!r}"
            )

    @abc.abstractmethod
    def differentiate(self, problem, settings, inputs):
        """Builds the graph of one hyper-iteration.

        Args:
            problem: A `BilevelProblem`.
            settings: `Settings`.
            inputs: `Inputs` of symbolic tensors.

        Returns:
            `Outputs`.
        """

    def check(self, problem):
        """Refuses a problem that the mode cannot differentiate."""
        del problem

    def verify(self, checks):
        """Raises if what a run checked does not hold; see `Outputs.checks`."""
        del checks

    def describe(self, problem, num_steps, checks):
        """What the mode adds to the `Status`, as a mapping."""
        del problem, num_steps, checks
        return {}

    def keeps_tangents(self, problem, asked):
        """Whether a run returns its final tangents.

        Args:
            problem: A `BilevelProblem`.
            asked: `True`, `False`, or `None` for the mode's own choice.
        """
        del problem, asked
        return False

    def compute(
        self,
        problem,
        num_steps,
        state=None,
        first_step=0,
        outer_step=0,
        tangents=None,
        keep_tangents=None,
        strategy=None,
    ):
        """Trains for `num_steps` and differentiates through the training.

        Afterwards the model's variables hold s_T. The first call for a
        problem and a number of steps traces and compiles; later calls run.

        Args:
            problem: A `BilevelProblem`.
            num_steps: Positive integer T.
            state: A `State` to start from; `None` for Φ_0.
            first_step: Integer, the number of the first step, by which data
                and schedules count.
            outer_step: Integer, the step of the outer data.
            tangents: In forward mode the `tangents` of the result that `state`
                comes from, so that the hypergradient is that of the whole
                run; `None` counts from `state` on.
            keep_tangents: In forward mode whether the result has tangents;
                `None` keeps them unless they are propagated in chunks.
            strategy: A `tf.distribute.Strategy`, over whose replicas each batch is
                split; `None` for one device. See `HyperOptimizer`.

        Returns:
            A `HyperGradientResult`.

        Raises:
            ValueError: If an argument is wrong, nothing depends on a
                hyperparameter, or the problem holds an operation whose
                derivatives are not right.
            NonFiniteError: If NaN or infinity appears.
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
        require(
            state is None or isinstance(state, State),
            "`state` must be None or the `state` of a result.",
            state=state,
        )
        self.check(problem)
        if state is not None:
            problem.check_state(state)
        require(
            tangents is None or (self.has_tangents and state is not None),
            "`tangents` go with a `state`, in forward mode only.",
            mode=self,
            state=state,
        )
        if tangents is not None:
            check_tangents(problem, tangents)
        num_steps = check_count("num_steps", num_steps)
        first_step = check_count("first_step", first_step, low=0)
        outer_step = check_count("outer_step", outer_step, low=0)
        problem.dynamics.check_last(first_step + num_steps - 1)
        settings = Settings(
            num_steps,
            state is None,
            self.keeps_tangents(problem, keep_tangents),
            check_strategy(strategy),
        )
        inner = problem.inner_data.prepare(first_step, num_steps)
        outer = problem.outer_data.prepare(outer_step, 1)
        with tf.init_scope():  # Unseen by tapes of the caller's own.
            values = read(problem.hyperparameters)
        inputs = Inputs(
            hyperparameters=values,
            start=problem.start if state is None else state,
            tangents=tangents,
            inner=inner,
            outer=outer,
            first_step=tf.constant(first_step, tf.int32),
            outer_step=tf.constant(outer_step, tf.int32),
        )
        fixed_shapes = problem.inner_data.has_fixed_shapes(
            inputs.inner
        ) and problem.outer_data.has_fixed_shapes(inputs.outer)
        if num_replicas(strategy) > 1:
            problem.cached(
                ("division", strategy),
                lambda: check_division(problem, inputs, strategy),
            )
        program = problem.cached(
            (self, settings, tangents is None, fixed_shapes),
            lambda: Program(
                self.jit_compile,
                problem.report,
                fixed_shapes,
                lambda inputs, search, compiled: self.differentiate(
                    problem,
                    settings._replace(search=search, compiled=compiled),
                    inputs,
                ),
                self.compiles_loops and num_replicas(strategy) == 1,
            ),
        )
        with _preserved(problem), device(strategy):
            outputs = program(inputs)
            if not bool(outputs.finite):
                found = program.search(inputs)
                if bool(found.finite):  # Then it is the mode's own.
                    self.verify(outputs.checks)
                raise_non_finite(problem, num_steps, found, self.has_tangents)
            self.verify(outputs.checks)
        problem.write_back(outputs.state)
        problem.dynamics.review(outputs.choices)
        goes_on = state is not None and tangents is None
        facts = {"truncated": num_steps if goes_on else None}
        facts |= self.describe(problem, num_steps, outputs.checks)
        return HyperGradientResult(
            outer_value=outputs.outer_value,
            hypergradients=outputs.hypergradients,
            inner_values=outputs.inner_values,
            choices=outputs.choices,
            state=outputs.state,
            status=Status(program.compiler, program.reason, **facts),
            tangents=outputs.tangents,
        )


@contextlib.contextmanager
def _preserved(problem):
    """Puts bare tf.Variables, which a run assigns, back afterwards."""
    variables = problem.variables + problem.extra_variables + problem.hyperparameters
    bare = [v for v in variables if isinstance(v, tf.Variable)]
    values = read(bare)
    try:
        yield
    finally:
        assign(bare, values)
