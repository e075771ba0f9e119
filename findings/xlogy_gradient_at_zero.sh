#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: the derivative of tf.math.xlogy(x, y) in x is log(y). At x = 0,
# where the function is 0 by definition, the gradient is 0 for *every* y, also where y is
# positive and x log(y) is a straight line through 0. So it is with tf.math.xlog1py and
# tf.math.xdivy.
#
# Seen at x = 0: 0, 0 and 0 for log(2), log(3) and 1/2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import math

import tensorflow as tf

CASES = (
    (tf.math.xlogy, math.log(2)),
    (tf.math.xlog1py, math.log(3)),
    (tf.math.xdivy, 1 / 2),
)
for function, slope in CASES:
    x, y = tf.constant(0.0), tf.constant(2.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x, y)
    gradient = float(tape.gradient(value, x))
    difference = (float(function(0.01, 2.0)) - float(function(-0.01, 2.0))) / 0.02
    print(f"{function.__name__}: gradient {gradient}, difference {difference:.4f}")
    assert gradient == 0 and abs(difference - slope) < 1e-4
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
