"""Values of context variables for the length of a block."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TypeVar

_T = TypeVar("_T")


@contextlib.contextmanager
def having(variable: ContextVar[_T], value: _T) -> Iterator[None]:
    """Within, a `contextvars.ContextVar` has a value, in this thread."""
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)
