"""Penalties on weights whose factors may be hyperparameters."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import Number, TensorLike
from far_ho_tf.checks import require
from far_ho_tf.variables.identity import is_variable
from far_ho_tf.variables.numbers import check_numbers, is_function, text_of, value_of


class _Penalty(keras.regularizers.Regularizer):
    """A factor times a function of each weight, summed over the weights."""

    _of_weights: Callable[[tf.Tensor], tf.Tensor]

    def __init__(self, factor: Number) -> None:
        self._label = f"The factor of {type(self).__name__}"
        self.factor = check_numbers(self._label, factor)
        if not (is_variable(factor) or is_function(factor)):
            require(
                bool(tf.reduce_all(self.factor >= 0)),
                f"{self._label} must not be negative.",
                factor=factor,
            )

    def __call__(self, x: TensorLike) -> tf.Tensor:
        x = tf.convert_to_tensor(x)
        factor = tf.cast(value_of(self._label, self.factor, x.dtype), x.dtype)
        require(
            factor.shape.rank == 0 or factor.shape == x.shape,
            f"{self._label} must be a scalar, or hold one value for each weight, in "
            f"their shape {tuple(x.shape)}.",
            shape=tuple(factor.shape),
        )
        return tf.reduce_sum(factor * self._of_weights(x))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({text_of(self.factor)})"

    def _plain(self) -> Any:
        """The factor in numbers, as a saved or cloned model keeps it."""
        return value_of(self._label, self.factor, "float64").numpy().tolist()


@keras.saving.register_keras_serializable("far_ho_tf")
class L2(_Penalty):
    r"""\(\sum_i \lambda_i w_i^2\), for `kernel_regularizer` and the like.

    Args:
        l2: λ: a number, a `Hyperparameter`, or a callable() -> tensor that may read
            some, such as `lambda: tf.exp(log_decay)`; a scalar for all weights or
            one value for each, in the shape of the weights.

    Raises:
        ValueError: If it is none of these, or negative; when called, if the shape
            does not fit the weights. A hyperparameter is not kept from becoming
            negative: give it a constraint.

    Example:

    >>> import far_ho_tf as far, keras
    >>> decay = far.Hyperparameter(0.01, name="decay", constraint="non_neg")
    >>> layer = keras.layers.Dense(3, kernel_regularizer=far.regularizers.L2(decay))
    >>> float(far.regularizers.L2(decay)(tf.constant([3.0, 4.0])))
    0.25

    Source: Maclaurin et al. 2015, section 3.2 (a penalty per weight).
    """

    def __init__(self, l2: Number = 0.01) -> None:
        super().__init__(l2)

    @staticmethod
    def _of_weights(x: tf.Tensor) -> tf.Tensor:
        return tf.square(x)

    def get_config(self) -> dict[str, Any]:
        return {"l2": self._plain()}


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

    def __init__(self, l1: Number = 0.01) -> None:
        super().__init__(l1)

    @staticmethod
    def _of_weights(x: tf.Tensor) -> tf.Tensor:
        return tf.abs(x)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self._plain()}
