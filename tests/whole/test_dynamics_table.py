"""The table: dynamics, hyperparameters, modes and compilers.

Every row of `dynamics_table` against the naive unrolled reference.
"""

import functools

import pytest

import far_ho_tf as far
from tests import reference
from tests.dynamics_table import NUM_STEPS, ROWS
from tests.helpers import Classification, assert_close, in_tiers, pairwise

METHODS = [far.ReverseHG, far.ForwardHG]
CASES = pairwise(ROWS, [False, True], METHODS)
COMPILED = ["Momentum", "Adam", "schedule: table by layer", "Keras: Adam"]
# Rows whose rule, or whose kind of number, another one has too.
ALIKE = [
    *("Adam by step", "schedule: transformed table", "schedule: table by variables"),
    *("Keras: momentum", "Keras: Nesterov", "Keras: AdamW"),
]


@functools.lru_cache(maxsize=1)
def made(name):
    """A row's problem and its reference, which its modes share."""
    problem = Classification()
    dynamics, hypers, rule = ROWS[name](problem)
    expected = reference.unrolled(problem.naive(hypers), rule, NUM_STEPS)
    return problem, problem.bilevel(dynamics, hypers), expected


@pytest.mark.filterwarnings("ignore:.*moves weights by a sign")
@pytest.mark.parametrize(
    ("name", "jit_compile", "method"),
    in_tiers(
        CASES,
        [
            (name, jit_compile, method)
            for name, jit_compile, method in CASES
            if name not in ALIKE and (not jit_compile or name in COMPILED)
        ],
    ),
)
def test_equals_the_unrolled_reference(name, jit_compile, method):
    problem, bilevel, (value, expected, final) = made(name)
    result = method(jit_compile=jit_compile).compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(problem.model.trainable_variables, final, 1e-12)


@pytest.mark.parametrize("name", ["Momentum", "Keras: Lamb"])
def test_each_row_meets_both_compilers_and_both_modes(name):
    ways = [case[1:] for case in CASES if case[0] == name]
    assert {way[0] for way in ways} == {False, True}
    assert {way[1] for way in ways} == set(METHODS)
