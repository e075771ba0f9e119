#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.quantization.quantize_and_dequantize_v2 has a gradient, and
# an operation for it, whose own gradient is registered with a function that takes one
# cotangent. The operation has three results, so that every second derivative through
# quantization (of a penalty of gradients, say) ends in a TypeError of the internals.
#
# Seen: "_QuantizeAndDequantizeV4GradGrad() takes 2 positional arguments but 4 were
# given".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import tensorflow as tf

x = tf.constant(0.5)
with tf.GradientTape() as outer:
    outer.watch(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.quantization.quantize_and_dequantize_v2(x, -1.0, 1.0, range_given=True) ** 2
    gradient = tape.gradient(y, x)
assert abs(float(gradient) - 1) < 0.01
try:
    outer.gradient(gradient, x)
except TypeError as error:
    print(error)
    assert "takes 2 positional arguments but 4 were given" in str(error)
else:
    raise SystemExit("there is a second derivative")
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
