"""The table: dynamics, hyperparameters, modes and compilers.

Every row of `dynamics_table` against the naive unrolled reference.
"""

import pytest

import far_ho_tf as far
from tests import reference
from tests.dynamics_table import NUM_STEPS, ROWS
from tests.helpers import Classification, assert_close


@pytest.mark.filterwarnings("ignore:.*moves weights by a sign")
@pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", ROWS)
def test_equals_the_unrolled_reference(name, jit_compile, method):
    problem = Classification()
    dynamics, hypers, rule = ROWS[name](problem)
    value, expected, final = reference.unrolled(problem.naive(hypers), rule, NUM_STEPS)
    bilevel = problem.bilevel(dynamics, hypers)
    result = method(jit_compile=jit_compile).compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(problem.model.trainable_variables, final, 1e-12)
