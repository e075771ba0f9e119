#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.linalg.eigh_tridiagonal finds eigenvalues by bisection, and
# its gradient is the derivative of that search: of where the bounds of the search start,
# not of the eigenvalues. No error, no warning.
#
# Seen: the gradient of the largest eigenvalue of a matrix of order 3 in its diagonal,
# which sums to 1 as adding c to the diagonal adds c, is off by more than a tenth of it;
# that of tf.linalg.eigvalsh is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import tensorflow as tf

alpha = tf.constant([0.3, 1.2, -0.7], tf.float64)
beta = tf.constant([0.8, 0.5], tf.float64)


def gradient(largest):
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        value = largest(alpha)
    return float(value), tape.gradient(value, alpha).numpy()


def by_matrix(alpha):
    matrix = tf.linalg.diag(alpha) + tf.linalg.diag(beta, k=1) + tf.linalg.diag(beta, k=-1)
    return tf.linalg.eigvalsh(matrix)[-1]


value, found = gradient(lambda alpha: tf.linalg.eigh_tridiagonal(alpha, beta)[-1])
same, right = gradient(by_matrix)
print(f"eigh_tridiagonal: {value:.6f}, gradient {found}, its sum {found.sum():.4f}")
print(f"eigvalsh:         {same:.6f}, gradient {right}, its sum {right.sum():.4f}")
assert abs(value - same) < 1e-9 and abs(right.sum() - 1) < 1e-9
assert abs(found - right).max() > 0.1
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
