"""Which gradient mode: predicted memory and time of each, for a problem."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from far_ho_tf.checks import check_count, check_steps, require
from far_ho_tf.graphs.buffers import free_memory, text_of_bytes
from far_ho_tf.hypergradients import (
    ForwardHG,
    HyperGradient,
    ReverseHG,
    ReversibleHG,
)
from far_ho_tf.hypergradients.reverse.costs import of_reverse_step
from far_ho_tf.planning.prediction import Option, predict
from far_ho_tf.problem.bilevel_problem import BilevelProblem


class Plan(NamedTuple):
    """What `plan` returns; printed, it is a table.

    Attributes:
        options: List of `Option`s.
        recommended: The `HyperGradient` of the cheapest exact option that fits into
            the budget; `None` where none does.
        memory_budget: Bytes.
    """

    options: list[Option]
    recommended: HyperGradient | None
    memory_budget: int

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.options)} options, recommended={self.recommended!r}, "
            f"memory_budget={text_of_bytes(self.memory_budget)!r})"
        )

    def __str__(self) -> str:
        row = "{:<36}{:>12}{:>16}  {}".format
        lines = [row("mode", "memory", "training runs", "").rstrip()]
        for option in self.options:
            note = "" if option.exact else "truncated"
            if option.memory > self.memory_budget:
                note = ", ".join([*filter(None, [note]), "over budget"])
            if self.recommended is not None and option.mode is self.recommended:
                note = "recommended"
            least = "" if option.complete else "≥ "
            taken = least + text_of_bytes(option.memory), f"{least}{option.cost:.1f}"
            lines.append(row(option.name, *taken, note).rstrip())
        lines.append(f"Budget: {text_of_bytes(self.memory_budget)}.")
        if not all(option.complete for option in self.options):
            lines.append("≥: without loops inside a step, and shapes not known before.")
        if self.recommended is None:
            lines.append("No mode fits that gives the whole hypergradient.")
        return "\n".join(lines)


def plan(
    problem: BilevelProblem,
    num_steps: int,
    memory_budget: int | None = None,
) -> Plan:
    """Predicts what each gradient mode takes, prints a table, and recommends one.

    Nothing is trained: a training step and its derivatives are traced. Memory is that
    beyond data and model; time counts the multiplications of matrix products and
    convolutions, and for `ReversibleHG` its arithmetic of integers. Where a step holds
    loops, such as of recurrent layers, both are the least that there can be, marked ≥.

    Args:
        problem: A `BilevelProblem`.
        num_steps: Integer T.
        memory_budget: Integer, bytes; `None`: what the machine has free, of main
            memory (on Linux).

    Returns:
        A `Plan`.

    Raises:
        ValueError: If an argument is wrong, or the problem cannot be differentiated.

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
    ReverseHG()                              16.5 kB             3.7  over budget
    ReverseHG(keep_residuals=False)           16.4 kB             3.7  over budget
    ReverseHG(checkpointing='sqrt')          1.09 kB             4.7
    ...
    ForwardHG(jit_compile='auto', chunk_size=None, spread_tangents=False)
    """
    require(
        isinstance(problem, BilevelProblem),
        "`problem` must be a BilevelProblem.",
        problem=problem,
    )
    num_steps = check_steps(num_steps)
    if memory_budget is None:
        memory_budget = free_memory()
        require(
            memory_budget is not None,
            "`memory_budget` must be given: this machine does not tell its own.",
            memory_budget=None,
        )
    budget = check_count("memory_budget", memory_budget, of="bytes")
    pure = problem.pure
    pure.dynamics.check_last(num_steps - 1)
    with pure.explained():
        of_reverse_step(pure, None)  # Raises what the user's own functions do.
    options = []
    for mode in _modes(num_steps, budget):
        with contextlib.suppress(ValueError):  # Not with these dynamics or this budget.
            options.append(predict(pure, num_steps, mode))
    fitting = [o for o in options if o.exact and o.memory <= budget]
    best = min(fitting, key=lambda option: option.cost, default=None)
    result = Plan(options, best and best.mode, budget)
    print(result)
    return result


def _modes(num_steps: int, budget: int) -> Iterator[HyperGradient]:
    yield ReverseHG()
    yield ReverseHG(keep_residuals=False)
    yield ReverseHG(checkpointing="sqrt")
    for kept in (30, 10, 3):
        if kept < num_steps:
            yield ReverseHG(checkpointing=kept)
    yield ReverseHG(memory_budget=budget)
    if num_steps >= 10:
        yield ReverseHG(truncation=num_steps // 10)
    yield ReversibleHG()
    yield ForwardHG()
