"""Cross-entropy with labels that are learned, smoothed, or do not add up to 1.

The derivative of `tf.nn.softmax_cross_entropy_with_logits` in the logits, which
TensorFlow takes for probabilities less labels, has none with respect to the labels, in
silence. And it is that only of labels that add up to 1, of others a surrogate, by which
training goes; derivatives of the run are true.
"""

import tensorflow as tf

from far_ho_tf.patches.custom_gradients import are_true
from far_ho_tf.patches.registry import REPLACED, derivative_of, is_none

_KIND = "SoftmaxCrossEntropyWithLogits"


@derivative_of(_KIND)
def _cross_entropy(
    operation: tf.Operation, cotangent: tf.Tensor, of_derivative: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """TensorFlow's, and what it leaves out."""
    of_logits, of_labels = REPLACED[_KIND](operation, cotangent, of_derivative)
    if of_derivative is not None:
        of_labels -= of_derivative
    if are_true("softmax_cross_entropy_with_logits") and not is_none(cotangent):
        missing = tf.reduce_sum(operation.outputs[1], axis=-1, keepdims=True)
        probabilities = tf.nn.softmax(operation.inputs[0])
        of_logits -= cotangent[:, tf.newaxis] * missing * probabilities
    return of_logits, of_labels
