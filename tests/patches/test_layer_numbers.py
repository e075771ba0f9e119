"""Hyperparameters in the place of numbers of Keras' layers and losses.

Compared are differences of plain eager runs of the same training.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers

layers, losses = keras.layers, keras.losses
RANDOM = np.random.RandomState(0)
X = RANDOM.randn(6, 4)
CLASSES = RANDOM.randint(0, 3, 6)
ONE_HOT, BINARY = np.eye(3)[CLASSES], RANDOM.randint(0, 2, (6, 1)).astype("float64")
NUM_STEPS, RATE, START, WIDTH = 2, 0.3, 0.3, 1e-5


@pytest.fixture(autouse=True)
def _float64():
    keras.config.set_floatx("float64")


def activation(function):
    return lambda h: layers.Lambda(lambda x: function(x, h))


LAYERS = {
    "GaussianNoise": lambda h: layers.GaussianNoise(h, seed=1),
    "GaussianDropout": lambda h: layers.GaussianDropout(h, seed=1),
    "LeakyReLU": layers.LeakyReLU,
    "ELU": layers.ELU,
    "slope of ReLU": lambda h: layers.ReLU(negative_slope=h),
    "slope and threshold": lambda h: layers.ReLU(negative_slope=h, threshold=0.1),
    "ceiling of ReLU": lambda h: layers.ReLU(max_value=h),
    "LayerNormalization": lambda h: layers.LayerNormalization(epsilon=h),
    "Rescaling": lambda h: layers.Rescaling(scale=h, offset=h),
    "penalty on activities": lambda h: layers.Activation(
        "linear", activity_regularizer=far.regularizers.L2(h)
    ),
    "celu": activation(keras.activations.celu),
    "soft_shrink": activation(keras.activations.soft_shrink),
    "tf.nn.leaky_relu": activation(tf.nn.leaky_relu),
}
LOSSES = {
    "CategoricalCrossentropy": (
        lambda h: losses.CategoricalCrossentropy(label_smoothing=h),
        *(ONE_HOT, "softmax"),
    ),
    "CategoricalCrossentropy from logits": (
        lambda h: losses.CategoricalCrossentropy(True, label_smoothing=h),
        *(ONE_HOT, None),
    ),
    "CategoricalFocalCrossentropy": (
        lambda h: losses.CategoricalFocalCrossentropy(
            alpha=h, gamma=h, label_smoothing=h
        ),
        *(ONE_HOT, "softmax"),
    ),
    "BinaryCrossentropy": (
        lambda h: losses.BinaryCrossentropy(label_smoothing=h),
        *(BINARY, "sigmoid"),
    ),
    "BinaryCrossentropy from logits": (
        lambda h: losses.BinaryCrossentropy(True, label_smoothing=h),
        *(BINARY, None),
    ),
    "BinaryFocalCrossentropy": (
        lambda h: losses.BinaryFocalCrossentropy(
            True, alpha=h, gamma=h, label_smoothing=h
        ),
        *(BINARY, "sigmoid"),
    ),
    "Huber": (lambda h: losses.Huber(delta=h), BINARY, None),
    "Tversky": (lambda h: losses.Tversky(alpha=h, beta=h), BINARY, "sigmoid"),
}
MODES = {
    "reverse": far.ReverseHG(jit_compile=False),
    "forward": far.ForwardHG(jit_compile=False),
    "reverse, XLA": far.ReverseHG(jit_compile=True),
}
# Eager runs draw by TensorFlow, from the same seeds as a graph.
DRAWING = ("GaussianNoise", "GaussianDropout")


def with_layer(make):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), make, layers.Dense(1)]
    )
    return model, lambda y: tf.reduce_mean((y - 1.0) ** 2)


def with_loss(loss, y, output):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, "tanh"),
            layers.Dense(y.shape[1], output),
        ]
    )
    return model, lambda y_pred: loss(y, y_pred)


def case(name, h):
    """A model with its loss, from the same weights each time."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    if name in LAYERS:
        return with_layer(LAYERS[name](h))
    make, y, output = LOSSES[name]
    return with_loss(make(h), y, output)


def objectives(model, loss):
    return (
        lambda: loss(model(X, training=True)) + sum(model.losses),
        lambda: tf.reduce_mean(model(X, training=False) ** 2),
    )


def plain_run(name, value):
    model, loss = case(name, hyper(value, "h"))
    inner, outer = objectives(model, loss)
    weights = [
        w for w in model.trainable_weights if not isinstance(w, far.Hyperparameter)
    ]
    for _ in range(NUM_STEPS):
        with tf.GradientTape() as tape:
            objective = inner()
        gradients = tape.gradient(objective, [w.value for w in weights])
        for w, gradient in zip(weights, gradients, strict=True):
            w.assign(w - RATE * gradient)
    return float(outer())


