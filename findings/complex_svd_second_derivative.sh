#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: second derivatives through the singular vectors of a complex
# matrix are wrong. The operation gives singular values a complex dtype; on the way back
# through its gradient their cotangent gets an imaginary part, which belongs to nothing,
# as the values are real, and is used all the same. First derivatives are right.
#
# Seen: for a function that does not depend on the phases of the vectors, the first
# derivative along a direction agrees with differences to 1e-7, the second is off by more
# than a tenth.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import numpy as np
import tensorflow as tf

random = np.random.RandomState(0)
A, D, W = (tf.constant(random.randn(2, 2) + 1j * random.randn(2, 2)) for _ in range(3))


def inner(a, b):
    return tf.math.real(tf.reduce_sum(tf.math.conj(a) * b))


def value(matrix):
    """A function of the products u_i conj(u_0), which no phase changes."""
    _, u, _ = tf.linalg.svd(matrix)
    products = tf.math.imag(u * tf.math.conj(u[:1]))
    return tf.reduce_sum(tf.sin(products) * tf.constant([[1.0, 2.0], [3.0, 5.0]], tf.float64))


def gradient(matrix):
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        result = value(matrix)
    return tape.gradient(result, matrix)


def difference(function, width=1e-6):
    return (function(A + width * D) - function(A - width * D)) / (2 * width)


first = inner(gradient(A), D).numpy(), difference(value).numpy()
with tf.GradientTape() as tape:
    tape.watch(A)
    result = inner(W, gradient(A))
second = inner(tape.gradient(result, A), D).numpy()
exact = difference(lambda matrix: inner(W, gradient(matrix))).numpy()
print(f"first derivative {first[0]:.6f}, by differences {first[1]:.6f}")
print(f"second derivative {second:.6f}, by differences {exact:.6f}")
assert abs(first[0] - first[1]) < 1e-6
assert abs(second - exact) > 0.1 * abs(exact)
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
