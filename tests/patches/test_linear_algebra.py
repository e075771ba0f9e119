"""Determinants, eigenvalues and singular values.

A row whose fault is not found any more can be dropped, with its patch.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.differences import (
    WIDTH,
    assert_derivatives,
    assert_wrong_without,
    complex_of,
    matrix,
    normals,
    parts,
)
from tests.helpers import assert_close

normal = normals()


def symmetric(x):
    square = tf.reshape(x, [3, 3])
    return square + tf.transpose(square)


def hermitian(x):
    square = matrix(x, 3)
    return square + tf.linalg.adjoint(square)


def of_vectors(values, *vectors):
    """What does not depend on the phases of vectors."""
    flat = [tf.reshape(tf.math.real(values), [-1])]
    for one in vectors:
        product = one * tf.math.conj(one[..., :1, :])
        flat += [
            tf.reshape(part(product), [-1]) for part in (tf.math.real, tf.math.imag)
        ]
    if len(vectors) == 2:
        product = vectors[0][..., :1, :] * tf.math.conj(vectors[1][..., :1, :])
        flat.append(tf.reshape(tf.math.imag(product) + tf.math.real(product), [-1]))
    return tf.concat(flat, 0)


def singular(shape, **options):
    return lambda x: of_vectors(*tf.linalg.svd(tf.reshape(x, shape), **options))


def tridiagonal(**options):
    return lambda x: tf.linalg.eigh_tridiagonal(x[:4], x[4:], **options)


CASES = {
    "det": (
        "MatrixDeterminant",
        lambda x: parts([tf.linalg.det(matrix(x))]),
        normal(8),
    ),
    "svd, complex": (
        "Svd",
        lambda x: of_vectors(*tf.linalg.svd(tf.reshape(complex_of(x), [2, 3]))),
        normal(12),
    ),
    "svd": (None, singular([3, 3]), normal(9)),
    "svd, wide": (None, singular([2, 3]), normal(6)),
    "svd, tall": (None, singular([2, 3, 2]), normal(12)),
    "svd, full": (None, singular([2, 2], full_matrices=True), normal(4)),
    "singular values": (
        None,
        lambda x: tf.linalg.svd(tf.reshape(x, [2, 3]), compute_uv=False),
        normal(6),
    ),
    "singular values of c · I": (
        None,
        lambda x: tf.linalg.svd(x[0] * tf.eye(3, dtype=x.dtype), compute_uv=False) ** 3,
        np.array([1.3]),
    ),
    "pinv": (None, lambda x: tf.linalg.pinv(tf.reshape(x, [3, 2])), normal(6)),
    "eigh": (None, lambda x: of_vectors(*tf.linalg.eigh(symmetric(x))), normal(9)),
    "eigh, complex": (
        None,
        lambda x: of_vectors(*tf.linalg.eigh(hermitian(x))),
        normal(18),
    ),
    "eig": (
        None,
        lambda x: of_vectors(*tf.linalg.eig(matrix(x))),
        np.array([1.0, 0.3, -0.2, 2.5, 0.4, -0.6, 0.7, -1.1]),
    ),
    "eigvalsh": (
        None,
        lambda x: tf.linalg.eigvalsh(tf.reshape(x, [2, 2, 2])),
        normal(8),
    ),
    "eigvalsh of equal values": (
        None,
        lambda x: tf.linalg.eigvalsh(tf.linalg.diag([x[0], x[0], x[1]])) ** 3,
        np.array([1.3, 0.4]),
    ),
    "eigh_tridiagonal": ((tf.linalg, "eigh_tridiagonal"), tridiagonal(), normal(7)),
    "eigh_tridiagonal, some": (
        (tf.linalg, "eigh_tridiagonal"),
        tridiagonal(select="i", select_range=(1, 2)),
        normal(7),
    ),
    "eigh_tridiagonal, between": (
        (tf.linalg, "eigh_tridiagonal"),
        tridiagonal(select="v", select_range=(-1.5, 1.0)),
        np.array([0.4, -1.2, 0.7, 2.1, 0.5, -0.3, 0.8]),
    ),
    "eigh_tridiagonal, vectors": (
        None,
        lambda x: of_vectors(*tridiagonal(eigvals_only=False)(x)),
        normal(7),
    ),
    "eigh_tridiagonal, complex": (
        (tf.linalg, "eigh_tridiagonal"),
        lambda x: tf.linalg.eigh_tridiagonal(
            tf.complex(x[:3], tf.zeros(3, x.dtype)), tf.complex(x[3:5], x[5:])
        ),
        normal(7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    assert_derivatives(*CASES[name][1:])


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    assert_wrong_without(*CASES[name])


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
@pytest.mark.parametrize("name", ["eigh, complex", "eig", "svd, complex"])
def test_phases_of_complex_vectors_are_no_silent_numbers(name, mode):
    """Another choice than the derivative's; what does not depend on them is right."""

    def by_phases(x):
        matrix = tf.reshape(complex_of(x), [2, 2])
        if name == "eig":
            vectors = tf.linalg.eig(matrix)[1]
        elif name[0] == "e":
            vectors = tf.linalg.eigh(matrix + tf.linalg.adjoint(matrix))[1]
        else:
            vectors = tf.linalg.svd(matrix)[1]
        return parts(tf.reshape(vectors, [-1]))

    def problem(function, start):
        w = keras.Variable(start, dtype="float64", name="w")
        rate = far.Hyperparameter(0.01, name="rate", dtype="float64")
        return far.BilevelProblem(
            lambda: tf.reduce_sum(tf.sin(1 + function(w.value))),
            lambda: tf.reduce_sum(w.value**3),
            *([w], far.GradientDescent(rate), [rate]),
        )

    with pytest.raises(far.NonFiniteError):
        mode.compute(problem(by_phases, np.cos(np.arange(8.0))), 2)
    _, function, start = CASES[name]
    found = mode.compute(problem(function, start), 2).hypergradients

    def run(rate):
        w = tf.constant(start)
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = tf.reduce_sum(tf.sin(1 + function(w)))
            w -= rate * tape.gradient(value, w)
        return float(tf.reduce_sum(w**3))

    exact = (run(0.01 + WIDTH) - run(0.01 - WIDTH)) / (2 * WIDTH)
    assert_close(found, [exact], 1e-6)


