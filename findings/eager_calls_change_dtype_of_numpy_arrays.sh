#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.image.hsv_to_rgb of a NumPy array of float64 gives float64 at
# the first call in a process, and float32 at every later one, of the same array. Of a
# tensor of float64 it gives float64 always. The dtype of the operation has a default
# (float32), which eager calls take for what is no tensor yet once they know it.
#
# Seen: float64, float32, float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import numpy as np
import tensorflow as tf

colors = np.array([[0.3, 0.7, 0.2], [0.9, 0.1, 0.4]])
dtypes = [tf.image.hsv_to_rgb(colors).dtype.name for _ in range(3)]
print("of an array: ", dtypes)
assert dtypes == ["float64", "float32", "float32"]
dtypes = [tf.image.hsv_to_rgb(tf.constant(colors)).dtype.name for _ in range(3)]
print("of a tensor: ", dtypes)
assert dtypes == ["float64"] * 3
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
