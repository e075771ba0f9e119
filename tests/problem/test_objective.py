"""What is said of objectives that are called in another way, or return nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.misuse import compute, fails

X = np.ones((4, 2), "float32")
Y = np.ones((4, 1), "float32")
PAIR = (X, Y)


def of_two(x, y):
    return tf.reduce_mean(x) + tf.reduce_mean(y)


@pytest.mark.parametrize("role", ["inner", "outer"])
class TestArguments:
    @pytest.mark.parametrize("function", [of_two, tf.function(of_two)])
    def test_of_two(self, parts, role, function):
        message = (
            f"`{role}_objective` .of_two. is called with one argument, the batch, a "
            r"tuple of 2: write lambda batch: f\(batch\[0\], batch\[1\]\)[.] "
            r"Received: a callable of \(x, y\)"
        )
        with fails(message):
            compute(parts, **{f"{role}_objective": function, f"{role}_data": PAIR})

    @pytest.mark.parametrize(
        "loss", [keras.losses.MeanSquaredError(), keras.losses.mean_squared_error]
    )
    def test_a_loss_of_keras(self, parts, role, loss):
        with fails(r"write lambda batch: loss\(batch\[1\], model\(batch\[0\]\)\)"):
            compute(parts, **{f"{role}_objective": loss, f"{role}_data": PAIR})

    @pytest.mark.parametrize(
        ("data", "outline"),
        [(X, r"float32\(4, 2\)"), ({"x": X}, r"{x: float32\(4, 2\)}")],
    )
    def test_of_another_number(self, parts, role, data, outline):
        with fails(f"the batch, {outline}: let the objective take this one"):
            compute(parts, **{f"{role}_objective": of_two, f"{role}_data": data})

    def test_without_data(self, parts, role):
        with fails(f"as `{role}_data` is None: give it, or let the objective take no"):
            compute(parts, **{f"{role}_objective": of_two})

    def test_a_forgotten_return(self, parts, role):
        with fails("must return a scalar", "is a `return` forgotten"):
            compute(parts, **{f"{role}_objective": lambda: None})

    def test_one_argument_is_shown(self, parts, role):
        def failing(batch):
            return batch[0] / "a"

        shown = r"Received: batch=\(float32\(4, 2\), float32\(4, 1\)\)$"
        with fails("`failing`|failing", shown):
            compute(parts, **{f"{role}_objective": failing, f"{role}_data": PAIR})

    def test_of_16_bits(self, parts, role):
        good = parts[f"{role}_objective"]
        with fails("Received: float16", r"tf.cast\(model\(x\), tf.float32\)"):
            compute(parts, **{f"{role}_objective": lambda: tf.cast(good(), tf.float16)})
