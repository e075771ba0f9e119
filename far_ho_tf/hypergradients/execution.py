"""A gradient mode on a problem: programs, and the runs that they make."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from far_ho_tf.checks import check_steps, require
from far_ho_tf.distribution.mean_check import MeanCheck
from far_ho_tf.distribution.strategies import check_strategy, device, num_replicas
from far_ho_tf.distribution.worker_agreement import check_agreement
from far_ho_tf.graphs.buffers import free_memory, text_of_bytes
from far_ho_tf.graphs.failures import NOT_EXPLAINED
from far_ho_tf.graphs.functions import TRACING
from far_ho_tf.hypergradients.compiler import Program, obstacle
from far_ho_tf.hypergradients.episodes import Episodes, over_episodes
from far_ho_tf.hypergradients.interfaces import Mode
from far_ho_tf.hypergradients.nonfinite import raise_non_finite
from far_ho_tf.hypergradients.program import Inputs, Outputs, Prepared, Settings, cut_to
from far_ho_tf.hypergradients.result import HyperGradientResult, Status
from far_ho_tf.hyperparameters.hyperparameter import names_of
from far_ho_tf.patches.kernels import beside_gpu
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import preserved, read
from far_ho_tf.variables.numbers import scalar
from far_ho_tf.variables.state import Position

# Bytes from which what a run holds is compared with what is free, and the part of this
# that it may be: a fifth more was measured.
_LARGE, _PART_OF_MEMORY = 2**30, 0.8
# Seconds for which a run that failed as a graph is made step by step.
_PATIENCE = 20.0
# Numbers of steps of which it is remembered what they need.
_LENGTHS = 16


def execution_of(
    mode: Mode, problem: PureProblem, strategy: tf.distribute.Strategy | None = None
) -> "Execution":
    """The `Execution` of a mode on a problem, made and checked at the first call.

    Args:
        mode: A `HyperGradient`.
        problem: A `PureProblem`, with which it is kept.
        strategy: A `tf.distribute.Strategy` or `None`.

    Raises:
        ValueError: If they do not go together.
    """
    several = num_replicas(check_strategy(strategy)) > 1
    key = mode, strategy if several else None  # One serves all single devices.
    with TRACING:  # Of threads that ask at once, one makes it.
        if key not in problem.executions:
            mode.check(problem)
            require(
                mode.compiles_loops or not several,
                f"{type(mode).__name__} runs on one replica. "
                'Alternative: far.ReverseHG(checkpointing="sqrt").',
                strategy=strategy,
            )
            guards = []
            known = [other for _, other in problem.executions]
            if several and strategy not in known:  # Once, whatever the mode.
                check_agreement(problem, strategy)
            if several and mode.splits_batches:
                guards.append(MeanCheck(problem, strategy))
            problem.executions[key] = Execution(mode, problem, key[1], guards)
        return problem.executions[key]


class Execution:
    """What all runs of a gradient mode on a problem share, and each of them.

    Args:
        mode: A `HyperGradient`.
        problem: A `PureProblem`.
        strategy: The `tf.distribute.Strategy` over whose replicas each batch is split;
            `None` for one device.
        guards: List of objects that look at each run: `before(inputs, num_steps)` and
            `after(inputs, num_steps, state)`.
    """

    def __init__(
        self,
        mode: Mode,
        problem: PureProblem,
        strategy: tf.distribute.Strategy | None = None,
        guards: Sequence[MeanCheck] = (),
    ) -> None:
        self._mode = mode
        self._problem = problem
        self._strategy = strategy
        self._guards = guards
        self._programs: dict[Any, Program] = {}
        self._largest_step = -1
        self._names = tuple(names_of(problem.hyperparameters))
        self._needs = functools.lru_cache(_LENGTHS)(self._needs_of)
        keeps = functools.partial(mode.keeps_tangents, problem)
        self._keeps_tangents = functools.lru_cache(_LENGTHS)(keeps)
        self._is_short = functools.lru_cache(_LENGTHS)(self._is_short_for)

    def run(
        self,
        num_steps: int,
        start: Position,
        keep_tangents: bool | None = None,
        episodes: Episodes | None = None,
        hyper_iterations: int | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> HyperGradientResult:
        """Trains and differentiates; see `HyperGradient.compute`.

        Args:
            num_steps: Integer T.
            start: A `Position`.
            keep_tangents, episodes, hyper_iterations: As there.
            strategy: The `tf.distribute.Strategy` on whose device it runs, or `None`.

        Returns:
            A `HyperGradientResult`. The model's variables are as they were.
        """
        problem = self._problem
        with problem.explained(), preserved(problem.bare_variables):
            with TRACING:
                self._check_last(start.first_step, num_steps)
                self._check_memory(self._needs(num_steps).held, num_steps)
                if problem.dynamics.checks_values:
                    problem.dynamics.check_values()
                inputs = self._inputs(num_steps, start, episodes)
                for guard in self._guards:
                    guard.before(inputs, num_steps)
                keeps = episodes is None and self._keeps_tangents(keep_tangents)
                program = self._program(
                    num_steps,
                    inputs,
                    restart=start.state is None,
                    keep_tangents=keeps,
                    hyper_iterations=hyper_iterations,
                )
            with device(strategy):
                outputs, facts = self._outputs(num_steps, start, program, inputs)
            for guard in self._guards:
                guard.after(inputs, num_steps, outputs.state)
        if outputs.choices:
            problem.dynamics.review(outputs.choices)
        return self._result(num_steps, start, program, outputs, facts)

    def _check_last(self, first_step: int, num_steps: int) -> None:
        """Refuses a schedule that ends before, and steps beyond int32."""
        step = first_step + num_steps - 1
        if step > self._largest_step:
            check_steps(num_steps, first_step)
            self._problem.dynamics.check_last(step)
            self._largest_step = step

    def _needs_of(self, num_steps: int) -> Prepared:
        """The `Prepared` of so many steps.

        Raises:
            ValueError: If a machine has too little memory, which would end the run.
        """
        mode, problem = self._mode, self._problem
        held = mode.held(problem, num_steps)
        self._check_memory(held, num_steps)
        return Prepared(
            mode.buffers(problem, num_steps),
            mode.itinerary(problem, num_steps),
            mode.describe(problem, num_steps),
            held,
        )

    def _check_memory(self, held: int, num_steps: int) -> None:
        if held < _LARGE or beside_gpu():
            return
        free = free_memory()
        require(
            free is None or held <= _PART_OF_MEMORY * free,
            f"{type(self._mode).__name__} holds at least {text_of_bytes(held)} for so "
            f"many steps, of {text_of_bytes(free or 0)} that are free. Remedy: "
            'far.ReverseHG(checkpointing="sqrt"), truncation=, or far.ForwardHG(); '
            "far.plan tells what each takes.",
            num_steps=num_steps,
        )

    def _inputs(
        self, num_steps: int, start: Position, episodes: Episodes | None
    ) -> Inputs:
        problem = self._problem
        with tf.init_scope():  # Unseen by tapes of the caller's own.
            values = read(problem.hyperparameters)
        return Inputs(
            hyperparameters=values,
            start=problem.start if start.state is None else start.state,
            tangents=start.tangents,
            inner=problem.inner_data.prepare(start.first_step, num_steps),
            outer=problem.outer_data.prepare(start.outer_step, 1),
            first_step=scalar(start.first_step),
            outer_step=scalar(start.outer_step),
            num_steps=scalar(num_steps),
            itinerary=self._needs(num_steps).itinerary,
            episode=None if episodes is None else tf.constant(episodes, tf.int32),
        )

    def _program(
        self,
        num_steps: int,
        inputs: Inputs,
        restart: bool,
        keep_tangents: bool,
        hyper_iterations: int | None,
    ) -> Program:
        """The compiled program, made at its first use."""
        mode, problem = self._mode, self._problem
        fixed_shapes = problem.inner_data.has_fixed_shapes(
            inputs.inner
        ) and problem.outer_data.has_fixed_shapes(inputs.outer)
        steps_to_come = None  # Of all runs.
        if hyper_iterations is not None:
            episodes = 1 if inputs.episode is None else inputs.episode.shape[0]
            steps_to_come = hyper_iterations * num_steps * episodes  # pyright: ignore[reportOperatorIssue]
        buffers = self._needs(num_steps).buffers
        settings = Settings(buffers, restart, keep_tangents, self._strategy)
        has_episodes = inputs.episode is not None
        key = settings, inputs.tangents is None, has_episodes, fixed_shapes
        key = *key, self._is_short(steps_to_come, fixed_shapes)
        if key in self._programs:
            return self._programs[key]

        def build(inputs: Inputs, compiled: bool) -> Outputs:
            now = settings._replace(compiled=compiled)
            if inputs.episode is None:
                return mode.differentiate(problem, now, inputs)
            return over_episodes(mode.differentiate, problem, now, inputs, fixed_shapes)

        require(
            mode.compiles_loops or not has_episodes,
            f"{type(mode).__name__} runs without episodes. "
            'Alternative: far.ReverseHG(checkpointing="sqrt").',
            mode=mode,
        )
        whole = self._compiles_whole()
        self._programs[key] = Program(
            mode.jit_compile,
            problem.report,
            fixed_shapes,
            build,
            whole=whole,
            calls_parts=whole and not has_episodes,
            strategy=self._strategy,
            steps_to_come=steps_to_come,
        )
        return self._programs[key]

    def _compiles_whole(self) -> bool:
        return self._mode.compiles_loops and self._strategy is None

    def _is_short_for(self, steps_to_come: int | None, fixed_shapes: bool) -> bool:
        """Whether so few inner steps are not worth compiling."""
        if steps_to_come is None:
            return False
        arguments = self._mode.jit_compile, self._problem.report, fixed_shapes
        return obstacle(*arguments, steps_to_come) != obstacle(*arguments)

    def _outputs(
        self, num_steps: int, start: Position, program: Program, inputs: Inputs
    ) -> tuple[Outputs, dict[str, Any]]:
        """The program's `Outputs`, finite and verified, and what that adds to facts."""
        mode, problem = self._mode, self._problem
        facts = self._needs(num_steps).facts
        try:
            outputs = cut_to(program(inputs), num_steps)
        except tf.errors.OpError as error:
            problem.inner_data.check_steps(start.first_step, num_steps)
            if not isinstance(error, NOT_EXPLAINED):
                self._fail_by_itself(num_steps, start, inputs)
            raise
        if not outputs.finite.numpy().all():  # tf.reduce_all takes 0.2 ms.
            raise_non_finite(
                problem,
                num_steps,
                inputs,
                outputs,
                restart=start.state is None,
                compiler=program.compiler if self._compiles_whole() else "graph",
                has_tangents=mode.has_tangents,
                first_differentiated=num_steps - (facts.get("truncated") or num_steps),
                verify=lambda: mode.verify(outputs.checks),
            )
        return outputs, mode.verify(outputs.checks) if outputs.checks else {}

    def _fail_by_itself(self, num_steps: int, start: Position, inputs: Inputs) -> None:
        """Raises what fails in a graph, which tells no line, where it is called.

        For some seconds: it may be in a later step.
        """
        if inputs.episode is not None:
            return
        problem, until = self._problem, time.monotonic() + _PATIENCE
        values, state = list(inputs.hyperparameters), inputs.start
        if start.state is None:
            state = problem.initial_state(state, values, inputs.outer_step)
        for step in range(num_steps):
            number = inputs.first_step + step
            data = problem.inner_data.batch(inputs.inner, number)
            state, _ = problem.step(state, values, number, data)
            if time.monotonic() > until:
                return
        data = problem.outer_data.batch(inputs.outer, inputs.outer_step)
        problem.outer_value(state, values, data)

    def _result(
        self,
        num_steps: int,
        start: Position,
        program: Program,
        outputs: Outputs,
        facts: dict[str, Any],
    ) -> HyperGradientResult:
        goes_on = start.state is not None and start.tangents is None
        told = {"truncated": num_steps if goes_on else None}
        facts = told | self._needs(num_steps).facts | facts
        facts["one_by_one"] = program.one_by_one
        end = Position(outputs.state, outputs.tangents, outer_step=start.outer_step)
        end = end._replace(first_step=start.first_step + num_steps)
        return HyperGradientResult(
            outer_value=outputs.outer_value,
            hypergradients=outputs.hypergradients,
            inner_values=outputs.inner_values,
            choices=outputs.choices,
            state=outputs.state,
            status=Status(program.compiler, program.reason, **facts),
            tangents=outputs.tangents,
            outer_values=outputs.outer_values,
            end=None if outputs.outer_values is not None else end,
            names=self._names,
        )
