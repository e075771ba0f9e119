"""The derivative of a run that goes by custom gradients is that of the run itself.

Compared are differences of plain runs: a loop in Python, eager tapes, no far_ho_tf.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.custom_rules import (
    AT,
    MODES,
    NUM_STEPS,
    WIDTH,
    bilevel,
    differences,
    in_a_branch,
    in_a_loop,
    plain_run,
    ruled,
    squares,
)
from tests.helpers import assert_close, in_tiers


def closed_over(w, strength):
    """A reversal whose strength is no argument."""
    reversal = ruled(lambda x, cotangent: -strength * cotangent, lambda x: strength * x)
    return tf.reduce_sum(reversal(w) ** 2)


def with_strength(w, strength):
    @tf.custom_gradient
    def reversal(x, strength):
        def rule(cotangent):
            return -strength * cotangent, tf.reduce_sum(cotangent * x) / 3

        return tf.identity(x), rule

    return tf.reduce_sum(reversal(w, strength) ** 2 * strength)


def nested(w, strength):
    """A rule around a rule."""
    inner = ruled(lambda x, cotangent: 0.5 * cotangent, tf.sin)
    outer = ruled(lambda x, cotangent: -2.0 * cotangent * x, lambda x: inner(x) * x)
    return tf.reduce_sum(outer(strength * w) ** 2)


def by_keras(w, strength):
    @keras.ops.custom_gradient
    def third(x):
        def rule(*arguments, upstream=None):
            return (arguments[0] if upstream is None else upstream) / 3.0

        return x * x, rule

    return tf.reduce_sum(third(strength * w) ** 2)


def quantized(x, low, high, **options):
    """To 4 bits."""
    return tf.quantization.quantize_and_dequantize_v2(
        x, low, high, num_bits=4, **options
    )


OBJECTIVES = {
    "reversed": squares(ruled(lambda x, cotangent: -0.5 * cotangent)),
    "scaled": squares(ruled(lambda x, cotangent: 0.5 * cotangent, tf.sin)),
    "straight-through sign": squares(ruled(lambda x, cotangent: cotangent, tf.sign)),
    "straight-through rounding": lambda w, strength: tf.reduce_sum(
        (ruled(lambda x, cotangent: cotangent, tf.round)(w) * w - strength) ** 2
    ),
    "passed through": lambda w, strength: tf.reduce_sum(
        (tf.grad_pass_through(tf.sin)(w) * w - strength) ** 2
    ),
    "clipped": squares(
        ruled(lambda x, cotangent: tf.clip_by_value(cotangent, -0.3, 0.3) * x, tf.sin)
    ),
    "strength that is closed over": closed_over,
    "strength that is an argument": with_strength,
    "by Keras": by_keras,
    "nested": nested,
    "quantized": lambda w, strength: tf.reduce_sum(
        (tf.quantization.quantize_and_dequantize(w, -2.0, 1.5, num_bits=3) * strength)
        ** 2
    ),
    "quantized, of a range": lambda w, strength: tf.reduce_sum(
        (
            quantized(w, -0.45 * strength, 1.1 * strength, range_given=True)
            - w * strength
        )
        ** 2
    ),
    "quantized, of a long range": lambda w, strength: tf.reduce_sum(
        (quantized(w, -strength, 0.2 * strength, range_given=True) - w * strength) ** 2
    ),
    "quantized, of its own range": lambda w, strength: tf.reduce_sum(
        (quantized(w * strength, 0.0, 0.9) - strength) ** 2
    ),
    "quantized, without a sign": lambda w, strength: tf.reduce_sum(
        quantized(tf.exp(w), 0.0, 2 * strength, range_given=True, signed_input=False)
        ** 2
    ),
    "quantized by slices": lambda w, strength: tf.reduce_sum(
        quantized(
            tf.stack([w, strength * w**2]),
            *(tf.stack([-strength, -0.3]), tf.stack([0.6, 0.4])),
            axis=0,
        )
        ** 2
    ),
    # Rules that are the derivative.
    "logarithm": squares(
        ruled(
            lambda x, cotangent: cotangent * (1 - 1 / (1 + tf.exp(x))),
            lambda x: tf.math.log(1 + tf.exp(x)),
        )
    ),
    "silu": squares(tf.nn.silu),
    "in a loop": in_a_loop(lambda x, cotangent: cotangent * tf.cos(x)),
    "in a branch": in_a_branch(lambda x, cotangent: cotangent * tf.cos(x)),
}


@pytest.mark.filterwarnings("ignore:TensorFlow cannot vectorize:UserWarning")
@pytest.mark.parametrize("mode", in_tiers(MODES, ["reverse", "forward"]))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_differences(name, mode):
    objective = OBJECTIVES[name]
    result = MODES[mode].compute(bilevel(objective), NUM_STEPS)
    assert_close([result.outer_value], [plain_run(objective, **AT)], 1e-12)
    assert_close(result.hypergradients, differences(objective), 1e-7)


@pytest.mark.parametrize("mode", ["reverse, XLA", "forward, XLA"])
def test_a_reversal_in_closed_form(mode):
    """w_T = w_0 (1 + r)^T for −½ as the derivative of w², whose true one is 2 w."""
    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    reversal = ruled(lambda x, cotangent: -0.5 * cotangent)
    problem = far.BilevelProblem(
        *(lambda: reversal(w.value) ** 2, lambda: w.value),
        *([w], far.GradientDescent(rate), [rate]),
    )
    result = MODES[mode].compute(problem, 2)
    assert_close(result.hypergradients, [2 * (1 + 0.1)], 1e-6)


def test_a_rule_where_there_is_no_derivative():
    """Σ|w − c| as a root, which has none where w = c, as w is at first."""
    center = np.array([1.0, -2.0])
    distance = ruled(
        lambda x, cotangent: cotangent * tf.sign(x),
        lambda x: tf.sqrt(x**2),
    )
    w = keras.Variable(center, dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
    scale = far.Hyperparameter(2.0, name="scale", dtype="float64")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(
            (distance(w.value - center) + 0.5) ** 2 + scale * w.value**2
        ),
        lambda: tf.reduce_sum(w.value**3),
        *([w], far.GradientDescent(rate), [rate, scale]),
    )

    def run(rate, scale):
        w = center
        for _ in range(3):
            x = w - center
            w = w - rate * (2 * (np.abs(x) + 0.5) * np.sign(x) + 2 * scale * w)
        return (w**3).sum()

    expected = [
        (run(0.1 + WIDTH, 2.0) - run(0.1 - WIDTH, 2.0)) / (2 * WIDTH),
        (run(0.1, 2.0 + WIDTH) - run(0.1, 2.0 - WIDTH)) / (2 * WIDTH),
    ]
    for mode in (MODES["reverse"], MODES["forward"]):
        result = mode.compute(problem, 3)
        assert_close([result.outer_value], [run(0.1, 2.0)], 1e-12)
        assert_close(result.hypergradients, expected, 1e-7)


def test_in_real_time():
    """E = w_2² = (1 + r)⁴, of a reversal; no batch is there before the training."""
    reversal = ruled(lambda x, cotangent: -0.5 * cotangent)
    rate = far.Hyperparameter(0.1, name="rate")
    net = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        ]
    )
    x, y = tf.ones([8, 1]), tf.zeros([8, 1])
    tuned = far.RealTimeModel(
        *(net, [rate], far.GradientDescent(rate)),
        hyper_optimizer=keras.optimizers.SGD(0.01),
        update_every=2,
        hyper_data=(x, y),
        hyper_loss="mse",
    )
    tuned.compile(loss=lambda y, y_pred: tf.reduce_mean(reversal(y_pred - y) ** 2))
    tuned.fit(x, y, batch_size=4, verbose=0)
    assert_close([rate], [0.1 - 0.01 * 4 * 1.1**3], 1e-5)
