"""What TensorFlow differentiates or draws wrongly, by the operation that does."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_image_ops

import far_ho_tf as far
from tests.differences import normals

RANDOM = np.random.RandomState(0)
normal = normals()


def fake_quantization(x):
    """Straight-through, times x: its Hessian is not zero."""
    return tf.raw_ops.FakeQuantWithMinMaxArgs(inputs=x, min=-2.0, max=2.0) * 3.0


def sparse_sum(x):
    def sparse(values):
        return tf.SparseTensor(np.array([[0, 1], [1, 0]], np.int64), values, [2, 2])

    return tf.sparse.add(sparse(x), sparse(2 * x)).values


def complex_log(x):
    return tf.math.log(tf.complex(x, x * x))


def complex_root(x):
    return tf.sqrt(tf.complex(x, x * x))


def max_pool(x):
    return tf.nn.max_pool2d(x, 2, 2, "VALID")


def max_pool_3d(x):
    return tf.nn.max_pool3d(x, 2, 2, "VALID")


def reshaped_max_pool(x):
    """The same pooling, of 2-D or 3-D images, by reduce_max."""
    sides = x.shape[1:-1]
    halves = [number for side in sides for number in (side // 2, 2)]
    windows = tf.reshape(x, [x.shape[0], *halves, x.shape[-1]])
    return tf.reduce_max(windows, axis=list(range(2, 2 * len(sides) + 1, 2)))


def projected(x):
    transform = tf.constant([[0.9, 0.1, 0.2, -0.1, 0.95, 0.1, 0, 0]])
    return gen_image_ops.image_projective_transform_v3(
        images=x,
        transforms=transform,
        output_shape=[4, 4],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def glimpse(x):
    return tf.raw_ops.ExtractGlimpse(
        input=x, size=[2, 2], offsets=[[0.0, 0.0]], uniform_noise=False
    )


IMAGE = normal(1, 4, 4, 3, dtype="float32")


MATRIX = np.random.RandomState(2).randn(4, 2)


# Entries that differ, but mostly not once XLA has rounded them to bfloat16.
NEAR_ONE = (1 + 0.01 * RANDOM.rand(1, 4, 4, 4, 1)).astype("float32")


# Operation in the graph: (function, point, width), with a wrong derivative.
WRONG_SECOND = {
    "FakeQuantWithMinMaxArgsGradient": (
        fake_quantization,
        np.float32([0.3, 0.7, -0.4]),
        0.05,
    ),
    "SparseAddGrad": (sparse_sum, normal(2)),
}


WRONG_SECOND_IN_XLA = {
    "Reciprocal": (complex_log, 3 + normal(4)),
    "MaxPoolGrad": (max_pool, NEAR_ONE[0]),
    "MaxPool3DGrad": (max_pool_3d, NEAR_ONE),
}


WRONG_FIRST = {
    "Betainc": (lambda x: tf.math.betainc(x, 2 * x, x / x / 3), 1 + RANDOM.rand(3)),
    "Zeta": (lambda x: tf.math.zeta(x, x / x * 1.5), 2 + RANDOM.rand(3)),
    "HSVToRGB": (
        lambda x: tf.raw_ops.HSVToRGB(images=x),
        0.2 + 0.6 * RANDOM.rand(2, 2, 3),
    ),
    "ImageProjectiveTransformV3": (projected, IMAGE[..., :1], 1e-2),
    "MatrixSolveLs": (
        lambda x: tf.raw_ops.MatrixSolveLs(
            matrix=MATRIX, rhs=MATRIX[:, :1] + 1.0, l2_regularizer=x[0]
        ),
        np.array([1.4]),
    ),
    "QuantizeAndDequantizeV3": (
        lambda x: tf.raw_ops.QuantizeAndDequantizeV3(
            input=np.array([0.31, -0.77, 0.5]),
            input_min=x[0],
            input_max=x[1],
            num_bits=8,
        ),
        np.array([-2.0, 1.5]),
    ),
    "ScaleAndTranslate": (
        lambda x: tf.raw_ops.ScaleAndTranslate(
            images=IMAGE, size=[4, 4], scale=x, translation=[0.1, 0.2]
        ),
        np.float32([1.3, 1.2]),
        1e-2,
    ),
    # Of those that TensorFlow registers as not differentiable.
    "OneHot": (
        lambda x: tf.raw_ops.OneHot(
            indices=[0, 1], depth=2, on_value=x[0], off_value=x[1]
        ),
        normal(2),
    ),
    "ExtractGlimpse": (glimpse, IMAGE, 1e-2),
}


MISSING_SECOND = {
    "FractionalMaxPoolGrad": (
        lambda x: tf.nn.fractional_max_pool(x, 1.4, seed=1)[0],
        IMAGE,
    ),
    "FractionalAvgPoolGrad": (
        lambda x: tf.nn.fractional_avg_pool(x, [1.0, 1.4, 1.4, 1.0], seed=1)[0],
        IMAGE,
    ),
    "Dilation2DBackpropInput": (
        lambda x: tf.nn.dilation2d(
            x, tf.zeros([2, 2, 3]), [1, 1, 1, 1], "VALID", "NHWC", [1, 1, 1, 1]
        ),
        IMAGE,
    ),
    "RandomGammaGrad": (
        lambda x: tf.random.stateless_gamma([2], [1, 2], x, dtype=x.dtype),
        1 + RANDOM.rand(2),
    ),
}


NOT_REPLAYED = {
    "RandomUniform": lambda x: x * tf.random.uniform([3], dtype=x.dtype),
    "RandomStandardNormal": lambda x: x * tf.random.normal([3], dtype=x.dtype),
    "TruncatedNormal": lambda x: x * tf.random.truncated_normal([3], dtype=x.dtype),
    "RandomGamma": lambda x: x * tf.random.gamma([3], 1.5, dtype=x.dtype),
    "RandomShuffle": lambda x: x * tf.random.shuffle(tf.range(3.0)),
    "Multinomial": lambda x: (
        x * tf.cast(tf.random.categorical(tf.zeros([1, 9]), 3)[0], x.dtype)
    ),
}


# What XLA computes to other values, which training may depend on.
OTHER_BY_XLA = {
    "SelfAdjointEigV2": lambda x: tf.linalg.eigh(x + tf.linalg.adjoint(x))[1],
    "Svd": lambda x: tf.linalg.svd(x)[1],
}


def problem_with(function, x):
    """A problem whose inner objective holds the operation."""
    w = keras.Variable(x, dtype=str(x.dtype), name="w")
    rate = far.Hyperparameter(0.1, dtype=str(x.dtype), name="rate")

    def inner():
        value = function(tf.convert_to_tensor(w))
        if value.dtype.is_complex:
            value = tf.abs(value)
        return tf.reduce_sum(value * value)

    return far.BilevelProblem(
        inner, lambda: tf.reduce_sum(w * w), [w], far.GradientDescent(rate), [rate]
    )
