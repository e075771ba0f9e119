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


# The order in which `compute` took what a `Position` holds.
_ORDER = ("state", "first_step", "outer_step", "tangents")


def given_start(
    start: Position | State | None, before: tuple[Any, ...], named: tuple[Any, ...]
) -> Position | None:
    """What `compute` was given to start from, by `start` or as it was before.

    Args:
        start: The third argument, which was a `State` before.
        before: Those that followed on it, without names.
        named: Those that have the names of a `Position`'s fields, in their order.
    """
    pairs = zip(Position._fields, named, strict=True)
    given: dict[str, Any] = {n: value for n, value in pairs if value is not None}
    if isinstance(start, State) or before:
        places = start, *before
        require(
            len(places) <= len(_ORDER) and not isinstance(start, Position),
            "`compute` takes a problem, `num_steps` and `start`; what follows goes by "
            "name.",
            received=before,
        )
        placed: dict[str, Any] = dict(zip(_ORDER, places, strict=False))
        placed = {name: value for name, value in placed.items() if value is not None}
        twice = sorted(placed.keys() & given.keys())
        require(not twice, "`compute` got arguments twice.", twice=twice)
        start, given = None, placed | given
    if not given:
        return start
    require(start is None, "Give `start` alone.", start=start, **given)
    warn_user(
        f"`compute` takes `start`, a far.Position, in the place of {', '.join(given)}, "
        "which go in the next release: start=result.end goes on from a result; as here "
        f"it is start=far.Position({', '.join(f'{name}=…' for name in given)}).",
        FutureWarning,
    )
    return Position(**given)
