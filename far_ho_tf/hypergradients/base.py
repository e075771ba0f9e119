"""What all gradient modes share: running, checking and reporting."""

import abc
import dataclasses
import functools
import time

import tensorflow as tf

from far_ho_tf.checks import (
    KERAS_NAMES,
    LAST_STEP,
    check_count,
    check_steps,
    did_you_mean,
    require,
)
from far_ho_tf.distribution.mean_check import Division
from far_ho_tf.distribution.strategies import (
    check_strategy,
    device,
    num_replicas,
    outside_scope,
)
from far_ho_tf.distribution.worker_agreement import check_agreement
from far_ho_tf.graphs.buffers import capacity, free_memory, text_of_bytes
from far_ho_tf.graphs.failures import NOT_EXPLAINED
from far_ho_tf.graphs.functions import TRACING
from far_ho_tf.hypergradients.compiler import (
    Buffers,
    Inputs,
    Program,
    Settings,
    obstacle,
)
from far_ho_tf.hypergradients.episodes import check_episodes, over_episodes
from far_ho_tf.hypergradients.forward.tangents import check_tangents
from far_ho_tf.hypergradients.nonfinite import raise_non_finite
from far_ho_tf.hypergradients.result import HyperGradientResult, Status
from far_ho_tf.patches.kernels import beside_gpu
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.variables.identity import preserved, read
from far_ho_tf.variables.numbers import scalar
from far_ho_tf.variables.state import State

