#!/usr/bin/env bash
# Keras 3.15.1 with TensorFlow 2.21.0, CPU: keras.ops.inner of matrices works eagerly. In a
# tf.function its second derivative fails, and under XLA its first one does: inner makes
# both branches of a tf.cond on the rank, which is known, and in the one that is not taken
# the shapes do not fit each other.
#
# Seen: InvalidArgumentError for matrices of 2 by 3 ("Incompatible shapes", "Matrix
# size-incompatible"), where tf.tensordot, which the branch that is taken calls, works.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1
cat > "$folder/script.py" << 'END'
import keras
import tensorflow as tf

X = tf.reshape(tf.range(6.0), [2, 3])
Y = tf.cos(X)


def first(product, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(product(x, Y) ** 2)
    return tape.gradient(value, x)


def second(product, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(first(product, x) ** 2)
    return tape.gradient(value, x)


def last_axes(x, y):
    return tf.tensordot(x, y, axes=[[-1], [-1]])


for derivative, by_xla in ((second, False), (first, True)):
    compiled = tf.function(derivative, jit_compile=by_xla)
    exact = derivative(last_axes, X)
    assert float(tf.reduce_max(tf.abs(derivative(keras.ops.inner, X) - exact))) < 1e-3
    assert float(tf.reduce_max(tf.abs(compiled(last_axes, X) - exact))) < 1e-3
    try:
        compiled(keras.ops.inner, X)
    except tf.errors.InvalidArgumentError as error:
        text = str(error)
        assert "ncompatible" in text, text
        place = text.index("ncompatible")
        print(derivative.__name__, "XLA" if by_xla else "graph", text[place - 30 :][:80])
    else:
        raise SystemExit(f"{derivative.__name__}: no error")
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
