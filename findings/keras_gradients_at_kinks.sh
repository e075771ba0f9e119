#!/usr/bin/env bash
# Keras 3.15.0 with TensorFlow 2.21.0, CPU: smooth functions that are written by max, min
# and abs have wrong gradients where these have kinks. keras.activations.celu has the
# gradient 2 at 0 (relu's and expm1's are added, each of which counts 0 as its side);
# keras.ops.hypot, where both are as large, gives one of them all of the gradient;
# keras.ops.logaddexp at a tie has no second derivative.
#
# Seen: celu'(0) = 2 for 1; the gradient of hypot(3, 3) (1.414, 0) for (.707, .707); the
# second derivative of logaddexp(x, 0) at 0 is 0 for 1/4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.0
cat > "$folder/script.py" << 'END'
import keras
import tensorflow as tf


def gradient(function, *arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = function(*arguments)
    return tape.gradient(value, arguments)


zero, three = tf.constant(0.0), tf.constant(3.0)
(celu,) = map(float, gradient(keras.activations.celu, zero))
hypot = [float(one) for one in gradient(keras.ops.hypot, three, tf.identity(three))]
(second,) = gradient(lambda x: gradient(lambda y: keras.ops.logaddexp(y, 0.0), x)[0], zero)
second = 0.0 if second is None else float(second)
print(f"celu'(0) = {celu}, gradient of hypot(3, 3) {hypot}, logaddexp'' {second}")
assert celu == 2.0
assert abs(hypot[0] - 2**0.5) < 1e-6 and hypot[1] == 0
assert second == 0
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
