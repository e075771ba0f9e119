"""Penalties on weights whose factors may be hyperparameters."""

import keras
import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.variables import current, is_function, is_number, is_variable


class _Penalty(keras.regularizers.Regularizer):
    """A factor times a function of each weight, summed over the weights."""

    def __init__(self, factor):
        require(
            is_number(factor)
            or is_variable(factor)
            or is_function(factor)
            or isinstance(factor, (list, tuple)),
            f"The factor of {type(self).__name__} must be a number, an array, a "
            "Hyperparameter or a callable() -> tensor.",
            factor=factor,
        )
        self.factor = factor

    def __call__(self, x):
        x = tf.convert_to_tensor(x)
        factor = tf.cast(tf.convert_to_tensor(current(self.factor)), x.dtype)
        require(
            factor.shape.rank == 0 or factor.shape == x.shape,
            f"The factor of {type(self).__name__} must be a scalar, or hold one value "
            f"for each weight, in their shape {tuple(x.shape)}.",
            shape=tuple(factor.shape),
        )
        return tf.reduce_sum(factor * self._of_weights(x))


@keras.saving.register_keras_serializable("far_ho_tf")
class L2(_Penalty):
    r"""\(\sum_i \lambda_i w_i^2\), for `kernel_regularizer` and the like.

    Args:
        l2: λ: a number, a `Hyperparameter`, or a callable() -> tensor that may read
            some, such as `lambda: tf.exp(log_decay)`; a scalar for all weights or
            one value for each, in the shape of the weights.

    Raises:
        ValueError: If it is none of these; when called, if the shape does not fit
            the weights.

    Example:

    >>> import far_ho_tf as far, keras
    >>> decay = far.Hyperparameter(0.01, name="decay", constraint="non_neg")
    >>> layer = keras.layers.Dense(3, kernel_regularizer=far.regularizers.L2(decay))
    >>> float(far.regularizers.L2(decay)(tf.constant([3.0, 4.0])))
    0.25

    Source: Maclaurin et al. 2015, section 3.2 (a penalty per weight).
    """

    def __init__(self, l2=0.01):
        super().__init__(l2)

    @staticmethod
    def _of_weights(x):
        return tf.square(x)

    def get_config(self):
        return {"l2": _plain(self.factor)}


@keras.saving.register_keras_serializable("far_ho_tf")
class L1(_Penalty):
    r"""\(\sum_i \lambda_i |w_i|\), for `kernel_regularizer` and the like.

    Args:
        l1: λ; see `L2`.

    Example:

    >>> import far_ho_tf as far
    >>> float(far.regularizers.L1(0.5)(tf.constant([3.0, -4.0])))
    3.5
    """

    def __init__(self, l1=0.01):
        super().__init__(l1)

    @staticmethod
    def _of_weights(x):
        return tf.abs(x)

    def get_config(self):
        return {"l1": _plain(self.factor)}


def _plain(factor):
    """Numbers as a saved model keeps them."""
    return tf.convert_to_tensor(current(factor)).numpy().tolist()
