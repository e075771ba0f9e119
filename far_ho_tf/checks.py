"""Checks that several arguments share."""

import numbers


def check_count(name, value, low=1, high=None):
    """Returns `value` as an int.

    Raises:
        ValueError: If it is not an integer from `low` to `high`.
    """
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or value < low or (high is not None and value > high):
        bounds = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(
            f"`{name}` must be an integer {bounds}. Received: {name}={value!r}"
        )
    return int(value)
