"""What a gradient mode takes, predicted from traced graphs."""

import math
from typing import NamedTuple

import numpy as np

from far_ho_tf.hypergradients import (
    ForwardHG,
    HyperGradient,
    ReverseHG,
    ReversibleHG,
    costs,
)
from far_ho_tf.hypergradients.compiler import obstacle
from far_ho_tf.hypergradients.forward.costs import of_tangents
from far_ho_tf.hypergradients.forward.tangents import Directions
from far_ho_tf.hypergradients.reverse.binomial import num_recomputed
from far_ho_tf.hypergradients.reverse.costs import of_reverse_step
from far_ho_tf.hypergradients.reversible import fixed_point, trajectory
from far_ho_tf.hypergradients.reversible.costs import of_reversal
from far_ho_tf.problem.pure_problem import PureProblem

# Multiplications of matrix products that take as long as the integers' arithmetic for
# a weight in a step, there and back (docs/decisions/0019-planner.md).
_INTEGERS = 1000


class Option(NamedTuple):
    """A gradient mode with what it is predicted to take.

    Attributes:
        name: String.
        mode: A `HyperGradient`.
        memory: Bytes beyond data and model.
        cost: Time, in training runs.
        exact: Whether it gives the whole hypergradient.
        complete: Whether all was told; else memory and cost are the least that there
            can be, as where a step holds loops.
    """

    name: str
    mode: HyperGradient
    memory: int
    cost: float
    exact: bool = True
    complete: bool = True


def predict(problem: PureProblem, num_steps: int, mode: HyperGradient) -> Option:
    """Memory and time of a mode, as an `Option`.

    Args:
        problem: A `PureProblem`.
        num_steps: Integer T.
        mode: A `ReverseHG`, `ReversibleHG` or `ForwardHG`.

    Raises:
        ValueError: If the mode cannot differentiate the problem.
    """
    mode.check(problem)
    for kind, function in (
        (ReverseHG, _reverse),
        (ReversibleHG, _reversible),
        (ForwardHG, _forward),
    ):
        if isinstance(mode, kind):
            complete = of_reverse_step(problem, None).complete
            return function(problem, num_steps, mode)._replace(complete=complete)  # pyright: ignore[reportArgumentType]
    raise ValueError(f"Nothing is predicted for such a mode. Received: mode={mode!r}")


def _reverse(problem: PureProblem, num_steps: int, mode: ReverseHG) -> Option:
    count = mode.policy.differentiated_steps(num_steps)
    states, segment, keeping = mode.policy.storage(problem, num_steps)
    back = of_reverse_step(problem, keeping)
    again = 0
    if states < count:
        again = count if segment else num_recomputed(count, states)
    compiler = _compiler(problem, mode)
    if compiler == "xla":  # It takes the room that it was compiled for.
        states, segment, _ = mode.buffers(problem, num_steps).storage
    # One slot more for the last new state, or one that need not be kept.
    slots = states + (keeping is not None or not segment)
    size = slots * costs.state_bytes(problem) + segment * back.kept
    return Option(
        _name(mode),
        mode,
        size + back.bytes(compiler),
        _cost(problem, num_steps, num_steps + again, count, back),
        exact=count == num_steps,
    )


def _reversible(problem: PureProblem, num_steps: int, mode: ReversibleHG) -> Option:
    bits = trajectory.bits(problem, num_steps)
    products = costs.of_step(problem).multiplications
    integers = _INTEGERS * problem.report.weights / products if products else 0.0
    return Option(
        _name(mode),
        mode,
        _reversible_bytes(problem, num_steps, bits, _compiler(problem, mode)),
        _cost(problem, num_steps, 2 * num_steps, num_steps) + integers,
    )


def _reversible_bytes(
    problem: PureProblem, num_steps: int, bits: np.ndarray, compiler: str
) -> int:
    """A step's, the digits that were spilled, extra states, and the initial one."""
    beyond = bits * num_steps - math.log2(fixed_point.FULL)
    spills = np.maximum(0, np.ceil(beyond / fixed_point.SPILLED)).astype(int)
    sizes = [variable.shape.num_elements() for variable in problem.start.variables]
    spilled = fixed_point.SPILLED // 8 * int(np.dot(spills, sizes))
    extra = num_steps * costs.bytes_of(problem.start.extra)
    step = of_reversal(problem, compiler)
    return costs.state_bytes(problem) + step + spilled + extra


def _forward(problem: PureProblem, num_steps: int, mode: ForwardHG) -> Option:
    del num_steps  # It takes the same for each.
    count = Directions(problem.hyperparameters).size
    size = min(count, mode.chunk_size or count)
    step = costs.of_step(problem).multiplications
    # From one: convolutions of several are in part loops, whose turns are not counted.
    tangent = 4 / 3
    if step:
        tangent = of_tangents(problem, 1).multiplications / step - 1
    return Option(
        f"{_name(mode)}, {count} tangent{'s' if count > 1 else ''}",
        mode,
        of_tangents(problem, size).bytes(_compiler(problem, mode)),
        math.ceil(count / size) + count * tangent,
    )


def _cost(
    problem: PureProblem,
    num_steps: int,
    steps: int,
    steps_back: int,
    back: costs.Needs | None = None,
) -> float:
    """In training runs, of the steps made forwards and backwards."""
    forth = costs.of_step(problem)
    back = back or of_reverse_step(problem, None)
    ratio = 8 / 3  # Where there is no product: 8 for 3, as for a layer.
    if forth.multiplications:
        ratio = back.multiplications / forth.multiplications
    return (steps + steps_back * ratio) / num_steps


def _compiler(problem: PureProblem, mode: HyperGradient) -> str:
    """The one that the mode would take."""
    data = problem.inner_data
    fixed_shapes = data.has_fixed_shapes(data.sample())
    return (
        "graph" if obstacle(mode.jit_compile, problem.report, fixed_shapes) else "xla"
    )


def _name(mode: HyperGradient) -> str:
    options = {
        name: getattr(mode, name)
        for name, default in (
            *(("checkpointing", None), ("truncation", None), ("memory_budget", None)),
            *(("keep_residuals", "auto"), ("chunk_size", None)),
        )
        if getattr(mode, name, default) != default
    }
    inner = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(mode).__name__}({inner})"
