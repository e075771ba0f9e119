"""Checks that several arguments share."""

import contextvars
import difflib
import functools
import inspect
import itertools
import math
import numbers
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

# The largest number of a step: they are counted in int32.
LAST_STEP = 2**31 - 1


# Characters of a value that messages show, and parts of a sequence or mapping.
_SHORT, _PARTS = 120, 4


def shown(value: Any) -> str:
    """A value as messages show it, in one line.

    Short ones as Python writes them; long arrays and tensors by type, shape and dtype.
    """
    text = " ".join(repr(value).split())
    if len(text) <= _SHORT:
        return text
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        dtype = getattr(value.dtype, "name", value.dtype)
        return f"<{kind} of shape {value.shape} and dtype {dtype}>"
    if isinstance(value, Mapping):
        parts = [f"{key!r}: {shown(one)}" for key, one in _first(value.items())]
        return f"{{{_joined(parts, len(value))}}}"
    if isinstance(value, (list, tuple)):
        parts = [shown(one) for one in _first(value)]
        begin, end = "()" if isinstance(value, tuple) else "[]"
        return f"{begin}{_joined(parts, len(value))}{end}"
    return f"{text[:_SHORT]} …"


def _first(values: Iterable[_R]) -> list[_R]:
    return list(itertools.islice(values, _PARTS))


def _joined(parts: list[str], number: int) -> str:
    others = number - len(parts)
    return ", ".join([*parts, *([f"… {others} more"] if others else [])])


def call_of(owner: Any, **arguments: Any) -> str:
    """What makes an object such as this one, for its `repr`."""
    given = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())
    return f"{type(owner).__name__}({given})"


def require(condition: Any, expectation: str, **received: Any) -> None:
    """Raises a `ValueError` that says what was expected and what received."""
    if not condition:
        values = ", ".join(f"{name}={shown(value)}" for name, value in received.items())
        raise ValueError(f"{expectation} Received: {values}")


def check_count(
    name: str, value: Any, low: int = 1, high: int | None = None, of: str = ""
) -> int:
    """Returns `value` as an int.

    Args:
        name, value: Of the argument.
        low, high: What it may be, both included; `None` for any.
        of: What it counts, where the name does not tell.

    Raises:
        ValueError: If it is not an integer from `low` to `high`.
    """
    bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
    require(
        is_integer(value) and value >= low and (high is None or value <= high),
        f"`{name}` must be an integer {bounds}{of and f', in {of}'}.",
        **{name: value},
    )
    return int(value)


def check_steps(num_steps: Any, first_step: int = 0) -> int:
    """Returns a number of steps, from a first one on, as an int."""
    num_steps = check_count("num_steps", num_steps)
    require(
        num_steps <= LAST_STEP and first_step + num_steps - 1 <= LAST_STEP,
        f"`num_steps` must not lead beyond step {LAST_STEP}: steps are int32.",
        num_steps=num_steps,
        first_step=first_step,
    )
    return num_steps


def check_limit(name: str, value: Any) -> Any:
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


def did_you_mean(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorates a function whose arguments have other names elsewhere, as in Keras.

    Args:
        **names: Those that may be given by mistake, and what is meant, as messages
            name it.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        known = inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*arguments: _P.args, **options: _P.kwargs) -> _R:
            for name, value in options.items():
                if name not in known:
                    closest = difflib.get_close_matches(name, known, 1)
                    meant = names.get(name, f"`{closest[0]}`" if closest else "")
                    raise TypeError(
                        f"`{function.__qualname__}` has no argument `{name}`. "
                        + (f"Did you mean {meant}? " if meant else "")
                        + f"Received: {name}={shown(value)}"
                    )
            return function(*arguments, **options)

        return call

    return decorate


# What Keras' `fit` calls things.
KERAS_NAMES = {
    "epochs": "`hyper_iterations`",
    "hyper_steps": "`hyper_iterations`",
    "steps": "`num_steps`",
    "inner_steps": "`num_steps`",
    "steps_per_epoch": "`num_steps`",
    "batch_size": "far.Batches, as `inner_data` of the BilevelProblem",
    "x": "`inner_data` of the BilevelProblem",
    "y": "`inner_data` of the BilevelProblem",
    "validation_data": "`outer_data` of the BilevelProblem",
}


def is_integer(value: Any) -> bool:
    """Whether it is Python's or NumPy's; booleans are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def essence(error: BaseException) -> str:
    """What an error of a graph says, without the trace that goes before it."""
    noise = ("File ", "[[", "Detected at", "Graph execution error")
    text = re.sub(r"\{\{.*?\}\}", "", str(error))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(noise)]
    return lines[-1] if lines else str(error)


# Whose frames are between a user's line and what it leads to.
_BETWEEN = ("far_ho_tf", "tensorflow", "keras", "functools", "contextlib")
# The user's frame that started this thread, where far_ho_tf has done so.
CALLER: contextvars.ContextVar[FrameType | None] = contextvars.ContextVar(
    "caller", default=None
)


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line of the user's that led here, be it through a trace."""
    frame = users_frame()
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def users_frame() -> FrameType:
    """The frame of the user's that led here; in threads too, by `CALLER`."""
    caller = CALLER.get()
    if caller is not None:
        return caller
    frame = sys._getframe()
    while frame.f_back and _package(frame) in _BETWEEN:
        frame = frame.f_back
    return frame


def _package(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "").split(".")[0]


def takes_argument(function: Callable[..., Any]) -> bool:
    """Whether a callable needs a positional argument."""
    return num_arguments(function) > 0


def num_arguments(function: Callable[..., Any]) -> int:
    """How many positional arguments a callable needs; 0 where Python cannot tell."""
    return len(argument_names(function))


def argument_names(function: Callable[..., Any]) -> list[str]:
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
