"""Derivatives that TensorFlow lacks, most of them second ones, against differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, own_derivative, relative_error, slope

RANDOM = np.random.RandomState(0)
IMAGE = RANDOM.randn(1, 4, 4, 3).astype("float32")
DOUBLE = RANDOM.randn(2, 4, 4, 2)
HSV = np.r_[np.linspace(0.01, 0.97, 9), 0.2 + 0.6 * RANDOM.rand(18)]
HSV = HSV.reshape(3, 9).T.copy()
ROWS = RANDOM.randn(3, 2)
# Single precision, which images are scaled in, and what it lets through.
WIDTHS = {"float32": (1e-2, 5e-3), "float64": (1e-5, 1e-7)}


def resized(size=(8, 7), **options):
    return lambda x: tf.image.resize(x, size, **options)


def normalized(*arguments):
    return lambda x: tf.nn.local_response_normalization(x, *arguments)


def cropped(method):
    boxes = [[0.1, 0.1, 0.9, 0.9], [0.8, 0.2, 0.1, 0.7]]
    return lambda x: tf.image.crop_and_resize(x, boxes, [0, 0], [3, 2], method)


def segments(reduce):
    return lambda x: reduce(x, tf.constant([0, 1, 1, 2]), tf.constant([0, 0, 2, 2]))


def pooled(**options):
    return lambda x: tf.nn.max_pool_with_argmax(x, 2, padding="SAME", **options)[0]


def counts(values, **options):
    return lambda x: tf.math.bincount(tf.constant(values), weights=x, **options)


def saturated(x):
    return tf.image.hsv_to_rgb(tf.image.rgb_to_hsv(x) * [1.0, 1.2, 1.0])


def embedded(x):
    places = tf.sparse.from_dense([[1, 2, 0], [3, 0, 0]])
    ids = tf.sparse.map_values(lambda numbers: numbers - 1, places)
    return tf.nn.embedding_lookup_sparse(x, ids, None, combiner="mean")


# A type of operation, a function and a point.
CASES = {
    "softsign": ("SoftsignGrad", tf.nn.softsign, RANDOM.randn(4)),
    "Activation('softsign')": (
        "SoftsignGrad",
        keras.layers.Activation("softsign", dtype="float64"),
        RANDOM.randn(4),
    ),
    "bilinear": ("ResizeBilinear", resized(), IMAGE),
    "bilinear, in double": ("ResizeBilinear", resized(), DOUBLE),
    "bilinear, corners": (
        "ResizeBilinear",
        lambda x: tf.compat.v1.image.resize_bilinear(x, [5, 9], align_corners=True),
        IMAGE,
    ),
    "Resizing": ("ResizeBilinear", keras.layers.Resizing(3, 5), IMAGE),
    "UpSampling2D": (
        "ResizeBilinear",
        keras.layers.UpSampling2D(2, interpolation="bilinear"),
        IMAGE,
    ),
    "nearest": ("ResizeNearestNeighborGrad", resized(method="nearest"), IMAGE),
    "bicubic": ("ResizeBicubicGrad", resized(method="bicubic"), IMAGE),
    "lanczos3": ("ScaleAndTranslateGrad", resized(method="lanczos3"), IMAGE),
    "antialias": ("ScaleAndTranslateGrad", resized([3, 2], antialias=True), IMAGE),
    "crop_and_resize": ("CropAndResizeGradImage", cropped("bilinear"), IMAGE),
    "crop_and_resize, nearest": ("CropAndResizeGradImage", cropped("nearest"), IMAGE),
    "segment_sum": ("SparseSegmentSumGrad", segments(tf.sparse.segment_sum), ROWS),
    "segment_mean": ("SparseSegmentMeanGrad", segments(tf.sparse.segment_mean), ROWS),
    "segment_sqrt_n": (
        "SparseSegmentSqrtNGrad",
        segments(tf.sparse.segment_sqrt_n),
        ROWS,
    ),
    "embedding_lookup_sparse": ("SparseSegmentMeanGradV2", embedded, ROWS),
    "max_pool_with_argmax": ("MaxPoolGradWithArgmax", pooled(strides=2), DOUBLE),
    "max_pool_with_argmax, overlapping": (
        "MaxPoolGradWithArgmax",
        pooled(strides=1, include_batch_in_index=True),
        DOUBLE,
    ),
    "bincount": (
        "DenseBincount",
        counts([0, 1, 5, 1], minlength=3, maxlength=4),
        RANDOM.randn(4),
    ),
    "bincount, rows": (
        "DenseBincount",
        counts([[0, 1, 5, 1], [2, 1, 0, 0]], axis=-1),
        RANDOM.randn(2, 4),
    ),
    "hsv_to_rgb": (None, tf.image.hsv_to_rgb, HSV),
    "hsv_to_rgb, saturation": (None, saturated, HSV),
    "local_response_normalization": ("LRN", normalized(1, 0.7, 0.4, 0.6), IMAGE),
}


def derivatives(function, x):
    """A function of x: f's weighted sum of sines, its gradient and H·d; and d."""
    direction = tf.constant(np.cos(np.arange(x.size)).reshape(x.shape), x.dtype)

    def total(x):
        value = tf.reshape(tf.cast(function(x), x.dtype), [-1])
        weights = tf.cast(tf.range(1, tf.size(value) + 1), x.dtype)
        return tf.reduce_mean(weights * tf.sin(1 + value))

    @tf.function(autograph=False)
    def all_of_them(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = total(x)
            gradient = tf.convert_to_tensor(inner.gradient(value, x))
        product = outer.gradient(gradient, x, direction)
        return value, gradient, None if product is None else product + tf.zeros_like(x)

    return all_of_them, direction


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name):
    _, function, x = CASES[name]
    width, tolerance = WIDTHS[str(x.dtype)]
    if x is DOUBLE and name.startswith("bilinear"):  # In single precision all the same.
        width, tolerance = WIDTHS["float32"]
    call, direction = derivatives(function, x)
    _, gradient, product = call(x)
    up, down = call(x + width * direction), call(x - width * direction)
    first = tf.reduce_sum(gradient * direction)
    assert relative_error(first, (up[0] - down[0]) / (2 * width)) < tolerance
    assert relative_error(product, (up[1] - down[1]) / (2 * width)) < tolerance


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0]])
def test_without_the_patch_they_are_not(name):
    kind, function, x = CASES[name]
    call, _ = derivatives(function, x)
    product = call(x)[2]
    with own_derivative(kind):
        call, _ = derivatives(function, x)
        try:
            found = call(x)[2]
        except LookupError:
            return
    if kind == "LRN":
        pytest.fail("TensorFlow has its second derivative.")
    assert found is None or relative_error(found, product) > 0.1


