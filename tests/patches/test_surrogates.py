"""Operations whose gradient is no derivative: renormalization and quantization."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches import surrogates
from tests.custom_rules import AT, MODES, NUM_STEPS, START, WIDTH, bilevel
from tests.helpers import assert_close


def test_renormalization():
    """Its corrections are constant to the training, not to the run."""
    inputs = np.random.RandomState(0).randn(6, 3)

    def layer():
        made = keras.layers.BatchNormalization(
            renorm=True, renorm_clipping={"rmin": 0.1}, momentum=0.7, dtype="float64"
        )
        made.build((6, 3))
        return made

    def objective(layer, w, strength):
        x = layer(tf.sin(strength * inputs) * w + 0.2 * w**2, training=True)
        return tf.reduce_mean((x - inputs) ** 2) + tf.reduce_sum((x[0] + 0.1) ** 3)

    def run(rate, strength):
        w, of_run = tf.constant(START), layer()
        for _ in range(NUM_STEPS):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = objective(of_run, w, tf.constant(strength, tf.float64))
            w -= rate * tape.gradient(value, w)
        return float(tf.reduce_sum(w**3))

    expected = []
    for name, value in AT.items():
        up, down = (run(**AT | {name: value + step}) for step in (WIDTH, -WIDTH))
        expected.append((up - down) / (2 * WIDTH))
    for mode in (MODES["reverse"], MODES["forward"]):
        problem = bilevel(
            functools.partial(objective, layer()), lambda w: tf.reduce_sum(w**3)
        )
        result = mode.compute(problem, NUM_STEPS)
        assert_close([result.outer_value], [run(**AT)], 1e-12)
        assert_close(result.hypergradients, expected, 1e-7)


@pytest.mark.filterwarnings("ignore:.*it jumps where `end` passes:UserWarning")
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_fake_quantization_in_closed_form(mode):
    """Two steps along q(w)², with 2 q for its derivative; q = k · (b + 1) / 15.

    For other ends w is rounded to another k, which is warned of.
    """
    w = keras.Variable(0.6, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    end = far.Hyperparameter(1.5, name="end")

    def quantized(x):
        return tf.quantization.fake_quant_with_min_max_vars(x, -1.0, end, num_bits=4)

    problem = far.BilevelProblem(
        *(lambda: quantized(w.value) ** 2, lambda: w.value),
        *([w], far.GradientDescent(rate), [rate, end]),
    )
    result = MODES[mode].compute(problem, 2)
    step = 2.5 / 15
    first = round(0.6 / step)
    second = round((0.6 - 0.1 * 2 * first * step) / step)
    total = first + second
    assert_close([result.outer_value], [0.6 - 0.2 * total * step], 1e-6)
    expected = [-2 * total * step, -0.2 * total / 15]
    assert_close(result.hypergradients, expected, 1e-6)


def test_quantization_keeps_its_values_and_surrogate():
    """Those of TensorFlow's own operations."""
    x = np.random.RandomState(0).randn(4, 3)
    for options in (
        {"input_min": -0.5, "input_max": 1.0, "range_given": True},
        {"input_min": 0.0, "input_max": 0.0},
        {"input_min": [-0.5, -1, 0], "input_max": [1.0, 0, 2], "axis": 1},
        {"input_min": 0.0, "input_max": 0.0, "signed_input": False, "num_bits": 3},
    ):
        with tf.GradientTape() as tape:
            tape.watch(constant := tf.constant(x))
            values = tf.quantization.quantize_and_dequantize_v2(constant, **options)
        low, high = (
            tf.constant(options.pop(side), tf.float64)
            for side in ("input_min", "input_max")
        )
        with tf.GradientTape() as own_tape:
            own_tape.watch(constant)
            own = surrogates._quantize["QuantizeAndDequantizeV4"](
                constant, low, high, **options
            )
        assert np.array_equal(values, own)
        gradients = (
            one.gradient(value, constant)
            for one, value in ((tape, values), (own_tape, own))
        )
        assert np.array_equal(*gradients)
