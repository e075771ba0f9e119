"""What is patched, against differences; and the faults in TensorFlow and Keras.

A row whose fault is not found any more can be dropped, with its patch.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import nn
from keras.src.backend.tensorflow import numpy as keras_numpy
from tensorflow.python.ops import gen_math_ops

import far_ho_tf as far
from far_ho_tf.patches import linear_algebra, zeros_and_ties
from tests.helpers import assert_close, own_derivative

WIDTH = 1e-5
# Whose second derivatives jump where they are looked at.
BENT = ("celu at zero",)
RANDOM = np.random.RandomState(0)


def normal(*shape):
    return RANDOM.randn(*shape)


def complex_of(x):
    """A complex tensor of the halves of a vector, as a square matrix or a vector."""
    real, imaginary = tf.split(x, 2)
    return tf.complex(real, imaginary)


def matrix(x, size=2):
    return tf.reshape(complex_of(x), [size, size])


def parts(z):
    return tf.concat([tf.math.real(z), tf.math.imag(z)], -1)


def stitched(x):
    return tf.dynamic_stitch([[0, 1, 2], [1, 3], [0]], [x[:3], x[3:5], x[5:6]])


def written_over(x):
    return tf.tensor_scatter_nd_update(x[:3], [[0], [2], [0]], x[3:6])


def written_rows(x):
    rows = tf.reshape(x, [4, 2])
    return tf.tensor_scatter_nd_update(rows[:2], [[1], [1]], rows[2:])


def times_itself(x):
    size = tf.abs(x)
    return size * size


def multiple_times_itself(x):
    size = x[0] * tf.abs(x[1:])
    return size * size


def weighted_cross_entropy(labels, logits, weight):
    return tf.nn.weighted_cross_entropy_with_logits(labels, logits, weight)


def spread(x):
    """Distinct numbers, the first of which are x."""
    return tf.concat([x, tf.constant([0.7, -0.4], x.dtype)], 0)


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


FUSED = tf.compat.v1.nn.fused_batch_norm
IMAGES = RANDOM.randn(2, 2, 3, 2).astype("float32")


def fused(**options):
    """In float32, which its kernel works in."""

    def function(x):
        x = tf.cast(x, tf.float32)
        images = IMAGES + tf.reshape(x[:2], [1, 1, 1, 2]) * IMAGES**2
        given = (x[6:8], x[8:10] ** 2 + 1) if not options.get("is_training") else ()
        outputs = FUSED(images, x[2:4], x[4:6], *given, **options)
        return tf.cast(tf.concat([tf.reshape(y, [-1]) for y in outputs], 0), "float64")

    return function


# What is put out of place to see the fault: a type of operation; or a module, a name
# there and what stood there.
CASES = {
    "det": (
        "MatrixDeterminant",
        lambda x: parts([tf.linalg.det(matrix(x))]),
        normal(8),
    ),
    "slogdet": (
        "LogMatrixDeterminant",
        lambda x: parts(tf.stack(tf.linalg.slogdet(matrix(x)))),
        normal(8),
    ),
    "slogdet, real": (
        None,
        lambda x: tf.linalg.slogdet(tf.reshape(x, [2, 2, 2]))[1],
        normal(8),
    ),
    "sqrtm": (
        "MatrixSquareRoot",
        lambda x: parts(tf.linalg.sqrtm(matrix(x))),
        np.array([3, 0.2, -0.1, 2, 0.3, 0.2, -0.4, 0.1]),
    ),
    "sqrtm, a batch": (
        None,
        lambda x: tf.linalg.sqrtm(
            3 * tf.eye(2, dtype=x.dtype) + tf.reshape(x, [2, 2, 2])
        ),
        0.3 * normal(8),
    ),
    "squared_difference": (
        "SquaredDifference",
        lambda x: parts(tf.math.squared_difference(*tf.split(complex_of(x), [1, 3]))),
        normal(8),
    ),
    "multiply_no_nan": (
        "MulNoNan",
        lambda x: parts(tf.math.multiply_no_nan(*tf.split(complex_of(x), 2))),
        normal(8),
    ),
    "xdivy": (
        "Xdivy",
        lambda x: parts(tf.math.xdivy(*tf.split(complex_of(x), [1, 3]))),
        normal(8),
    ),
    "xlogy": (
        "Xlogy",
        lambda x: parts(tf.math.xlogy(*tf.split(complex_of(x), 2))),
        normal(8),
    ),
    "cumprod": ("Cumprod", lambda x: parts(tf.math.cumprod(complex_of(x))), normal(8)),
    "reduce_prod": (
        "Cumprod",
        lambda x: parts([tf.reduce_prod(complex_of(x))]),
        normal(8),
    ),
    "log of |product|": (
        "Cumprod",
        lambda x: tf.math.log(tf.abs(tf.reduce_prod(complex_of(x)))),
        normal(6),
    ),
    "segment_prod": (
        "SegmentProd",
        lambda x: parts(tf.math.segment_prod(complex_of(x), [0, 0, 1])),
        normal(6),
    ),
    "segment_prod, of any length": (
        "SegmentProd",
        lambda x: parts(
            tf.math.segment_prod(
                complex_of(x), tf.boolean_mask([0, 0, 1], tf.abs(x[:3]) >= 0)
            )
        ),
        normal(6),
    ),
    "unsorted_segment_prod": (
        "UnsortedSegmentProd",
        lambda x: parts(tf.math.unsorted_segment_prod(complex_of(x), [1, 0, 1], 2)),
        normal(6),
    ),
    "segment_prod at two zeros": (
        "SegmentProd",
        lambda x: tf.math.segment_prod(x, [0, 0, 0, 0, 1]),
        np.array([0.0, 0.85, 0.4, 0.0, 0.3]),
    ),
    "unsorted_segment_prod at two zeros": (
        "UnsortedSegmentProd",
        lambda x: tf.math.unsorted_segment_prod(
            tf.reshape(x, [3, 2]), [[1, 0], [1, -1], [1, 1]], 3
        ),
        np.array([0.0, 0.85, 0.4, 0.7, 0.0, 0.3]),
    ),
    "unsorted_segment_prod, rows": (
        None,
        lambda x: tf.math.unsorted_segment_prod(tf.reshape(x, [3, 2]), [1, 0, 1], 2),
        np.array([0.0, 0.85, 0.4, 0.7, 0.0, 0.3]),
    ),
    "tridiagonal_solve": (
        "TridiagonalSolve",
        lambda x: parts(
            tf.linalg.tridiagonal_solve(
                tf.reshape(complex_of(x[:18]), [3, 3]), complex_of(x[18:])
            )
        ),
        np.r_[normal(3), 4 + normal(3), normal(18)],
    ),
    "reduce_euclidean_norm": (
        "EuclideanNorm",
        lambda x: parts(tf.math.reduce_euclidean_norm(complex_of(x), keepdims=True)),
        normal(6),
    ),
    "isotonic_regression": (
        "IsotonicRegression",
        lambda x: tf.nn.isotonic_regression(x)[0],
        np.array([0.1, 0.5, 0.2, 0.9, 0.3]),
    ),
    "isotonic_regression, rows": (
        None,
        lambda x: tf.nn.isotonic_regression(tf.reshape(x, [2, 3]), False)[0],
        normal(6),
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
    "pad": (
        "PadV2",
        lambda x: tf.pad(x[:2], [[1, 2]], constant_values=x[2]),
        normal(3),
    ),
    "pad, images": (
        "PadV2",
        lambda x: tf.pad(
            tf.reshape(x[:4], [1, 2, 2]), [[0, 0], [1, 0], [0, 1]], constant_values=x[4]
        ),
        normal(5),
    ),
    "diag, padded": (
        "MatrixDiagV3",
        lambda x: tf.linalg.diag(
            tf.reshape(x[:6], [2, 3]), k=(0, 1), num_cols=4, padding_value=x[6]
        ),
        normal(7),
    ),
    "diag_part, padded": (
        "MatrixDiagPartV3",
        lambda x: tf.linalg.diag_part(
            tf.reshape(x[:9], [3, 3]), k=(-1, 1), padding_value=x[9], align="LEFT_LEFT"
        ),
        normal(10),
    ),
    "dynamic_stitch": ("DynamicStitch", stitched, normal(6)),
    "tensor_scatter_nd_update": ("TensorScatterUpdate", written_over, normal(6)),
    "tensor_scatter_nd_update, rows": ("TensorScatterUpdate", written_rows, normal(8)),
    "cumprod at zero": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x)),
        np.array([0.85, 0.0, 0.3]),
    ),
    "cumprod at zeros, exclusive": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x), exclusive=True),
        np.array([0.0, 0.5, 0.0]),
    ),
    "cumprod at zero, reverse": (
        "Cumprod",
        lambda x: tf.math.cumprod(tf.reshape(spread(x), [1, 5]), axis=1, reverse=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "cumprod at zero, both": (
        "Cumprod",
        lambda x: tf.math.cumprod(spread(x), axis=-1, exclusive=True, reverse=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "reduce_prod at zero": (
        "Cumprod",
        lambda x: tf.reduce_prod(spread(x), keepdims=True),
        np.array([0.85, 0.0, 0.3]),
    ),
    "reduce_prod at two zeros": (
        "Cumprod",
        lambda x: tf.reduce_prod(spread(x), keepdims=True),
        np.array([0.0, 0.85, 0.0]),
    ),
    "bessel_i0 at zero": ("BesselI1", tf.math.special.bessel_i0, np.zeros(1)),
    "keras.ops.i0 at zero": ("BesselI1", keras.ops.i0, np.zeros(1)),
    "bessel_i1 at zero": ("BesselI1", tf.math.special.bessel_i1, np.zeros(1)),
    "bessel_j1 at zero": ("BesselJ1", tf.math.special.bessel_j1, np.zeros(1)),
    "xlogy at zero": (
        "Xlogy",
        lambda x: tf.math.xlogy(x[0], x[1:]),
        np.array([0.0, 0.3, 2.0]),
    ),
    "xlog1py at zero": (
        "Xlog1py",
        lambda x: tf.math.xlog1py(x[0], x[1:]),
        np.array([0.0, 0.3, 2.0]),
    ),
    "xdivy at zero": (
        "Xdivy",
        lambda x: tf.math.xdivy(x[0], x[1:]),
        np.array([0.0, 0.3, -2.0]),
    ),
    "celu at zero": ((nn, "celu"), keras.activations.celu, np.array([0.0, 0.3, -0.4])),
    "logaddexp at a tie": (
        (keras_numpy, "logaddexp"),
        lambda x: keras.ops.logaddexp(x, tf.constant([0.5, 0.5], x.dtype)),
        np.array([0.5, 0.2]),
    ),
    "logaddexp2 at a tie": (
        (keras_numpy, "logaddexp2"),
        lambda x: keras.ops.logaddexp2(x, tf.reverse(x, [0])),
        np.array([0.5, 0.5]),
    ),
    "hypot at zero": (
        (keras_numpy, "hypot"),
        lambda x: keras.ops.hypot(x, tf.reverse(x, [0])),
        np.array([0.0, 1.0]),
    ),
    "hypot at a tie": (
        (keras_numpy, "hypot"),
        lambda x: keras.ops.hypot(x, tf.reverse(x, [0])),
        np.array([1.5, -1.5]),
    ),
    "sinc at zero": ((keras_numpy, "sinc"), keras.ops.sinc, np.array([0.0, 0.4])),
    "sinc near zero": (
        (keras_numpy, "sinc"),
        keras.ops.sinc,
        np.array([1e-9, -1e-5, 2e-3, 0.02, 0.05]),
    ),
    "logaddexp of NumPy": (
        None,
        lambda x: tf.experimental.numpy.logaddexp(x, 0.5),
        np.array([0.5, 0.2]),
    ),
    "logaddexp2 of NumPy": (
        None,
        lambda x: tf.experimental.numpy.logaddexp2(x, tf.reverse(x, [0])),
        np.array([0.5, 0.5]),
    ),
    "weighted cross-entropy at zero": (
        (tf.nn, "weighted_cross_entropy_with_logits"),
        lambda x: weighted_cross_entropy(np.array([0.2, 1.0, 0.0]), x, 2.5),
        np.array([0.0, 0.3, -0.4]),
    ),
    "|x| ** 2": (
        (gen_math_ops, "_pow"),
        lambda x: tf.abs(x) ** 2,
        np.array([0.0, 0.3]),
    ),
    "|x| · |x|": (
        (gen_math_ops, "mul"),
        times_itself,
        np.array([0.0, 0.3]),
    ),
    "|x| times another |x|": (
        (gen_math_ops, "mul"),
        lambda x: tf.abs(x) * keras.ops.abs(x),
        np.array([0.0, 0.3]),
    ),
    "square of |x|": (
        (tf, "square"),
        lambda x: tf.square(tf.abs(x)),
        np.array([0.0, 0.3]),
    ),
    "keras.ops.square of |x|": (
        (tf, "square"),
        lambda x: keras.ops.square(keras.ops.abs(x)),
        np.array([0.0, 0.3]),
    ),
    "a part of |x|, squared": (
        (tf, "square"),
        lambda x: tf.square(tf.reshape(tf.transpose(tf.abs(x)[1:, tf.newaxis]), [2])),
        np.array([0.2, 0.0, 0.3]),
    ),
    "a multiple of |x|, squared": (
        (gen_math_ops, "_pow"),
        lambda x: (x[0] * tf.abs(x[1:]) / 3) ** 2,
        np.array([1.7, 0.0, 0.3]),
    ),
    "a multiple of |x|, times itself": (
        (gen_math_ops, "mul"),
        multiple_times_itself,
        np.array([1.7, 0.0, 0.3]),
    ),
    "a part of a power spectrum": (
        (tf, "square"),
        lambda x: tf.square(tf.abs(tf.signal.rfft(x[1:]))[1:] * x[0]),
        np.array([1.3, 0.0, 0.0, 0.0, 0.0]),
    ),
    "|z| ** 2": (
        (gen_math_ops, "_pow"),
        lambda x: tf.abs(complex_of(x)) ** 2,
        np.array([0.0, 0.3, 0.0, 0.4]),
    ),
}
ORIGINALS = {
    "weighted_cross_entropy_with_logits": zeros_and_ties._weighted_cross_entropy,
    "eigh_tridiagonal": linear_algebra._eigh_tridiagonal,
    "celu": zeros_and_ties._celu,
    "logaddexp": zeros_and_ties._logaddexp,
    "logaddexp2": zeros_and_ties._logaddexp2,
    "hypot": zeros_and_ties._hypot,
    "sinc": zeros_and_ties._sinc,
    "_pow": zeros_and_ties._power,
    "mul": zeros_and_ties._multiply,
    "square": zeros_and_ties._square,
}


# Values of functions that are written another way.
VALUES = {
    "celu": (keras.activations.celu, [normal(50)]),
    "logaddexp": (keras.ops.logaddexp, [normal(50), normal(50)]),
    "logaddexp2": (keras.ops.logaddexp2, [normal(50), np.r_[normal(49), np.inf]]),
    "hypot": (keras.ops.hypot, [normal(50), normal(50)]),
    "sinc": (keras.ops.sinc, [np.r_[normal(49), 0.0]]),
    "weighted_cross_entropy_with_logits": (
        weighted_cross_entropy,
        [normal(50), np.r_[normal(49), 0.0], normal(50)],
    ),
    "square": (lambda x: tf.square(tf.abs(x)), [normal(50)]),
    "square, scaled": (
        lambda x, y: tf.square(tf.abs(x)[1:] * y[1:]),
        [normal(50), normal(50)],
    ),
}


@contextlib.contextmanager
def unpatched(what):
    """Within, TensorFlow's own derivative or function is in its place."""
    if isinstance(what, str):
        with own_derivative(what):
            yield
        return
    module, name = what
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(module, name, ORIGINALS[name])
        yield


