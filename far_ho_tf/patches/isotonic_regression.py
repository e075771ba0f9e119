"""The derivative of `tf.nn.isotonic_regression` of a vector.

TensorFlow takes the elements of a vector for problems of their own: it gives each the
cotangent that it has, in another shape, where those of a segment share their mean.
"""

import tensorflow as tf

from far_ho_tf.patches.registry import derivative_of


@derivative_of("IsotonicRegression")
def _isotonic_regression(
    operation: tf.Operation, of_output: tf.Tensor, of_segments: tf.Tensor
) -> tf.Tensor:
    del of_segments
    segments = operation.outputs[1]
    length = tf.shape(segments)[-1]
    rows = tf.reshape(segments, [-1, length])
    count = tf.shape(rows)[0]
    places = tf.reshape(rows + length * tf.range(count)[:, tf.newaxis], [-1])
    means = tf.math.unsorted_segment_mean(
        tf.reshape(of_output, [-1]), places, count * length
    )
    return tf.reshape(tf.gather(means, places), tf.shape(of_output))
