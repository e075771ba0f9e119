"""Cross-entropy with labels that are learned, or smoothed by a hyperparameter.

The derivative of `tf.nn.softmax_cross_entropy_with_logits` in the logits, probabilities
less labels, has none with respect to the labels in TensorFlow, in silence.
"""

from far_ho_tf.patches.registry import REPLACED, derivative_of

_KIND = "SoftmaxCrossEntropyWithLogits"


@derivative_of(_KIND)
def _cross_entropy(operation, cotangent, of_derivative):
    """TensorFlow's, and what goes to the labels through the derivative in logits."""
    of_logits, of_labels = REPLACED[_KIND](operation, cotangent, of_derivative)
    if of_derivative is not None:
        of_labels -= of_derivative
    return of_logits, of_labels
