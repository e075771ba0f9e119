#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: the gradient of tf.math.cumprod divides by the elements, and
# where one is zero it takes 0 for what it gets. What depends on that element, as all
# products from it on do, gets no derivative. Of complex numbers it lacks a conjugate.
#
# Seen: for x = (0, 0.5, 2) the gradient of the last product, which is (1, 0, 0), is 0
# everywhere; for x = (1 + 2i, 3) the gradient is (3, 1 + 2i), where TensorFlow's own
# convention, as of tf.multiply, makes it (3, 1 - 2i).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import tensorflow as tf


def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        last = tf.math.cumprod(x)[-1]
    return tape.gradient(last, x).numpy()


real = gradient(tf.constant([0.0, 0.5, 2.0]))
number = gradient(tf.constant([1 + 2j, 3 + 0j]))
print(f"with a zero: {real}, for (1, 0, 0); complex: {number}, for (3, 1 - 2j)")
assert real.tolist() == [0, 0, 0]
assert abs(number - [3, 1 + 2j]).max() < 1e-6
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