@pytest.mark.parametrize("mode", in_tiers(MODES, ["reverse"]))
@pytest.mark.parametrize("name", [*LAYERS, *LOSSES])
def test_equals_differences(name, mode):
    if mode == "reverse, XLA" and name in DRAWING:
        pytest.skip("XLA draws other numbers")
    h = hyper(START, "h")
    model, loss = case(name, h)
    problem = far.BilevelProblem(
        *objectives(model, loss), model, far.GradientDescent(RATE), [h]
    )
    result = MODES[mode].compute(problem, NUM_STEPS)
    up, down = (plain_run(name, START + step) for step in (WIDTH, -WIDTH))
    assert_close([result.outer_value], [plain_run(name, START)], 1e-9)
    assert_close(result.hypergradients, [(up - down) / (2 * WIDTH)], 1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_that_python_would_tell_apart(value):
    """The graph serves all values: what is 0 at first is no constant zero."""
    name = "CategoricalCrossentropy from logits" if value == 0.0 else "ELU"
    h = hyper(value, "h")
    model, loss = case(name, h)
    problem = far.BilevelProblem(
        *objectives(model, loss), model, far.GradientDescent(RATE), [h]
    )
    result = MODES["reverse"].compute(problem, NUM_STEPS)
    up, down = (plain_run(name, value + step) for step in (WIDTH, -WIDTH))
    assert_close(result.hypergradients, [(up - down) / (2 * WIDTH)], 1e-5)


def attention(rate):
    x = keras.Input((4,))
    pairs = layers.Reshape((2, 2))(x)
    attended = layers.MultiHeadAttention(1, 2, dropout=rate, seed=1)(pairs, pairs)
    return keras.Model(x, layers.Flatten()(attended))


DROPOUT = {
    "Dropout": lambda h: layers.Dropout(h, seed=1),
    "AlphaDropout": lambda h: layers.AlphaDropout(h, seed=1),
    "SpatialDropout1D": lambda h: keras.Sequential(
        [
            layers.Reshape((1, 4)),
            layers.SpatialDropout1D(h, seed=1),
            layers.Reshape((4,)),
        ]
    ),
    "in a cell": lambda h: keras.Sequential(
        [layers.Reshape((2, 2)), layers.SimpleRNN(4, dropout=h, seed=1, unroll=True)]
    ),
    "of attention": attention,
    "tf.nn": activation(
        lambda x, h: tf.nn.experimental.stateless_dropout(x, rate=h, seed=(1, 2))
    ),
}


@pytest.mark.parametrize("name", DROPOUT)
def test_a_rate_of_dropout_is_refused(name):
    h = hyper(START, "h")
    model, loss = with_layer(DROPOUT[name](h))
    with pytest.raises(
        ValueError,
        match=r"`inner_objective` holds GreaterEqual .*mask of dropout, of which a "
        r"rate can be no hyperparameter, jumps where `h` passes .*GaussianDropout",
    ):
        far.BilevelProblem(
            *objectives(model, loss), model, far.GradientDescent(RATE), [h]
        )


def test_what_python_would_decide_once_is_refused():
    h, w = hyper(0.5, "h"), keras.Variable(1.0, dtype="float64", name="w")

    def problem(condition):
        return far.BilevelProblem(
            *(lambda: h * w**2 if condition() else w, lambda: w**2),
            *([w], far.GradientDescent(RATE), [h]),
        )

    with pytest.raises(
        ValueError, match=r"compares the hyperparameter `h` with 0\.7, once for all"
    ):
        MODES["reverse"].compute(problem(lambda: h < 0.7), 1)
    for condition in (lambda: h > 0, lambda: h, lambda: h != 0.3):
        assert np.any(MODES["reverse"].compute(problem(condition), 1).hypergradients)


def test_comparisons_are_tensors_still():
    """So that a choice by tf.where is one by value."""
    h = hyper(-0.5, "h")
    for traced in (tf.function(lambda: tf.where(h > 0, 1.0, 2.0)), lambda: 2.0):
        assert float(traced()) == 2.0
    assert not h > 0
    assert h == -0.5
    assert bool(h)
    assert not bool(hyper(0.0, "zero"))


def test_penalties_of_keras_say_what_to_take():
    h = hyper(0.1, "h")
    for make in (
        lambda: layers.ActivityRegularization(l2=h),
        lambda: keras.regularizers.L1(h),
    ):
        with pytest.raises(ValueError, match=r"Remedy: far_ho_tf.regularizers.L1 or"):
            make()
    assert float(keras.regularizers.L2(0.5)(tf.ones(2, tf.float64))) == 1.0


def test_variables_that_a_layer_holds():
    h = hyper(START, "h")
    model, loss = case("GaussianNoise", h)
    parts = objectives(model, loss)
    with pytest.raises(ValueError, match=r"`h` is listed both .*give the model"):
        far.BilevelProblem(
            *parts, model.trainable_variables, far.GradientDescent(RATE), [h]
        )


def test_in_real_time():
    """With a loss and a layer that hold hyperparameters."""
    smoothing, noise = hyper(0.1, "smoothing"), hyper(0.2, "noise")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.GaussianNoise(noise, seed=1),
            layers.Dense(3, activation="softmax"),
        ]
    )
    tuned = far.RealTimeModel(
        *(model, [smoothing, noise], far.GradientDescent(RATE)),
        hyper_optimizer=keras.optimizers.SGD(0.01),
        update_every=1,
        hyper_data=(X, ONE_HOT),
        hyper_loss=losses.CategoricalCrossentropy(),
    )
    tuned.compile(loss=losses.CategoricalCrossentropy(label_smoothing=smoothing))
    tuned.fit(X, ONE_HOT, batch_size=6, epochs=3, verbose=0)
    assert float(smoothing) != 0.1
    assert float(noise) != 0.2
