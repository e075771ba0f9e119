#!/usr/bin/env bash
# TensorFlow 2.21.0, CPU: tf.sparse.maximum and tf.sparse.minimum of two sparse tensors
# cannot be differentiated: the operations have two outputs (indices and values), the
# functions that are registered as their gradients take the cotangent of one.
#
# Seen: TypeError, for tensors with the same indices, under a plain tf.GradientTape.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0
cat > "$folder/script.py" << 'END'
import tensorflow as tf


def sparse(values):
    return tf.SparseTensor([[0, 0], [1, 1]], values, [2, 2])


values = tf.Variable([1.0, 2.0])
for function in (tf.sparse.maximum, tf.sparse.minimum):
    with tf.GradientTape() as tape:
        result = function(sparse(values), sparse(tf.constant([1.5, 1.0])))
        total = tf.reduce_sum(result.values)
    print(result.values.numpy())
    try:
        tape.gradient(total, values)
    except TypeError as error:
        print(f"{type(error).__name__}: {error}")
        assert "takes 2 positional arguments but 3 were given" in str(error)
    else:
        raise SystemExit("there is a gradient")
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
