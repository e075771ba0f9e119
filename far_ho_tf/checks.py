"""Checks that several arguments share."""

import inspect
import math
import numbers
import re
import sys
import warnings


def require(condition, expectation, **received):
    """Raises a `ValueError` that says what was expected and what received."""
    if not condition:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{expectation} Received: {values}")


def check_count(name, value, low=1, high=None):
    """Returns `value` as an int.

    Raises:
        ValueError: If it is not an integer from `low` to `high`.
    """
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
    require(
        is_integer(value) and value >= low and (high is None or value <= high),
        f"`{name}` must be an integer {bounds}.",
        **{name: value},
    )
    return int(value)


def check_limit(name, value):
    """Returns a number, or `None` for no limit.

    Raises:
        ValueError: If it is neither.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    require(
        value is None or (real and not math.isnan(value)),
        f"`{name}` must be a number, or None for no limit.",
        **{name: value},
    )
    return value


def is_integer(value):
    """Whether it is Python's or NumPy's; booleans are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def essence(error):
    """What an error of a graph says, without the trace that goes before it."""
    noise = ("File ", "[[", "Detected at", "Graph execution error")
    text = re.sub(r"\{\{.*?\}\}", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    return lines[-1] if lines else str(error)


def warn_user(message):
    """Warns at the line of the user's that led here, be it through a trace."""
    frame, level = sys._getframe(), 1
    while frame.f_back and _package(frame) in ("far_ho_tf", "tensorflow", "keras"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _package(frame):
    return frame.f_globals.get("__name__", "").split(".")[0]


def takes_argument(function):
    """Whether a callable needs a positional argument."""
    return num_arguments(function) > 0


def num_arguments(function):
    """How many positional arguments a callable needs; 0 where Python cannot tell."""
    return len(argument_names(function))


def argument_names(function):
    """The names of the positional arguments that a callable needs."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # As of some built-in functions.
        return []
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return [p.name for p in parameters if p.kind in positional and p.default is p.empty]
