"""Values of context variables for the length of a block."""

import contextlib


@contextlib.contextmanager
def having(variable, value):
    """Within, a `contextvars.ContextVar` has a value, in this thread."""
    before = variable.set(value)
    try:
        yield
    finally:
        variable.reset(before)