def derivatives(function, x, jit_compile=False):
    """A weighted sum of sin(1 + f), its gradient, and H·d, as NumPy arrays."""
    direction = tf.constant(1 + np.arange(x.size) / 7.0)

    def total(x):
        value = tf.reshape(function(x), [-1])
        weights = tf.cast(tf.range(1, tf.size(value) + 1), value.dtype)
        return tf.reduce_sum(weights * tf.sin(1 + value))

    @tf.function(autograph=False, jit_compile=jit_compile)
    def all_of_them(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = total(x)
            gradient = inner.gradient(value, x)
        second = outer.gradient(
            gradient, x, direction, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return value, gradient, second

    return all_of_them, direction.numpy()


def errors(function, x, jit_compile=False):
    """Of the gradient and of H·d, relative to what differences give."""
    call, direction = derivatives(function, x, jit_compile)
    _, gradient, second = (one.numpy().ravel() for one in call(tf.constant(x)))
    exact = []
    for index in range(2):
        up, down = (
            call(tf.constant(x + sign * WIDTH * direction))[index].numpy().ravel()
            for sign in (1, -1)
        )
        exact.append((up - down) / (2 * WIDTH))
    first = abs(gradient @ direction - exact[0]) / max(abs(exact[0]), 1e-3)
    norm = max(np.linalg.norm(exact[1]), 1e-3)
    return first, np.linalg.norm(second - exact[1]) / norm


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    _, function, x = CASES[name]
    first, second = errors(function, x)
    if name in BENT:
        assert first < 1e-6
    else:
        assert first < 1e-6 and second < 1e-5, (first, second)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    what, function, x = CASES[name]
    with unpatched(what):
        first, second = errors(function, x)
    assert not (first < 1e-4 and second < 1e-4)


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_same_to_the_bit(name):
    original, inputs = VALUES[name]
    function = tf.function(original, autograph=False)
    patched = function(*map(tf.constant, inputs)).numpy()
    modules = {
        "celu": nn,
        "square": tf,
        "weighted_cross_entropy_with_logits": tf.nn,
    }
    name = name.split(",")[0]
    with unpatched((modules.get(name, keras_numpy), name)):
        own = tf.function(original, autograph=False)
        own = own(*map(tf.constant, inputs)).numpy()
    assert np.array_equal(patched, own, equal_nan=True)


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
    start = normal(3, 2) @ normal(2, 3)
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


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
def test_labels_that_do_not_add_up_to_one(mode):
    """Training goes by a gradient that is none; its derivative is the run's."""
    start = np.array([[0.3, -0.2, 0.5]])
    labels = np.array([[0.5, 0.2, 0.6]])

    def loss(logits, weight):
        return tf.reduce_sum(
            tf.nn.softmax_cross_entropy_with_logits(weight * labels, logits)
        )

    def run(weight):
        w, weight = tf.constant(start), tf.constant(weight, tf.float64)
        for _ in range(3):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = loss(w, weight)
            w -= 0.1 * tape.gradient(value, w)
        return float(loss(w, weight))

    w = keras.Variable(start, dtype="float64", name="w")
    weight = far.Hyperparameter(0.9, name="weight", dtype="float64")
    problem = far.BilevelProblem(
        lambda: loss(w.value, weight.value),
        lambda: loss(w.value, weight.value),
        *([w], far.GradientDescent(0.1), [weight]),
    )
    result = mode.compute(problem, 3)
    exact = (run(0.9 + WIDTH) - run(0.9 - WIDTH)) / (2 * WIDTH)
    assert_close([result.outer_value], [run(0.9)], 1e-12)
    assert_close(result.hypergradients, [exact], 1e-7)


def turns(function, count, start):
    """A sum over turns of a loop, by TensorFlow or by Python."""
    if count < 0:
        return sum(function(float(turn)) for turn in range(-count))
    _, total = tf.while_loop(
        lambda turn, _: turn < count,
        lambda turn, total: (turn + 1, total + function(tf.cast(turn, start.dtype))),
        (0, start),
    )
    return total


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
def test_labels_in_a_loop(mode):
    """Where training and its derivative cannot be parted: only what is one is right."""
    w = keras.Variable([[0.3, -0.2, 0.5]], dtype="float64", name="w")
    weight = far.Hyperparameter(0.9, name="weight", dtype="float64")

    def made(labels, count):
        def loss(turn):
            labelled = tf.nn.softmax_cross_entropy_with_logits(labels, w * (turn + 1))
            return weight * tf.reduce_sum(labelled)

        return far.BilevelProblem(
            lambda: turns(loss, count, tf.zeros([], tf.float64)),
            lambda: tf.reduce_sum(w**3),
            *([w], far.GradientDescent(0.1), [weight]),
        )

    with pytest.raises(ValueError, match="softmax_cross_entropy_with_logits in a loop"):
        mode.compute(made(np.array([[0.5, 0.2, 0.6]]), 2), 3)
    found, expected = (
        mode.compute(made(np.array([[0.5, 0.2, 0.3]]), count), 3, write_back=False)
        for count in (2, -2)
    )
    assert_close(found.hypergradients, expected.hypergradients, 1e-9)


@pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
def test_images_are_moved_in_a_loop(mode):
    image = tf.constant(np.random.RandomState(2).randn(1, 4, 4, 1), tf.float32)
    shift = keras.Variable([0.2, 0.3], name="shift")
    scale = far.Hyperparameter(0.9, name="scale")

    def moved(turn):
        x, y = tf.unstack(shift.value)
        numbers = [scale.value, 0.1, x * (turn + 1), 0.05, 1.0, y, 0.0, 0.0]
        transform = tf.stack([tf.convert_to_tensor(one) for one in numbers])[tf.newaxis]
        made = keras.ops.image.affine_transform(image, transform, "bilinear")
        return tf.reduce_sum((made - image) ** 2)

    def made(count):
        return far.BilevelProblem(
            lambda: turns(moved, count, tf.zeros([])),
            lambda: tf.reduce_sum(shift**3.0),
            *([shift], far.GradientDescent(0.01), [scale]),
        )

    found, expected = (
        mode.compute(made(count), 2, write_back=False) for count in (2, -2)
    )
    assert_close(found.hypergradients, expected.hypergradients, 1e-4)


@pytest.mark.parametrize("patched", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_fused_batch_normalization(is_training, patched):
    """In all that it takes and gives, as what it does by single operations."""

    def plain(x):
        x = tf.cast(x, tf.float32)
        images = IMAGES + tf.reshape(x[:2], [1, 1, 1, 2]) * IMAGES**2
        mean, variance = x[6:8], x[8:10] ** 2 + 1
        if is_training:
            mean, variance = tf.nn.moments(images, [0, 1, 2])
        y = tf.nn.batch_normalization(images, mean, variance, x[4:6], x[2:4], 1e-3)
        if is_training:
            variance *= IMAGES[..., 0].size / (IMAGES[..., 0].size - 1)
        flat = [tf.reshape(one, [-1]) for one in (y, mean, variance)]
        return tf.cast(tf.concat(flat, 0), "float64")

    x = tf.constant(normal(10))
    with contextlib.nullcontext() if patched else unpatched("FusedBatchNormV3"):
        found, expected = (
            derivatives(function, x.numpy())[0](x)
            for function in (fused(is_training=is_training), plain)
        )
    close = [
        np.allclose(*pair, 1e-4, 1e-4) for pair in zip(found, expected, strict=True)
    ]
    assert close[0] and all(close) == patched


def test_selu_has_one_derivative_at_zero():
    """TensorFlow's own, under XLA too, where it was another run."""

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.selu(x)
        return tape.gradient(y, x)

    x = tf.constant(np.r_[0.0, normal(20)])
    found = [
        tf.function(gradient, jit_compile=flag, autograph=False)(x).numpy()
        for flag in (False, True)
    ]
    with unpatched("Selu"):
        own, by_xla = (
            tf.function(gradient, jit_compile=flag, autograph=False)(x).numpy()
            for flag in (False, True)
        )
    assert np.array_equal(found[0], own)
    assert_close(found[1:], [own], 1e-12)
    assert abs(by_xla[0] - own[0]) > 0.1


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
