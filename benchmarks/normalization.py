"""Second derivatives through normalization layers, without and with the mend.

Prints the relative error of a Hessian–vector product by nested tapes against
central differences of the gradient, in float64.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import app

from far_ho_tf.patches.moments import moments, stopped_moments

WIDTH = 1e-5
CASES = [
    *(
        ("BatchNormalization", keras.layers.BatchNormalization, (n, 3))
        for n in (4, 16, 64, 256)
    ),
    *(
        ("LayerNormalization", keras.layers.LayerNormalization, (8, n))
        for n in (4, 16, 64)
    ),
]


def error(layer, x, direction):
    """‖H·d by tapes − H·d by differences‖ / ‖the latter‖."""

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.sin(layer(x, training=True)) * direction[::-1])
        return tape.gradient(value, x)

    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        slope = gradient(point)
    product = tape.gradient(slope, point, output_gradients=direction)
    step = WIDTH * direction
    up, down = gradient(tf.constant(x + step)), gradient(tf.constant(x - step))
    exact = (up - down).numpy() / (2 * WIDTH)
    return np.linalg.norm(product - exact) / np.linalg.norm(exact)


def main(_):
    random = np.random.RandomState(0)
    print(f"{'layer':<22}{'shape':<12}{'TensorFlow':>12}{'mended':>12}")
    for name, layer, shape in CASES:
        x, direction = random.randn(*shape), random.randn(*shape)
        errors = []
        for function in (stopped_moments, moments):
            tf.nn.moments = function
            errors.append(error(layer(dtype="float64"), x, direction))
        print(f"{name:<22}{shape!s:<12}{errors[0]:>12.1e}{errors[1]:>12.1e}")


if __name__ == "__main__":
    app.run(main)