def test_colors_are_the_same_to_the_bit():
    """problem/test_faults.py shows that TensorFlow has no derivative."""
    colors = np.r_[HSV, [[0.5, 0.0, 0.3], [1 / 3, 1.0, 1.0], [1.0, 0.2, 0.0]]]
    colors = tf.constant(colors, tf.float32)
    own = tf.raw_ops.HSVToRGB(images=colors).numpy()
    for function in (tf.image.hsv_to_rgb, keras.ops.image.hsv_to_rgb):
        found = tf.function(function)(colors[tf.newaxis])[0]
        assert np.array_equal(found, own)


MODES = [far.ReverseHG(), far.ForwardHG()]


@pytest.mark.parametrize("mode", MODES)
def test_hypergradients_of_a_network_of_them(mode):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 5, 1)),
            keras.layers.Conv2D(2, 2, activation="softsign"),
            keras.layers.UpSampling2D(2, interpolation="bilinear"),
            keras.layers.Resizing(3, 3, interpolation="nearest"),
            keras.layers.Lambda(tf.nn.local_response_normalization),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    images = np.random.RandomState(1).randn(4, 5, 5, 1).astype("float32")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_mean((model(images) - 1.0) ** 2),
        lambda: tf.reduce_mean((model(images[::-1]) - 2.0) ** 2),
        *(model, far.GradientDescent(rate), [rate]),
    )
    expected = slope(mode, problem, 4, 3e-3, (rate, 1.0))
    assert_close(mode.compute(problem, 4).hypergradients, [expected], 1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_boxes_by_which_a_learned_image_is_cropped(mode):
    """Boxes that hyperparameters move, of an image that is trained."""
    image = keras.Variable(IMAGE[..., :1], name="image")
    side = far.Hyperparameter(0.6, name="side")

    def loss():
        box = tf.stack([0.1, 0.1, tf.convert_to_tensor(side), 0.6])
        crop = tf.image.crop_and_resize(image, box[tf.newaxis], [0], [3, 3])
        return tf.reduce_sum((crop - 1.0) ** 2)

    problem = far.BilevelProblem(
        loss,
        lambda: tf.reduce_sum(image**3.0),
        *([image], far.GradientDescent(0.1), [side]),
    )
    if isinstance(mode, far.ForwardHG):
        with pytest.raises(ValueError, match="CropAndResizeGradBoxes"):
            mode.compute(problem, 1)
        return
    expected = slope(mode, problem, 1, 5e-3, (side, 1.0))
    assert_close(mode.compute(problem, 1).hypergradients, [expected], 1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_bags_of_words(mode):
    """Rows of an embedding, averaged: the optimizer moves those that were read."""
    table = keras.Variable(0.3 * RANDOM.randn(5, 2), dtype="float64", name="table")
    rate = far.Hyperparameter(0.05, dtype="float64", name="rate")
    places = tf.sparse.from_dense([[1, 2, 0], [2, 4, 1]])
    ids = tf.sparse.map_values(lambda numbers: numbers - 1, places)

    def loss():
        means = tf.nn.embedding_lookup_sparse(table.value, ids, None, combiner="mean")
        return tf.reduce_sum((means - 1.0) ** 4)

    dynamics = far.KerasDynamics(
        keras.optimizers.Adam(), {"learning_rate": rate, "epsilon": 1e-2}
    )
    problem = far.BilevelProblem(
        loss, lambda: tf.reduce_sum(table.value**3), [table], dynamics, [rate]
    )
    expected = slope(mode, problem, 4, 1e-5, (rate, 1.0))
    assert_close(mode.compute(problem, 4).hypergradients, [expected], 1e-6)
