"""Images under projective transforms: TensorFlow's values, and their derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_image_ops

import far_ho_tf as far
from tests.differences import turns
from tests.helpers import assert_close

RANDOM = np.random.RandomState(0)
IMAGES = RANDOM.rand(2, 5, 6, 3)


def transforms(count):
    near = np.array([[1, 0, 0, 0, 1, 0, 0, 0]] * count)
    spread = np.array([0.3, 0.3, 1.5, 0.3, 0.3, 1.5, 0.02, 0.02])
    return (near + spread * RANDOM.randn(count, 8)).astype("float32")


@pytest.mark.parametrize("interpolation", ["BILINEAR", "NEAREST"])
@pytest.mark.parametrize("fill_mode", ["CONSTANT", "REFLECT", "WRAP", "NEAREST"])
def test_values_are_those_of_tensorflow(fill_mode, interpolation):
    for count in (1, 2, 1, 2, 1, 2):
        images = tf.constant(IMAGES, tf.float32)
        options = {
            "images": images,
            "transforms": transforms(count),
            "output_shape": [4, 7],
            "fill_value": tf.constant(0.3),
            "interpolation": interpolation,
            "fill_mode": fill_mode,
        }
        expected = gen_image_ops.image_projective_transform_v3(**options)
        with tf.GradientTape() as tape:
            tape.watch(options["fill_value"])
            found = tf.raw_ops.ImageProjectiveTransformV3(**options)
        assert np.ptp(expected) > 0.2
        np.testing.assert_allclose(found, expected, atol=2e-7)
        # TensorFlow's own has no derivative in it.
        assert tape.gradient(found, options["fill_value"]) is not None


def affine(images, angle):
    cosine, sine, zero = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
    row = [cosine, -sine, 0.3 + angle, sine, cosine, 0.2 - angle, zero, zero]
    return keras.ops.image.affine_transform(images, tf.stack(row))


def perspective(images, angle):
    corners = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 4.0], [5.0, 4.0]], "float32")
    moves = np.array([[0.6, 0.3], [-0.4, 0.5], [0.2, -0.6], [-0.3, -0.2]], "float32")
    points = corners + angle * moves
    return keras.ops.image.perspective_transform(images, points, tf.constant(corners))


@pytest.mark.parametrize("transform", [affine, perspective])
@pytest.mark.parametrize(
    "mode", [far.ReverseHG(jit_compile=False), far.ForwardHG(jit_compile=False)]
)
def test_a_learned_augmentation(transform, mode):
    """The transform of the training images, and learned images, against differences."""
    images = tf.constant(IMAGES, tf.float32)
    scores = tf.constant(RANDOM.randn(2), tf.float32)
    w = keras.Variable(0.1 * RANDOM.randn(5, 6, 3).astype("float32"), name="w")
    start = w.numpy()
    angle = far.Hyperparameter(0.23, name="angle")
    scale = far.Hyperparameter(1.1, name="scale")

    def loss(images, w):
        return tf.reduce_mean((tf.einsum("bhwc,hwc->b", images, w) - scores) ** 2)

    problem = far.BilevelProblem(
        lambda: loss(transform(images * scale**2, angle.value), w.value),
        lambda: loss(transform(images, angle.value / 2), w.value),
        *([w], far.GradientDescent(0.05), [angle, scale]),
    )

    def run(angle, scale):
        v, angle = tf.constant(start), tf.constant(angle, tf.float32)
        for _ in range(3):
            with tf.GradientTape() as tape:
                tape.watch(v)
                value = loss(transform(images * scale**2, angle), v)
            v -= 0.05 * tape.gradient(value, v)
        return float(loss(transform(images, angle / 2), v))

    result = mode.compute(problem, 3)
    assert_close([result.outer_value], [run(0.23, 1.1)], 1e-5)
    width = 1e-3
    expected = [
        (run(0.23 + width, 1.1) - run(0.23 - width, 1.1)) / (2 * width),
        (run(0.23, 1.1 + width) - run(0.23, 1.1 - width)) / (2 * width),
    ]
    assert_close(result.hypergradients, expected, 5e-3)


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