def test_determinants_that_are_rounding_are_no_silent_numbers():
    draw = normals()
    start = draw(3, 2) @ draw(2, 3)
    w = keras.Variable(start, dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
    problem = far.BilevelProblem(
        lambda: tf.sin(tf.linalg.det(w.value)),
        lambda: tf.reduce_sum(w.value**3),
        *([w], far.GradientDescent(rate), [rate]),
    )
    # By NaN, or where TensorFlow meets a pivot of zero.
    with pytest.raises(ValueError, match=r"that is singular|are not singular"):
        far.ReverseHG(jit_compile=False).compute(problem, 2)


# Functions of values that are equal, smooth but for derivatives that are not
# determined by one vector each.
UNDETERMINED = {
    "eigvals": lambda w: tf.reduce_sum(tf.math.real(tf.linalg.eigvals(w) ** 2)),
    "eigvalsh": lambda w: tf.reduce_sum(tf.linalg.eigvalsh(w + tf.transpose(w)) ** 3),
    "svd": lambda w: tf.reduce_sum(tf.linalg.svd(w, compute_uv=False) ** 4),
}


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
@pytest.mark.parametrize("name", UNDETERMINED)
@pytest.mark.parametrize("size", [0.0, 1.3])
def test_multiples_of_the_identity_are_no_silent_zeros(size, name, mode):
    """Nor is the matrix of zeros, where all that is multiplied with values vanishes."""
    start, scale = size * np.eye(3), np.arange(9.0).reshape(3, 3)
    w = keras.Variable(start, dtype="float64", name="w")
    shift = far.Hyperparameter(0.0, name="shift", dtype="float64")
    problem = far.BilevelProblem(
        lambda: UNDETERMINED[name](w.value),
        lambda: tf.reduce_sum(tf.sin(w.value) * scale),
        *([w], far.GradientDescent(0.1), [shift]),
        initial_values=[(w, lambda: start + shift.value * scale)],
    )
    with pytest.raises(far.NonFiniteError, match="singular values that are equal"):
        mode.compute(problem, 1)


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
@pytest.mark.parametrize("name", [n for n in UNDETERMINED if n != "eigvals"])
def test_equal_values_are_no_silent_zeros(name, mode):
    """The identity is refused; what stays diagonal is right, and is not."""

    def problem(start, direction, weights):
        w = keras.Variable(start, dtype="float64", name="w")
        shift = far.Hyperparameter(0.0, name="shift", dtype="float64")
        return far.BilevelProblem(
            lambda: UNDETERMINED[name](w.value),
            lambda: tf.reduce_sum(tf.sin(w.value) * weights),
            variables=[w],
            dynamics=far.GradientDescent(0.1),
            hyperparameters=[shift],
            initial_values=[(w, lambda: start + shift.value * direction)],
        )

    any_matrix = np.arange(9.0).reshape(3, 3)
    with pytest.raises(far.NonFiniteError, match="singular values that are equal"):
        mode.compute(problem(np.eye(3), any_matrix, any_matrix), 1)
    turn = np.linalg.qr(np.random.RandomState(1).randn(3, 3))[
        0
    ]  # Equal but for rounding.
    with pytest.raises(far.NonFiniteError, match="singular values that are equal"):
        start = turn @ np.diag([1.0, 1, 2]) @ turn.T
        mode.compute(problem(start, any_matrix, any_matrix), 1)
    start, direction, weights = np.diag([1.0, 1, 2]), np.eye(3), np.diag([1.0, 2, 3])

    def run(shift):
        w = tf.constant(start + shift * direction)
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = UNDETERMINED[name](w)
        w -= 0.1 * tape.gradient(value, w)
        return (np.sin(w) * weights).sum()

    result = mode.compute(problem(start, direction, weights), 1)
    exact = (run(WIDTH) - run(-WIDTH)) / (2 * WIDTH)
    assert_close(result.hypergradients, [exact], 1e-7)
