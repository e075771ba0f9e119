#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: where an index occurs twice, tf.tensor_scatter_nd_update and
# tf.dynamic_stitch keep the later value. Their gradients go to both: the value that was
# written over, which the result does not depend on, gets the derivative of the one that
# was kept.
#
# Seen: for values (2, 3) written to one place, y = 3 and the gradient (1, 1), where
# differences give (0, 1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import numpy as np
import tensorflow as tf


def scattered(values):
    return tf.tensor_scatter_nd_update(tf.zeros(1), [[0], [0]], values)[0]


def stitched(values):
    return tf.dynamic_stitch([[0], [0]], [values[:1], values[1:]])[0]


for function in (scattered, stitched):
    values = tf.constant([2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        y = function(values)
    gradient = tape.gradient(y, values).numpy()
    exact = [float(function(values + step) - y) for step in np.eye(2, dtype="float32")]
    print(f"{function.__name__}: y = {float(y)}, gradient {gradient}, differences {exact}")
    assert float(y) == 3 and exact == [0, 1] and gradient.tolist() == [1, 1]
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
