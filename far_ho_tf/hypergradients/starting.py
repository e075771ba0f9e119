"""What a run of `compute` starts from."""

from typing import Any

from far_ho_tf.checks import LAST_STEP, check_count, require, warn_user
from far_ho_tf.hypergradients.interfaces import Mode
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.state import Position, State


def checked_start(mode: Mode, problem: PureProblem, start: Position | None) -> Position:
    """The `Position` to start from, which fits the problem."""
    if start is None:
        return Position()
    require(
        isinstance(start, Position)
        and (start.state is None or isinstance(start.state, State)),
        "`start` must be None or a far.Position, such as the `end` of a result.",
        start=start,
    )
    if start.state is not None:
        problem.check_state(start.state)
    require(
        start.state is not None or start.tangents is None,
        "`tangents` go with a `state`.",
        start=start,
    )
    mode.check_tangents(problem, start.tangents)
    return start._replace(
        first_step=check_count("first_step", start.first_step, 0, LAST_STEP),
        outer_step=check_count("outer_step", start.outer_step, 0, LAST_STEP),
    )


def given_start(start: Position | State | None, *before: Any) -> Position | None:
    """What `compute` was given to start from, by `start` or as it was before."""
    if isinstance(start, State):  # It was the third argument.
        start, before = None, (start, *before[1:])
    pairs = zip(Position._fields, before, strict=True)
    given = {name: value for name, value in pairs if value is not None}
    if not given:
        return start
    require(start is None, "Give `start` alone.", start=start, **given)
    warn_user(
        f"`compute` takes `start`, a far.Position, in the place of {', '.join(given)}: "
        "start=result.end goes on from a result, start=far.Position(outer_step=1) "
        "begins anew, with other outer data.",
        DeprecationWarning,
    )
    return Position(**given)
