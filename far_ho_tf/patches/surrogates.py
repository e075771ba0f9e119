"""Operations whose gradient is no derivative, by intent: a surrogate for training.

Rounding has no derivative to learn by, so that quantization passes the gradient on
(straight through), and renormalization takes its corrections as constant. A training
run that goes by them depends on its hyperparameters all the same: see
`custom_gradients`, for which they become functions with a custom gradient.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras.src.layers.normalization import batch_normalization
from tensorflow.python.ops import gen_array_ops  # What tf.quantization calls.

from far_ho_tf._types import TensorLike
from far_ho_tf.patches.registry import Overlay, held
from far_ho_tf.patches.replacing import replace

_quantize = {
    "QuantizeAndDequantizeV2": gen_array_ops.quantize_and_dequantize_v2,
    "QuantizeAndDequantizeV4": gen_array_ops.quantize_and_dequantize_v4,
}


_fake_quantize = {
    "vars": tf.quantization.fake_quant_with_min_max_vars,
    "vars_per_channel": tf.quantization.fake_quant_with_min_max_vars_per_channel,
}


@tf.custom_gradient
def stopped(x: TensorLike) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """`tf.stop_gradient`, for training only."""

    def gradient(cotangent: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(cotangent)

    return tf.identity(x), gradient


def apply() -> None:
    """Puts them in the places of TensorFlow's and Keras' functions."""
    second, fourth = (functools.partial(_quantized, kind) for kind in _quantize)
    replace(gen_array_ops, "quantize_and_dequantize_v2", second)
    replace(gen_array_ops, "quantize_and_dequantize_v4", fourth)
    replace(tf.raw_ops, "QuantizeAndDequantizeV2", second)
    replace(tf.raw_ops, "QuantizeAndDequantizeV4", fourth)
    by_args = _fake_quantized_by_args
    replace(tf.quantization, "fake_quant_with_min_max_args", by_args)
    for kind in ("vars", "vars_per_channel"):
        name = f"fake_quant_with_min_max_{kind}"
        replace(tf.quantization, name, functools.partial(_fake_quantized, kind))
    ops = Overlay(batch_normalization.ops, stop_gradient=stopped)
    replace(batch_normalization, "ops", ops)


def _quantized(
    kind: str,
    input: TensorLike,
    input_min: TensorLike,
    input_max: TensorLike,
    axis: int = -1,
    name: str | None = None,
    **options: Any,
) -> tf.Tensor:
    """Quantization with its surrogate, for what a tape looks through here."""

    @tf.custom_gradient
    def quantize_and_dequantize(
        x: tf.Tensor, low: tf.Tensor, high: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        # All of it, or along an axis.
        axes = range(x.shape.rank)
        others = [other for other in axes if other != axis]
        shape = [-1 if other == axis else 1 for other in axes] if axis >= 0 else []
        given = tf.reshape(low, shape), tf.reshape(high, shape)

        def gradient(cotangent: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if kind.endswith("V2"):
                return cotangent, tf.zeros_like(low), tf.zeros_like(high)
            zeros = tf.zeros_like(x)
            below = tf.where(x < given[0], cotangent, zeros)
            above = tf.where(x > given[1], cotangent, zeros)
            of_range = [
                tf.reduce_sum(side, others if low.shape.rank else None)
                for side in (below, above)
            ]
            return cotangent - below - above, *of_range

        # Whole multiples of a step that is a part of one end of the range.
        ends = given
        if not options.get("range_given", False):
            ends = [
                reduce(x, others, keepdims=axis >= 0)
                for reduce in (tf.reduce_min, tf.reduce_max)
            ]
        end = _decisive(*ends, **options)
        values = _quantize[kind](x, low, high, axis=axis, **options)
        return held(values) * tf.math.divide_no_nan(end, held(end)), gradient

    with tf.name_scope(name or kind):
        x = tf.convert_to_tensor(input)
        low, high = (tf.cast(side, x.dtype) for side in (input_min, input_max))
        return quantize_and_dequantize(x, low, high)  # pyright: ignore[reportReturnType]


def _decisive(
    low: tf.Tensor,
    high: tf.Tensor,
    signed_input: bool = True,
    num_bits: int = 8,
    narrow_range: bool = False,
    **options: Any,
) -> tf.Tensor:
    """The end of the range that decides how long a step is: where it is the longer."""
    del options
    most = 2 ** (num_bits - signed_input) - 1
    least = (narrow_range - 2 ** (num_bits - 1)) if signed_input else 0
    if not least:
        return high
    return tf.where(low / least > high / most, low, high)


def _fake_quantized_by_args(
    inputs: TensorLike, min: float = -6, max: float = 6, **options: Any
) -> tf.Tensor:
    low, high = (tf.constant(side, tf.float32) for side in (min, max))
    return _fake_quantized("vars", inputs, low, high, **options)


def _fake_quantized(
    kind: str,
    inputs: TensorLike,
    min: TensorLike,
    max: TensorLike,
    num_bits: int = 8,
    narrow_range: bool = False,
    name: str | None = None,
) -> tf.Tensor:
    """`tf.quantization.fake_quant_with_min_max_vars`, and that by channels."""

    @tf.custom_gradient
    def fake_quantize(
        x: tf.Tensor, low: tf.Tensor, high: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        first, last = float(narrow_range), 2.0**num_bits - 1
        step = (high - low) / (last - first)
        zero = tf.floor(tf.clip_by_value(first - low / step, first, last) + 0.5)

        def gradient(cotangent: tf.Tensor) -> tuple[tf.Tensor, ...]:
            zeros = tf.zeros_like(x)
            below = tf.where(x < held((first - zero) * step), cotangent, zeros)
            above = tf.where(x > held((last - zero) * step), cotangent, zeros)
            axes = list(range(x.shape.rank - 1)) if kind != "vars" else None
            of_range = (tf.reduce_sum(side, axes) for side in (below, above))
            return cotangent - below - above, *of_range

        options = {"num_bits": num_bits, "narrow_range": narrow_range}
        values = _fake_quantize[kind](x, low, high, **options)
        return held(values) * (step / held(step)), gradient  # Whole multiples of it.

    with tf.name_scope(name or "fake_quantize"):
        return fake_quantize(  # pyright: ignore[reportReturnType]
            *(tf.cast(tensor, tf.float32) for tensor in (inputs, min, max))
        )