# Bytes from which what a run holds is compared with what is free, and the part of this
# that it may be: a fifth more was measured.
_LARGE, _PART_OF_MEMORY = 2**30, 0.8
# Seconds for which a run that failed as a graph is made step by step.
_PATIENCE = 20.0


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

    def buffers(self, problem, num_steps):
        """What a program for so many steps, and for fewer, holds.

        Args:
            problem: A `BilevelProblem`.
            num_steps: Python integer T.

        Returns:
            `Buffers`, or another hashable tuple with its attributes.
        """
        del problem
        return Buffers(capacity(num_steps))

    def schedule(self, problem, num_steps):
        """What a program must be told of the steps of a run: a structure of tensors."""
        del problem, num_steps
        return ()

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

    def held(self, problem, num_steps):
        """The bytes, at least, that a run of so many steps holds for all of them.

        Args:
            problem: A `BilevelProblem`.
            num_steps: Python integer T.
        """
        return capacity(num_steps) * problem.dtype.size  # The inner values.

    @outside_scope
    @did_you_mean(**KERAS_NAMES)
    def compute(
        self,
        problem,
        num_steps,
        state=None,
        first_step=0,
        outer_step=0,
        tangents=None,
        keep_tangents=None,
        episodes=None,
        strategy=None,
        write_back=True,
        hyper_iterations=None,
    ):
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
            state: A `State` to start from; `None` for Φ_0.
            first_step: Integer, the number of the first step, by which data
                and schedules count.
            outer_step: Integer, the step of the outer data.
            tangents: In forward mode the `tangents` of the result that `state`
                comes from, so that the hypergradient is that of the whole
                run; `None` counts from `state` on.
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
        with TRACING, problem.explained():
            self._check_arguments(problem, state, tangents, episodes, strategy)
            first_step = check_count("first_step", first_step, 0, LAST_STEP)
            outer_step = check_count("outer_step", outer_step, 0, LAST_STEP)
            num_steps = check_steps(num_steps, first_step)
            self._check_memory(problem, num_steps)
            problem.dynamics.check_last(first_step + num_steps - 1)
            inputs = self._inputs(
                problem, num_steps, state, first_step, outer_step, tangents, episodes
            )
            several = num_replicas(strategy) > 1
            check_agreement(problem, strategy)
            division = None
            if several and self.splits_batches:
                division = problem.cached(
                    ("division", strategy), lambda: Division(problem, strategy)
                )
                with preserved(problem.bare_variables):
                    division.before(inputs, num_steps)
            settings = Settings(
                self.buffers(problem, num_steps),
                state is None,
                episodes is None and self.keeps_tangents(problem, keep_tangents),
                strategy if several else None,
            )
            few = None
            if hyper_iterations is not None:
                runs = check_count("hyper_iterations", hyper_iterations)
                few = runs * num_steps * len(episodes or [0])
            program = self._program(problem, settings, inputs, few)
        with device(strategy), problem.explained():
            outputs = self._run(problem, num_steps, program, inputs, state is None)
        if division is not None:
            with preserved(problem.bare_variables), problem.explained():
                division.after(inputs, num_steps, outputs.state)
        if write_back:
            problem.write_back(outputs.state)
        problem.dynamics.review(outputs.choices)
        goes_on = state is not None and tangents is None
        facts = {"truncated": num_steps if goes_on else None}
        facts["one_by_one"] = program.one_by_one
        facts |= self.describe(problem, num_steps, outputs.checks)
        return HyperGradientResult(
            outer_value=outputs.outer_value,
            hypergradients=outputs.hypergradients,
            inner_values=outputs.inner_values,
            choices=outputs.choices,
            state=outputs.state,
            status=Status(program.compiler, program.reason, **facts),
            tangents=outputs.tangents,
            outer_values=outputs.outer_values,
        )

    def _run(self, problem, num_steps, program, inputs, restart):
        """The program's `Outputs`, finite and verified."""
        with preserved(problem.bare_variables):
            try:
                outputs = _cut(program(inputs), num_steps)
            except tf.errors.OpError as error:
                problem.inner_data.check_steps(int(inputs.first_step), num_steps)
                if not isinstance(error, NOT_EXPLAINED):
                    self._fail_by_itself(problem, inputs, restart)
                raise
            if not tf.reduce_all(outputs.finite):
                raise_non_finite(
                    *(problem, num_steps, inputs, restart, program.compiler),
                    *(outputs, self.has_tangents),
                    verify=lambda: self.verify(outputs.checks),
                )
            self.verify(outputs.checks)
        return outputs

    def _fail_by_itself(self, problem, inputs, restart):
        """Raises what fails in a graph, which tells no line, where it is called.

        For some seconds: it may be in a later step.
        """
        if inputs.episode is not None:
            return
        values, until = list(inputs.hyperparameters), time.monotonic() + _PATIENCE
        state = self._start(problem, inputs, restart)
        for step in range(int(inputs.num_steps)):
            number = inputs.first_step + step
            data = problem.inner_data.batch(inputs.inner, number)
            state, *_ = problem.step(state, values, number, data)
            if time.monotonic() > until:
                return
        data = problem.outer_data.batch(inputs.outer, inputs.outer_step)
        problem.outer_value(state, values, data)

    def _start(self, problem, inputs, restart):
        """The state that a run starts from."""
        if not restart:
            return inputs.start
        values = list(inputs.hyperparameters)
        return problem.initial_state(inputs.start, values, inputs.outer_step)

    def _check_memory(self, problem, num_steps):
        """Refuses a run for which a machine has too little, which would end it."""
        held = self.held(problem, num_steps)
        if held < _LARGE or beside_gpu():
            return
        free = free_memory()
        require(
            free is None or held <= _PART_OF_MEMORY * free,
            f"{type(self).__name__} holds at least {text_of_bytes(held)} for so many "
            f"steps, of {text_of_bytes(free or 0)} that are free. Remedy: "
            'far.ReverseHG(checkpointing="sqrt"), truncation=, or far.ForwardHG(); '
            "far.plan tells what each takes.",
            num_steps=num_steps,
        )

    def _check_arguments(self, problem, state, tangents, episodes, strategy):
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
        several = num_replicas(check_strategy(strategy)) > 1
        require(
            self.compiles_loops or not (several or episodes is not None),
            f"{type(self).__name__} runs on one replica, and without episodes. "
            'Alternative: far.ReverseHG(checkpointing="sqrt").',
            strategy=strategy,
            episodes=episodes,
        )
        check_episodes(problem, state, episodes, several)

    def _program(self, problem, settings, inputs, num_steps):
        """The compiled program, made at its first use.

        Args:
            problem, settings, inputs: As elsewhere.
            num_steps: The inner steps of all runs that are to come, or `None`.
        """
        fixed_shapes = problem.inner_data.has_fixed_shapes(
            inputs.inner
        ) and problem.outer_data.has_fixed_shapes(inputs.outer)

        def build(inputs, compiled):
            now = settings._replace(compiled=compiled)
            if inputs.episode is None:
                return self.differentiate(problem, now, inputs)
            return over_episodes(self.differentiate, problem, now, inputs, fixed_shapes)

        key = self, settings, inputs.tangents is None, fixed_shapes
        key = *key, inputs.episode is None

        def make():
            whole = self.compiles_loops and settings.strategy is None
            return Program(
                *(self.jit_compile, problem.report, fixed_shapes, build, whole),
                calls_parts=whole and inputs.episode is None,
                strategy=settings.strategy,
                num_steps=num_steps,
            )

        is_short = False
        if num_steps is not None:
            obstacles = self.jit_compile, problem.report, fixed_shapes
            is_short = obstacle(*obstacles, num_steps) != obstacle(*obstacles)
        return problem.cached((*key, is_short), make)

    def _inputs(
        self, problem, num_steps, state, first_step, outer_step, tangents, episodes
    ):
        with tf.init_scope():  # Unseen by tapes of the caller's own.
            values = read(problem.hyperparameters)
        return Inputs(
            hyperparameters=values,
            start=problem.start if state is None else state,
            tangents=tangents,
            inner=problem.inner_data.prepare(first_step, num_steps),
            outer=problem.outer_data.prepare(outer_step, 1),
            first_step=scalar(first_step),
            outer_step=scalar(outer_step),
            num_steps=scalar(num_steps),
            schedule=self.schedule(problem, num_steps),
            episode=None if episodes is None else tf.constant(episodes, tf.int32),
        )


def _cut(outputs, num_steps):
    """`Outputs` with as many rows of the steps as there were."""
    axis = 1 if outputs.outer_values is not None else 0

    def cut(rows):
        if rows.shape[axis] == num_steps:
            return rows
        begin, size = _extent(num_steps, axis, rows.shape.rank)
        return tf.raw_ops.Slice(input=rows, begin=begin, size=size)

    return outputs._replace(
        inner_values=cut(outputs.inner_values),
        choices={name: cut(rows) for name, rows in outputs.choices.items()},
    )


@functools.lru_cache(maxsize=1024)
def _extent(count, axis, rank):
    """Where a slice begins, and its size, as tensors."""
    size = [-1] * rank
    size[axis] = count
    with tf.init_scope():
        return tf.zeros(rank, tf.int32), tf.constant(size)
