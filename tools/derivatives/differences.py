"""Central differences, and whether there is a derivative that they could approach."""

from typing import NamedTuple

import numpy as np

# Below this size numbers are compared by their difference itself.
SMALL = 1e-3
# How far the differences on both sides may be apart where there is a derivative.
_ONE_SIDED = 3e-3


class Difference(NamedTuple):
    """A derivative along a direction, by values alone.

    Attributes:
        slope: Array, of the shape of the function's value.
        smooth: Whether the differences on both sides agree.
    """

    slope: np.ndarray
    smooth: bool


def difference(function, point, direction, width):
    """The derivative of `function` at a point, to the fourth order in `width`.

    Args:
        function: Callable(array) -> array or number, evaluated at five points.
        point, direction: Arrays of one shape.
        width: Of the step along the direction.
    """
    two_down, down, here, up, two_up = (
        np.asarray(function(point + i * width * direction)) for i in range(-2, 3)
    )
    slope = (8 * (up - down) - (two_up - two_down)) / (12 * width)
    right = (-3 * here + 4 * up - two_up) / (2 * width)
    left = (3 * here - 4 * down + two_down) / (2 * width)
    finite = np.all(np.isfinite(slope)) and np.all(np.isfinite(here))
    smooth = bool(finite) and relative_error(left, right) < _ONE_SIDED * max(
        1, 1e4 * width
    )
    return Difference(slope, smooth)


def relative_error(found, expected, small=SMALL):
    """Norm of the difference over that of `expected`, if that is not very small."""
    found, expected = np.ravel(found), np.ravel(expected)
    if not (np.all(np.isfinite(found)) and np.all(np.isfinite(expected))):
        return np.inf
    return float(
        np.linalg.norm(found - expected) / max(np.linalg.norm(expected), small)
    )


def directions(size, limit=4):
    """One in general position; all axes of a small space, else two others."""
    random = np.random.RandomState(7)
    general = random.uniform(0.4, 1.0, size) * random.choice([-1, 1], size)
    if size <= limit:
        return [general, *np.eye(size)]
    return [general, *random.uniform(-1, 1, (2, size))]
