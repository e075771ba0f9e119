"""The projections, against bisection, grid search and optimality in NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.hyperparameters.constraints import (
    CappedSimplex,
    Interval,
    L1Ball,
    UnitSimplex,
)

TOLERANCES = {"float32": 2e-6, "float64": 1e-11}


def bisect(decreasing, low, high):
    """The root of a decreasing function of one number."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > 0 else (low, middle)
    return (low + high) / 2


def project_simplex(x, total=1.0):
    def surplus(shift):
        return np.maximum(x - shift, 0).sum() - total

    return np.maximum(x - bisect(surplus, x.min() - total, x.max()), 0)


def project_l1_ball(x, radius):
    if np.abs(x).sum() <= radius:
        return x
    return np.sign(x) * project_simplex(np.abs(x), radius)


def project_capped_simplex(x, total, upper=1.0):
    if np.clip(x, 0, upper).sum() <= total:
        return np.clip(x, 0, upper)

    def surplus(shift):
        return np.clip(x - shift, 0, upper).sum() - total

    return np.clip(x - bisect(surplus, x.min() - upper, x.max()), 0, upper)


def total(z):
    return z.sum(axis=-1, keepdims=True)


# Each constraint, its projection by bisection, and the conditions by which the
# points z (in rows) are in its set, up to a tolerance.
SETS = {
    "interval": (
        Interval(-0.25, 0.5),
        lambda x: np.clip(x, -0.25, 0.5),
        lambda z, tol: (z >= -0.25 - tol) & (z <= 0.5 + tol),
    ),
    "unit_simplex": (
        UnitSimplex(),
        project_simplex,
        lambda z, tol: (z >= 0) & (np.abs(total(z) - 1) <= tol),
    ),
    "l1_ball": (
        L1Ball(0.75),
        lambda x: project_l1_ball(x, 0.75),
        lambda z, tol: total(np.abs(z)) <= 0.75 + tol,
    ),
    "capped_simplex": (
        CappedSimplex(total=1.5, upper=0.5),
        lambda x: project_capped_simplex(x, 1.5, 0.5),
        lambda z, tol: (z >= 0) & (z <= 0.5) & (total(z) <= 1.5 + tol),
    ),
    "slack_capped_simplex": (
        CappedSimplex(total=1e3, upper=0.5),
        lambda x: np.clip(x, 0, 0.5),
        lambda z, tol: (z >= 0) & (z <= 0.5),
    ),
    "empty_capped_simplex": (
        CappedSimplex(total=0.0),
        np.zeros_like,
        lambda z, tol: (z >= 0) & (z <= tol),
    ),
}
all_sets = pytest.mark.parametrize("name", SETS)
all_dtypes = pytest.mark.parametrize("dtype", TOLERANCES)


def some_points():
    """Points of several lengths and scales, with ties, and all negative."""
    random = np.random.default_rng(0)
    scales = (1e-3, 0.1, 1.0, 30.0, 1e4)
    for size, scale in itertools.product((1, 2, 3, 17, 200), scales):
        point = scale * random.normal(size=size)
        yield from (point, -np.abs(point), np.abs(point))
        yield scale * random.integers(-2, 3, size=size)
    yield np.zeros(5)
    yield np.full(4, 7.0)


@all_sets
@all_dtypes
def test_projection_equals_bisection(name, dtype):
    constraint, reference, _ = SETS[name]
    for point in (point.astype(dtype) for point in some_points()):
        result = constraint(point)
        assert result.dtype == dtype
        assert result.shape == point.shape
        np.testing.assert_allclose(
            result,
            reference(point.astype("float64")),
            rtol=0,
            atol=TOLERANCES[dtype] + 1e-15 * np.abs(point).sum(),
        )


@all_sets
@pytest.mark.parametrize("size", [2, 3])
def test_no_grid_point_of_the_set_is_nearer(name, size):
    constraint, _, contains = SETS[name]
    ticks = np.linspace(-1, 1, 41)
    grid = np.array(list(itertools.product(ticks, repeat=size)))
    grid = grid[contains(grid, 1e-9).all(axis=-1)]
    spacing = (ticks[1] - ticks[0]) * np.sqrt(size)
    random = np.random.default_rng(1)
    for point in random.normal(size=(20, size)):
        distance = np.linalg.norm(constraint(point).numpy() - point)
        nearest = np.linalg.norm(grid - point, axis=1).min()
        assert nearest - spacing <= distance <= nearest + 1e-9


@all_sets
def test_projection_is_feasible_idempotent_and_optimal(name):
    constraint, _, contains = SETS[name]
    random = np.random.default_rng(2)
    inside = np.array([constraint(z) for z in random.normal(size=(100, 6))])
    assert contains(inside, 1e-12).all()
    scales = np.repeat([0.1, 1.0, 10.0, 100.0], 5)[:, None]
    for point in scales * random.normal(size=(20, 6)):
        projected = constraint(point).numpy()
        assert contains(projected, 1e-12).all()
        np.testing.assert_allclose(constraint(projected), projected, atol=1e-13)
        # <x − P(x), z − P(x)> ≤ 0 for all z in the set.
        assert ((inside - projected) @ (point - projected)).max() <= 1e-10


@pytest.mark.parametrize(
    ("constraint", "point"),
    [
        (Interval(0.0, 1.0), [0.0, 0.3, 1.0]),
        (Interval(), [-1e30, 0.0, 1e30]),
        (UnitSimplex(), [0.25, 0.5, 0.25]),
        (L1Ball(1.0), [0.125, -0.25, 0.5]),
        (L1Ball(1.0), [0.5, -0.5, 0.0]),
        (CappedSimplex(1.5), [0.1, 0.3, 1.0]),
        (CappedSimplex(1.5), [0.5, 0.0, 1.0]),
        (CappedSimplex(99.0), [1.0, 1.0, 1.0]),
    ],
)
def test_points_of_the_set_stay(constraint, point):
    for dtype in TOLERANCES:
        inside = np.array(point, dtype)
        np.testing.assert_array_equal(constraint(inside), inside)


