"""Which gradient mode: predicted memory and time of each, for a problem."""

import contextlib
import os
from typing import NamedTuple

from far_ho_tf.checks import check_count, require
from far_ho_tf.hypergradients import (
    ForwardHG,
    HyperGradient,
    ReverseHG,
    ReversibleHG,
    exact,
    memory,
    reversal,
)
from far_ho_tf.hypergradients.checkpoints import binomial
from far_ho_tf.hypergradients.program import obstacle
from far_ho_tf.hypergradients.tangents import Directions
from far_ho_tf.problem import BilevelProblem

# Multiplications of matrix products that take as long as the integers' arithmetic for
# a weight in a step, there and back (BUILD_NOTES.md, "Long horizons").
_INTEGERS = 500


class Option(NamedTuple):
    """A gradient mode with what it is predicted to take.

    Attributes:
        name: String.
        mode: A `HyperGradient`.
        memory: Bytes beyond data and model.
        cost: Time, in training runs.
        exact: Whether it gives the whole hypergradient.
    """

    name: str
    mode: HyperGradient
    memory: int
    cost: float
    exact: bool = True


class Plan(NamedTuple):
    """What `plan` returns; printed, it is a table.

    Attributes:
        options: List of `Option`s.
        recommended: The `HyperGradient` of the cheapest exact option that fits into
            the budget; `None` where none does.
        memory_budget: Bytes.
    """

    options: list
    recommended: HyperGradient | None
    memory_budget: int

    def __str__(self):
        row = "{:<36}{:>12}{:>16}  {}".format
        lines = [row("mode", "memory", "training runs", "").rstrip()]
        for option in self.options:
            note = "" if option.exact else "truncated"
            if option.memory > self.memory_budget:
                note = ", ".join([*filter(None, [note]), "over budget"])
            if self.recommended is not None and option.mode is self.recommended:
                note = "recommended"
            lines.append(
                row(
                    option.name, _text(option.memory), f"{option.cost:.1f}", note
                ).rstrip()
            )
        lines.append(f"Budget: {_text(self.memory_budget)}.")
        return "\n".join(lines)


def plan(problem, num_steps, memory_budget=None):
    """Predicts what each gradient mode takes, prints a table, and recommends one.

    Nothing is trained: a training step and its derivatives are traced. Memory is that
    beyond data and model; time counts the multiplications of matrix products and
    convolutions, and for `ReversibleHG` its arithmetic of integers.

    Args:
        problem: A `BilevelProblem`.
        num_steps: Integer T.
        memory_budget: Integer, bytes; `None`: what the machine has free, of main
            memory.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> import far_ho_tf as far, keras, tensorflow as tf
    >>> w = keras.Variable([1.0, 2.0], name="w")
    >>> rate = far.Hyperparameter(0.1, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: tf.reduce_sum(w * w),
    ...     outer_objective=lambda: tf.reduce_sum(w),
    ...     variables=[w],
    ...     dynamics=far.Momentum(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> far.plan(problem, num_steps=1000, memory_budget=2000).recommended
    mode                                      memory   training runs
    ReverseHG()                                16 kB             3.7  over budget
    ReverseHG(checkpointing='sqrt')            768 B             4.6
    ...
    ForwardHG(jit_compile='auto', chunk_size=None)
    """
    require(
        isinstance(problem, BilevelProblem),
        "`problem` must be a BilevelProblem.",
        problem=problem,
    )
    num_steps = check_count("num_steps", num_steps)
    if memory_budget is None:
        memory_budget = _free_memory()
    budget = check_count("memory_budget", memory_budget)
    options = [
        *(_reverse(problem, num_steps, mode) for mode in _reverse_modes(num_steps)),
        *_reversible(problem, num_steps),
        _forward(problem),
    ]
    with contextlib.suppress(ValueError):  # Nothing fits.
        options.insert(
            -1, _reverse(problem, num_steps, ReverseHG(memory_budget=budget))
        )
    fitting = [o for o in options if o.exact and o.memory <= budget]
    best = min(fitting, key=lambda option: option.cost, default=None)
    result = Plan(options, best and best.mode, budget)
    print(result)
    return result


def _reverse_modes(num_steps):
    yield ReverseHG()
    yield ReverseHG(checkpointing="sqrt")
    for kept in (30, 10, 3):
        if kept < num_steps:
            yield ReverseHG(checkpointing=kept)
    if num_steps >= 10:
        yield ReverseHG(truncation=num_steps // 10)


def _reverse(problem, num_steps, mode):
    count = mode.differentiated_steps(num_steps)
    kept = mode.kept_states(problem, num_steps)
    back = memory.of_reverse_step(problem)
    slots = kept if kept == count else kept + 1
    again = 0 if kept == count else binomial(count, kept).num_recomputed
    size = slots * memory.state_bytes(problem)
    return Option(
        _name(mode),
        mode,
        size + back.bytes(_compiler(problem)),
        _cost(problem, num_steps, num_steps + again, count),
        exact=count == num_steps,
    )


def _reversible(problem, num_steps):
    mode = ReversibleHG()
    try:
        mode.check(problem)
        bits = reversal.bits(problem, num_steps)
    except ValueError:  # Not with these dynamics.
        return
    if not 0.0 <= bits < float("inf"):  # Nor with such momenta.
        return
    products = memory.of_step(problem).multiplications
    integers = _INTEGERS * memory.elements(problem) / products if products else 0.0
    yield Option(
        _name(mode),
        mode,
        _reversible_bytes(problem, num_steps, bits),
        _cost(problem, num_steps, 2 * num_steps, num_steps) + integers,
    )


def _reversible_bytes(problem, num_steps, bits):
    """Integers, the digits that were spilled, and two states of floats."""
    size = memory.state_bytes(problem)
    elements = memory.elements(problem)
    spilled = elements * max(0.0, bits * num_steps - exact.FULL.bit_length()) / 8
    extra = num_steps * memory.bytes_of(problem.start.extra)
    return int(2 * size + memory.of_reversal(problem) + spilled + extra)


def _forward(problem):
    count = Directions(problem.hyperparameters).size
    # What grows with the number of tangents is told from one and two.
    one, two = (memory.of_tangents(problem, number) for number in (1, 2))
    step = memory.of_step(problem).multiplications
    tangent = (one.multiplications - step) / step if step else 4 / 3
    compiler = _compiler(problem)
    held = one.bytes(compiler) + (count - 1) * (
        two.bytes(compiler) - one.bytes(compiler)
    )
    return Option(
        f"ForwardHG(), {count} tangents",
        ForwardHG(),
        held,
        1 + count * tangent,
    )


def _cost(problem, num_steps, steps, steps_back):
    """In training runs, of the steps made forwards and backwards."""
    forth, back = memory.of_step(problem), memory.of_reverse_step(problem)
    ratio = 8 / 3  # Where there is no product; see design notes on the floor.
    if forth.multiplications:
        ratio = back.multiplications / forth.multiplications
    return (steps + steps_back * ratio) / num_steps


def _compiler(problem):
    """The one that jit_compile="auto" takes."""
    data = problem.inner_data
    fixed_shapes = data.has_fixed_shapes(data.prepare(0, 1))
    return "graph" if obstacle("auto", problem.report, fixed_shapes) else "xla"


def _name(mode):
    options = {
        name: getattr(mode, name)
        for name in ("checkpointing", "truncation", "memory_budget")
        if getattr(mode, name, None) is not None
    }
    inner = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{type(mode).__name__}({inner})"


def _text(size):
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _free_memory():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
