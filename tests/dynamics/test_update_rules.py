"""Update rules, against Keras' own optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, hyper, slope

SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.7)
PAIRS = {
    "gradient descent": (far.GradientDescent(0.1), keras.optimizers.SGD(0.1)),
    "gradient descent under a Keras schedule": (
        far.GradientDescent(SCHEDULE),
        keras.optimizers.SGD(SCHEDULE),
    ),
    "momentum": (far.Momentum(0.1, 0.9), keras.optimizers.SGD(0.1, 0.9)),
    "nesterov": (
        far.Momentum(0.1, 0.9, nesterov=True),
        keras.optimizers.SGD(0.1, 0.9, nesterov=True),
    ),
    "adam": (far.Adam(0.05), keras.optimizers.Adam(0.05)),
    "adam, all arguments": (
        far.Adam(0.05, beta_1=0.7, beta_2=0.95, epsilon=0.01),
        keras.optimizers.Adam(0.05, beta_1=0.7, beta_2=0.95, epsilon=0.01),
    ),
    "adamw": (
        far.AdamW(0.05, weight_decay=0.2),
        keras.optimizers.AdamW(0.05, weight_decay=0.2),
    ),
    "rmsprop": (
        far.RMSprop(0.02, 0.8, momentum=0.5, epsilon=1e-3),
        keras.optimizers.RMSprop(0.02, 0.8, momentum=0.5, epsilon=1e-3),
    ),
    "adam under a Keras schedule": (
        far.Adam(SCHEDULE),
        keras.optimizers.Adam(SCHEDULE),
    ),
}


def trained_by_keras(problem, optimizer, num_steps):
    """The weights and losses of a plain training loop; the model is put back."""
    variables = problem.model.trainable_variables
    start = [variable.numpy() for variable in variables]
    optimizer = type(optimizer).from_config(optimizer.get_config())
    optimizer.build(variables)
    losses = []
    for _ in range(num_steps):
        with tf.GradientTape() as tape:
            loss = problem.inner(problem.train)
        optimizer.apply(tape.gradient(loss, variables), variables)
        losses.append(float(loss))
    weights = [variable.numpy() for variable in variables]
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)
    return weights, losses


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PAIRS)
def test_values_equal_keras_over_50_steps(name, dtype):
    """To float32's precision, to which Keras rounds its numbers in float64 too.

    In Adam's bias correction it so makes √(1 − 0.999) wrong by 6e-6, which the
    trajectory amplifies. (To 1e-12: see the unrolled reference.)
    """
    tolerance = 1e-4 if "adam" in name else 1e-5
    dynamics, optimizer = PAIRS[name]
    problem = Classification(dtype)
    weights, losses = trained_by_keras(problem, optimizer, 50)
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(problem.bilevel(dynamics), 50)
    assert_close(result.state.variables, weights, tolerance)
    assert_close([result.inner_values], [losses], tolerance)
    assert np.abs(weights[0] - Classification(dtype).model.get_weights()[0]).max() > 0.1


def test_constraints_of_weights_are_applied_as_in_keras():
    """And differentiated: the reference below is by finite differences."""
    random = np.random.RandomState(0)
    x, y = random.randn(8, 3), random.randn(8, 2)
    layer = keras.layers.Dense(
        2, kernel_constraint="non_neg", bias_constraint="unit_norm", dtype="float64"
    )
    layer.build((None, 3))
    start = [np.abs(random.randn(3, 2)), random.randn(2)]

    def loss():
        return tf.reduce_mean((layer(x) - y) ** 2)

    layer.set_weights(start)
    optimizer = keras.optimizers.SGD(0.25, 0.5)
    optimizer.build(layer.trainable_variables)
    for _ in range(20):
        with tf.GradientTape() as tape:
            value = loss()
        variables = layer.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
    expected = layer.get_weights()
    assert np.any(expected[0] == 0)

    layer.set_weights(start)
    rate = far.Hyperparameter(0.25, dtype="float64", name="rate")
    problem = far.BilevelProblem(loss, loss, layer, far.Momentum(rate, 0.5), [rate])
    mode = far.ReverseHG()
    result = mode.compute(problem, 20)
    assert_close(result.state.variables, expected, 1e-6)
    short = mode.compute(problem, 4).hypergradients[0]
    found = slope(mode, problem, 4, 1e-6, (rate, 1.0))
    np.testing.assert_allclose(found, short, rtol=1e-6)


def test_momentum_under_a_schedule_follows_the_paper():
    """m' = μm + g, w' = w − η_t m': by hand for g = 1, μ = 0.9."""
    w = keras.Variable(0.0, dtype="float64", name="w")
    scale = far.Hyperparameter(1.0, dtype="float64", name="scale")
    problem = far.BilevelProblem(
        lambda: w * scale,
        lambda: 1.0 * w,
        [w],
        far.Momentum(lambda step: 0.1 ** tf.cast(step, "float64"), 0.9),
        [scale],
    )
    far.ReverseHG(jit_compile=False).compute(problem, 3)
    m = [1.0, 1.9, 2.71]
    assert_close([w], [-(m[0] + 0.1 * m[1] + 0.01 * m[2])], 1e-12)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda t: 0.1 / (1 + t), [0.1, 0.05, 0.1 / 3]),
        (lambda t: 0.1 * 0.5**t, [0.1, 0.05, 0.025]),
        (lambda t: 1 - t / 10, [1.0, 0.9, 0.8]),
        (lambda t: tf.constant([0.3, 0.2, 0.1])[t], [0.3, 0.2, 0.1]),
        (lambda t: 0.25, [0.25] * 3),
        (lambda t: 0.1 / tf.sqrt(t + 1), [0.1, 0.1 / 2**0.5, 0.1 / 3**0.5]),
        (lambda t: 0.1 * tf.exp(-t), [0.1, 0.1 / np.e, 0.1 / np.e**2]),
        (lambda t: tf.constant(0.1, tf.float64) * t, [0.0, 0.1, 0.2]),
    ],
)
def test_schedules_compute_with_integers_or_floats(schedule, rates):
    w = keras.Variable(0.0, dtype="float64", name="w")
    scale = hyper(1.0, "scale")
    problem = far.BilevelProblem(
        lambda: w * scale,
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(schedule),
        [scale],
    )
    result = far.ReverseHG(jit_compile=False).compute(problem, 3)
    assert_close(result.hypergradients, [-sum(rates)], 1e-7)


