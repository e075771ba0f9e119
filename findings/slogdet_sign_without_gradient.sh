#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.linalg.slogdet of a complex matrix gives sign = c / |c| and
# log|c| of its determinant c. The sign turns with the matrix, but its derivative is left
# out: the gradient of a function of the sign alone is 0, not None and not an error.
#
# Seen: 0 for the gradient of the imaginary part of the sign of a matrix of order 2,
# where the quotient of differences along a direction is more than a tenth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import numpy as np
import tensorflow as tf

random = np.random.RandomState(0)
A, D = (tf.constant(random.randn(2, 2) + 1j * random.randn(2, 2)) for _ in range(2))


def turned(matrix):
    return tf.math.imag(tf.linalg.slogdet(matrix)[0])


with tf.GradientTape() as tape:
    tape.watch(A)
    value = turned(A)
gradient = tape.gradient(value, A).numpy()
difference = float((turned(A + 1e-6 * D) - turned(A - 1e-6 * D)) / 2e-6)
print(f"largest element of the gradient {abs(gradient).max()}, difference {difference:.4f}")
assert abs(gradient).max() == 0 and abs(difference) > 0.1
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
