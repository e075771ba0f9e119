"""What the other tests are made with."""

import itertools

import pytest

from tests.helpers import in_tiers, pairwise


@pytest.mark.parametrize(
    ("sizes", "at_most"), [((2, 3), 6), ((3, 3, 3), 10), ((4, 3, 2, 2, 2), 13)]
)
def test_each_pair_of_values_is_there(sizes, at_most):
    axes = [[f"{axis}{place}" for place in range(n)] for axis, n in enumerate(sizes)]
    rows = pairwise(*axes)
    assert len(set(rows)) == len(rows) <= at_most
    assert set(rows) <= set(itertools.product(*axes))
    for one, other in itertools.combinations(range(len(axes)), 2):
        pairs = {(row[one], row[other]) for row in rows}
        assert pairs == set(itertools.product(axes[one], axes[other]))


def test_parameters_of_two_tiers():
    both, one = in_tiers(["a", ("b", "c")], first=["a"])
    assert both == "a"
    assert one.values == ("b", "c") and [mark.name for mark in one.marks] == [
        "thorough"
    ]
    with pytest.raises(AssertionError):
        in_tiers(["a"], first=["b"])