@pytest.mark.parametrize(
    ("constraint", "point", "expected"),
    [
        (Interval(0.0, 1.0), [-1, 2, 0.5], [0, 1, 0.5]),
        (Interval(high=1.0), [-1, 2, 0.5], [-1, 1, 0.5]),
        (Interval([0.0, 1.0, 2.0], 3), [-1, 4, 0.5], [0, 3, 2]),
        (UnitSimplex(), [0, 0, -np.inf], [0.5, 0.5, 0]),
        (UnitSimplex(), [1.0, 1.0, 1.0, 1.0], [0.25] * 4),
        (UnitSimplex(), [-5.0, -5.5, -9.0], [0.75, 0.25, 0]),
        (L1Ball(2.0), [3.0, -3.0], [1.0, -1.0]),
        (CappedSimplex(1.0), [-1.0, -2.0], [0.0, 0.0]),
        (CappedSimplex(1.0, upper=0.25), [9.0, 9.0], [0.25, 0.25]),
    ],
)
def test_golden_values(constraint, point, expected):
    np.testing.assert_allclose(constraint(np.array(point)), expected, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_unit_simplex_projects_each_vector_along_the_axis(axis):
    points = np.random.default_rng(3).normal(size=(3, 4, 5))
    expected = np.apply_along_axis(project_simplex, axis, points)
    np.testing.assert_allclose(UnitSimplex(axis)(points), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["l1_ball", "capped_simplex"])
def test_a_matrix_is_projected_as_a_whole(name):
    constraint, reference, _ = SETS[name]
    points = np.random.default_rng(4).normal(size=(3, 4))
    expected = reference(points.ravel()).reshape(3, 4)
    np.testing.assert_allclose(constraint(points), expected, atol=1e-12)


@pytest.mark.parametrize("constraint", [UnitSimplex(), L1Ball(1.0), CappedSimplex(1.0)])
@pytest.mark.parametrize(
    "scale",
    [1e5, 1e12, 1e18],
)
def test_huge_values(constraint, scale):
    """As an outer update that explodes hands them to the constraint."""
    point = np.array([1.0, 0.5, 1.0, 0.0, 1.0]) * scale
    third = 1 / 3
    np.testing.assert_allclose(
        constraint(point), [third, 0, third, 0, third], atol=1e-9
    )


def test_interval_keeps_float64_bounds():
    bounds = Interval(0.1, 0.7)(np.array([0.0, 1.0])).numpy()
    assert bounds.tolist() == [0.1, 0.7]


@all_sets
def test_xla_gives_the_same(name):
    constraint, _, _ = SETS[name]
    compiled = tf.function(constraint, jit_compile=True)
    for scale in (0.1, 1.0, 10.0):
        point = tf.constant(scale * np.random.default_rng(5).normal(size=8))
        np.testing.assert_allclose(compiled(point), constraint(point), atol=1e-14)


@pytest.mark.parametrize(
    "constraint",
    [
        Interval(-0.5, 2.0),
        Interval(low=0.0),
        Interval(np.array([0.0, 1.0]), 2.0),
        UnitSimplex(axis=0),
        L1Ball(3.0),
        CappedSimplex(2.0, upper=0.5),
    ],
)
def test_serialization(constraint):
    restored = [
        type(constraint).from_config(constraint.get_config()),
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(constraint)
        ),
    ]
    point = np.array([[3.0, -1.5], [0.5, 4.0]])
    for other in restored:
        assert type(other) is type(constraint)
        np.testing.assert_equal(other.get_config(), constraint.get_config())
        np.testing.assert_array_equal(other(point), constraint(point))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Interval(1.0, 0.0), "low"),
        (lambda: Interval([0.0, 2.0], 1.0), "low"),
        (lambda: Interval("0", 1), "low"),
        (lambda: Interval(0, float("nan")), "high"),
        (lambda: Interval([[0.0], [1.0, 2.0]]), "low"),
        (lambda: L1Ball("1"), "radius"),
        (lambda: CappedSimplex(None), "total"),
        (lambda: L1Ball(0.0), "radius"),
        (lambda: L1Ball(-1.0), "radius"),
        (lambda: L1Ball(float("nan")), "radius"),
        (lambda: CappedSimplex(-0.5), "total"),
        (lambda: CappedSimplex(1.0, upper=0.0), "upper"),
    ],
)
def test_wrong_arguments(make, argument):
    with pytest.raises(
        ValueError, match=rf"`{argument}` must .* Received: .*{argument}="
    ):
        make()


def test_bounds_may_mix_integers_and_floats():
    assert Interval(0, 1.5)([2.0, -1.0]).numpy().tolist() == [1.5, 0.0]


@all_sets
def test_keras_optimizer_applies_it(name):
    constraint, reference, _ = SETS[name]
    start, gradient = np.array([0.2, 0.4, 0.3]), np.array([-1.0, 0.3, -0.5])
    weights = far.Hyperparameter(start, constraint=constraint)
    np.testing.assert_array_equal(weights, start)
    keras.optimizers.SGD(0.5).apply([tf.constant(gradient)], [weights])
    expected = reference(start - 0.5 * gradient)
    np.testing.assert_allclose(weights, expected, atol=1e-9)
