#!/usr/bin/env bash
# TensorFlow 2.21.0 with Keras 3.15.1, CPU: a gradient penalty through tf.image.resize
# (bilinear, the default), keras.layers.Resizing or UpSampling2D("bilinear") has no
# gradient: the derivative of the first one is None, without an error, where a sum with
# other terms hides it. Of the bicubic and the nearest way there is an error that says so.
#
# Seen: f(x) = Σ resize(x)³ is not linear, and d‖f′(x)‖²/dx is None; by differences it is
# not zero.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow==2.21.0 keras==3.15.1
cat > "$folder/script.py" << 'END'
import keras
import tensorflow as tf

START = tf.reshape(tf.linspace(0.1, 1.2, 4), [1, 2, 2, 1])


def penalty(resize, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(resize(x) ** 3)
    return tf.reduce_sum(tape.gradient(total, x) ** 2)


def derivative(resize):
    with tf.GradientTape() as tape:
        tape.watch(START)
        value = penalty(resize, START)
    return tape.gradient(value, START)


for name, resize in {
    "tf.image.resize": lambda x: tf.image.resize(x, [4, 4]),
    "Resizing": keras.layers.Resizing(4, 4),
    "UpSampling2D": keras.layers.UpSampling2D(2, interpolation="bilinear"),
}.items():
    width = tf.reshape([0.01, 0.0, 0.0, 0.0], [1, 2, 2, 1])
    up, down = penalty(resize, START + width), penalty(resize, START - width)
    difference = float(up - down) / 0.02
    print(f"{name}: {derivative(resize)}, by differences {difference:.3f}")
    assert derivative(resize) is None and abs(difference) > 0.1
try:
    derivative(lambda x: tf.image.resize(x, [4, 4], method="bicubic"))
except LookupError as error:
    print(f"bicubic: {error}")
else:
    raise SystemExit("bicubic: no error")
END
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/script.py"
