"""Wrong uses of the library, and what is expected of it then."""

import pytest

import far_ho_tf as far


def compute(parts, num_steps=3, **changes):
    problem = far.BilevelProblem(**{**parts, **changes})
    return far.ReverseHG(jit_compile=False).compute(problem, num_steps)


def fails(*fragments):
    """Expects a ValueError whose message holds all fragments."""
    pattern = "".join(f"(?=.*{fragment})" for fragment in fragments)
    return pytest.raises(ValueError, match=f"(?s){pattern}")
