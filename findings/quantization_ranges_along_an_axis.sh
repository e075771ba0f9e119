#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.quantization.quantize_and_dequantize_v2 says that `input_min`
# and `input_max` should be vectors where `axis` is given. With range_given=True its
# kernel takes scalars only, whatever the axis.
#
# Seen: "input_min must be a scalar" for vectors of the length of the axis.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import tensorflow as tf

x = tf.constant([[0.3, -0.7, 0.2], [0.9, 0.1, -0.4]])
for axis, size in ((0, 2), (1, 3)):
    try:
        tf.quantization.quantize_and_dequantize_v2(
            x, -tf.ones(size), tf.ones(size), range_given=True, axis=axis
        )
    except tf.errors.InvalidArgumentError as error:
        print(f"axis {axis}: {str(error).splitlines()[0]}")
        assert "input_min must be a scalar" in str(error)
    else:
        raise SystemExit(f"axis {axis}: vectors are taken")
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
