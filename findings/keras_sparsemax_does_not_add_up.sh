#!/usr/bin/env bash
# Keras 3.15.0 with TensorFlow 2.21.0: keras.activations.sparsemax, the projection onto
# the probability simplex, gives what does not add up to 1. Of the cumulative sums of the
# sorted inputs it should take the last one within the support; it adds them all up. It is
# right only where the support is one element.
#
# Seen: for [0, 0.5, 0.3, -0.2] it gives [0, 0.133, 0, 0], whose sum is 0.133; the
# projection is [0.067, 0.567, 0.367, 0].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.0
cat > "$folder/script.py" << 'END'
import keras
import numpy as np

x = np.array([0.0, 0.5, 0.3, -0.2])
found = np.array(keras.activations.sparsemax(x[None]))[0]
low, high = x.min() - 1, x.max()
for _ in range(60):  # By bisection of what is taken off.
    middle = (low + high) / 2
    low, high = (middle, high) if np.maximum(x - middle, 0).sum() > 1 else (low, middle)
projection = np.maximum(x - low, 0)
print(f"sparsemax {found.round(3)}, sum {found.sum():.3f}; projection {projection.round(3)}")
assert abs(projection.sum() - 1) < 1e-9
assert abs(found.sum() - 0.133) < 0.001 and abs(found - projection).max() > 0.4
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