def test_the_first_pattern_that_matches_counts():
    w, v = keras.Variable(0.0, name="kernel"), keras.Variable(0.0, name="bias")
    scale = far.Hyperparameter(1.0, name="scale")

    def moved(learning_rate):
        for variable in (w, v):
            variable.assign(0.0)
        problem = far.BilevelProblem(
            lambda: scale * (w + v),
            lambda: w + v,
            [w, v],
            far.GradientDescent(learning_rate),
            [scale],
        )
        far.ReverseHG(jit_compile=False).compute(problem, 1)
        return [float(w), float(v)]

    assert moved({"kern": 0.5, ".*": 0.25}) == [-0.5, -0.25]
    assert moved({"k": 0.5, "i": 0.25, ".*": 9.0}) == [-0.5, -0.25]
    assert moved([(v, 0.5), (w, 0.125)]) == [-0.125, -0.5]


def test_a_dynamics_of_ones_own():
    class SignDescent(far.Dynamics):
        slot_names = ("count",)

        def __init__(self, learning_rate):
            super().__init__(learning_rate=learning_rate)

        def update(self, variable, gradient, slots, step, learning_rate):
            moved = variable - learning_rate * tf.sign(gradient)
            return moved, (slots[0] + 1,)

    w = keras.Variable([3.0, -4.0], name="w")
    rate = far.Hyperparameter(0.5, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w * w),
        lambda: tf.reduce_sum(w),
        [w],
        SignDescent(rate),
        [rate],
    )
    result = far.ReverseHG().compute(problem, 4)
    assert w.numpy().tolist() == [1.0, -2.0]
    assert result.state.slots[0][0].numpy().tolist() == [4.0, 4.0]
    assert float(result.hypergradients[0]) == 0.0  # −4 + 4


def test_representation():
    assert repr(far.Momentum(0.1, momentum=0.5)) == (
        "Momentum(learning_rate=0.1, momentum=0.5)"
    )
