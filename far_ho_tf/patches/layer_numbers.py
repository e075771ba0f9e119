"""Numbers of Keras' layers and losses that are hyperparameters.

Nearly all of these compute with tensors as they do with numbers. What does not is put
in its place when far_ho_tf is imported; of numbers it computes what it did.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras.src.layers.regularization import gaussian_dropout  # Which takes a root.
from keras.src.regularizers import regularizers

from far_ho_tf._types import TensorLike, Variable
from far_ho_tf.checks import shown
from far_ho_tf.patches.registry import Overlay
from far_ho_tf.patches.replacing import replace

_leaky_relu = tf.nn.leaky_relu
_validate = regularizers.validate_float_arg


def leaky_relu(
    features: TensorLike,
    alpha: float | tf.Tensor | Variable = 0.2,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.nn.leaky_relu`, whose slope may be a tensor or a variable."""
    if not _is_tensor(alpha):
        return _leaky_relu(features, alpha, name)
    with tf.name_scope(name or "LeakyRelu"):
        features = tf.convert_to_tensor(features)
        slope = tf.cast(tf.convert_to_tensor(alpha), features.dtype)
        return tf.where(features > 0, features, slope * features)


def _is_tensor(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, keras.Variable)


def _sqrt(x: float | tf.Tensor | Variable) -> float | tf.Tensor:
    return tf.sqrt(x) if _is_tensor(x) else math.sqrt(x)


def _validated(value: Any, name: str) -> float:
    if _is_tensor(value):
        raise ValueError(
            f"`{name}` of keras.regularizers must be a number. Remedy: "
            "far_ho_tf.regularizers.L1 or L2 with the hyperparameter, such as "
            "`activity_regularizer=L2(...)` of a layer. Received: "
            f"{name}={shown(value)}"
        )
    return _validate(value, name)


def apply() -> None:
    """Lets Keras' layers and losses take hyperparameters for numbers."""
    replace(tf.nn, "leaky_relu", leaky_relu)
    replace(gaussian_dropout, "math", Overlay(math, sqrt=_sqrt))
    replace(regularizers, "validate_float_arg", _validated)
