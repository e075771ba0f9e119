"""Layers, loops and branches in forward mode: values, and what is done one by one."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers, relative_error, slope


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")


def shifted(model, x, y):
    """A classifier on inputs that a vector of hyperparameters shifts."""
    rate = hyper(0.1, "rate")
    shift = hyper(np.zeros(x.shape[1:]), "shift")

    def loss(batch, training):
        inputs, labels = batch
        log_p = tf.nn.log_softmax(model(inputs, training=training))
        return -tf.reduce_mean(tf.gather(log_p, labels, axis=-1, batch_dims=1))

    problem = far.BilevelProblem(
        lambda batch: loss((batch[0] + shift, batch[1]), True),
        lambda batch: loss(batch, False),
        model,
        far.Momentum(rate, 0.8),
        [rate, shift],
        inner_data=far.Batches((x, y), 5, seed=1),
        outer_data=(x[::-1].copy(), y),
    )
    return problem


ONE_BY_ONE = "TensorFlow cannot vectorize {}: .* one by one"


def attention():
    inputs = keras.Input((4, 3))
    x = keras.layers.MultiHeadAttention(2, 2)(inputs, inputs)
    x = keras.layers.LayerNormalization()(x + inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def layers(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack, keras.layers.Dense(3)])


MODELS = {
    "convolution and pooling": lambda: layers(
        (6, 6, 1),
        keras.layers.Conv2D(2, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
    ),
    "strided convolutions and BatchNorm": lambda: layers(
        (6, 6, 1),
        keras.layers.Conv2D(2, 3, strides=2, activation="tanh"),
        keras.layers.BatchNormalization(momentum=0.7),
        keras.layers.GlobalAveragePooling2D(),
    ),
    "attention": attention,
    "dropout and gelu": lambda: layers(
        (4,),
        keras.layers.Dense(5, activation="gelu"),
        keras.layers.Dropout(0.4, seed=3),
    ),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", in_tiers(MODELS, ["convolution and pooling", "dropout and gelu"])
)
def test_equals_reverse_mode(name):
    """Reverse mode is compared with the unrolled reference in whole/test_models.py."""
    model = MODELS[name]()
    random = np.random.RandomState(0)
    x, y = random.randn(9, *model.input_shape[1:]), random.randint(0, 3, 9)
    problem = shifted(model, x, y)
    reverse = far.ReverseHG(jit_compile=False).compute(problem, 3)
    forward = far.ForwardHG().compute(problem, 3)
    assert_close(forward.hypergradients, reverse.hypergradients, 1e-9)


@pytest.mark.usefixtures("float64")
def test_gradient_reversal_is_not_symmetric():
    """A Hessian that is not symmetric tells J v from Jᵀ v."""

    @tf.custom_gradient
    def reversal(x):
        return x, lambda upstream: -0.5 * upstream

    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(4, activation="tanh")(inputs)
    hidden = keras.layers.BatchNormalization(momentum=0.7)(hidden)
    hidden = keras.layers.Dropout(0.3, seed=2)(hidden)
    hidden = keras.layers.Lambda(reversal, output_shape=(4,))(hidden)
    outputs = keras.layers.Dense(3)(hidden)
    random = np.random.RandomState(0)
    problem = shifted(
        keras.Model(inputs, outputs), random.randn(9, 4), random.randint(0, 3, 9)
    )
    rate, shift = problem.hyperparameters
    direction = random.randn(4)
    for mode in (far.ReverseHG(jit_compile=False), far.ForwardHG(jit_compile=False)):
        found = mode.compute(problem, 4).hypergradients
        expected = slope(mode, problem, 4, 1e-5, (rate, 0.7), (shift, direction))
        along = 0.7 * float(found[0]) + direction @ found[1].numpy()
        assert relative_error(along, expected) < 1e-7


def branching():
    def branch(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(x), lambda: tf.sin(x))

    return layers((4,), keras.layers.Lambda(branch, output_shape=(4,)))


RECURRENT = {
    "LSTM": lambda: [keras.layers.LSTM(3)],
    "statistics of an LSTM": lambda: [
        keras.layers.LSTM(2),
        keras.layers.BatchNormalization(momentum=0.7),
    ],
    "GRU": lambda: [keras.layers.GRU(3)],
    "both directions, stacked": lambda: [
        keras.layers.Bidirectional(
            keras.layers.SimpleRNN(2, activation="softplus", return_sequences=True)
        ),
        keras.layers.Dropout(0.4, seed=3),
        keras.layers.SimpleRNN(2),
    ],
}


def sequences(*stack):
    """A problem on sequences, all of which `shift` moves; and its hyperparameters."""
    random = np.random.RandomState(0)
    x, y = random.randn(9, 4, 2), random.randint(0, 3, 9)
    problem = shifted(layers((4, 2), *stack), x, y)
    return problem, problem.hyperparameters


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", in_tiers(RECURRENT, ["statistics of an LSTM"]))
def test_recurrent_layers_equal_finite_differences(name):
    problem, (rate, shift) = sequences(*RECURRENT[name]())
    mode = far.ForwardHG(jit_compile=False)
    with pytest.warns(UserWarning, match=ONE_BY_ONE.format("StatelessWhile")):
        result = mode.compute(problem, 3)
    assert result.status.one_by_one == ("StatelessWhile",)
    direction = np.random.RandomState(1).randn(*shift.shape)
    by_rate, by_shift = result.hypergradients
    found = slope(mode, problem, 3, 1e-5, (rate, 0.7), (shift, direction))
    expected = 0.7 * by_rate + np.sum(direction * by_shift)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.usefixtures("float64")
def test_recurrent_layers_are_compiled_by_xla():
    problem, _ = sequences(keras.layers.SimpleRNN(3))
    expected = far.ReverseHG(jit_compile=False).compute(problem, 3).hypergradients
    for mode in (far.ForwardHG(), far.ForwardHG(chunk_size=2)):
        with pytest.warns(UserWarning, match=ONE_BY_ONE.format("StatelessWhile")):
            result = mode.compute(problem, 3)
        assert result.status.compiler == "xla"
        assert_close(result.hypergradients, expected, 1e-9)


def test_one_tangent_is_no_stack():
    """Then nothing is slower for being done one by one: no warning."""
    w = keras.Variable([0.2, -0.4], dtype="float64", name="w")
    rate = hyper(0.1, "rate")

    def objective():
        kernel = tf.convert_to_tensor(w)
        states = tf.scan(
            lambda h, x: tf.tanh(h * kernel + x), tf.ones([3, 2], "float64")
        )
        return tf.reduce_sum(states[-1])

    problem = far.BilevelProblem(
        objective, objective, [w], far.GradientDescent(rate), [rate]
    )
    mode = far.ForwardHG(jit_compile=False)
    result = mode.compute(problem, 3)
    assert result.status.one_by_one == ()
    found = slope(mode, problem, 3, 1e-5, (rate, 1.0))
    np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-7)


@tf.custom_gradient
def lopsided(x):
    """The identity; what it has for a derivative is that of no function."""
    return tf.identity(x), lambda upstream: upstream * tf.reverse(x, [0]) ** 2


def looped(w, rate, penalty, change, read=lambda: 0.0):
    """A problem with a loop, whose objective changes something besides."""

    def objective():
        kernel = change(tf.convert_to_tensor(w))
        states = tf.scan(
            lambda h, x: tf.tanh(h * kernel + x), tf.ones([3, 2], "float64")
        )
        return tf.reduce_sum(states[-1] ** 2 * (1 + penalty * kernel) + read())

    return far.BilevelProblem(
        objective,
        lambda: tf.reduce_sum(w * w) + read(),
        [w],
        far.Momentum(rate, 0.5),
        [rate, penalty],
    )


@pytest.mark.parametrize("name", ["custom gradient", "statistics"])
def test_loops_without_symmetry(name):
    """Second derivatives need not commute where first ones are not all true.

    No gradient flows through what an objective assigns, and reads again.
    """
    w = keras.Variable([0.7, -0.4], dtype="float64", name="w")
    mean = keras.Variable([0.1, 0.2], dtype="float64", name="mean", trainable=False)
    rate, penalty = hyper(0.1, "rate"), hyper(0.3, "penalty")

    def averaged(kernel):
        mean.assign(0.5 * mean + 0.5 * kernel**2)
        return kernel * tf.convert_to_tensor(mean)

    if name == "statistics":
        problem = looped(w, rate, penalty, averaged, lambda: tf.reduce_sum(mean * mean))
    else:
        problem = looped(w, rate, penalty, lopsided)
    forward, reverse = (
        far.ForwardHG(jit_compile=False),
        far.ReverseHG(jit_compile=False),
    )
    expected = reverse.compute(problem, 3).hypergradients
    with pytest.warns(UserWarning, match=ONE_BY_ONE.format("StatelessWhile")):
        result = forward.compute(problem, 3)
    assert_close(result.hypergradients, expected, 1e-9)
    if name == "statistics":
        found = slope(forward, problem, 3, 1e-5, (rate, 0.7), (penalty, 1.0))
        by_rate, by_penalty = result.hypergradients
        np.testing.assert_allclose(found, 0.7 * by_rate + by_penalty, rtol=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (branching, "StatelessIf"),
        (MODELS["convolution and pooling"], "Conv2DBackpropFilter"),
    ],
    ids=["branch", "convolution"],
)
def test_what_is_not_vectorized_is_told(make, operation):
    """A branch cannot be; nor can a convolution's kernel, but it alone."""
    model = make()
    random = np.random.RandomState(0)
    x, y = random.randn(6, *model.input_shape[1:]), random.randint(0, 3, 6)
    mode = far.ForwardHG(jit_compile=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        problem = shifted(model, x, y)
        forward = mode.compute(problem, 2)
    told = [w for w in told if "cannot vectorize" in str(w.message)]
    if operation == "StatelessIf":
        assert re.match(ONE_BY_ONE.format(operation), str(told[0].message))
        assert [w.filename for w in told] == [__file__]
    else:
        assert told == []
    reverse = far.ReverseHG(jit_compile=False).compute(problem, 2)
    assert_close(forward.hypergradients, reverse.hypergradients, 1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = mode.compute(problem, 2)
    assert forward.status.one_by_one == again.status.one_by_one == (operation,)
    assert reverse.status.one_by_one == ()


def test_what_xla_cannot_compile_runs_without_it():
    """XLA's gradient of a concatenation has no gradient itself."""
    inputs = keras.Input((3,), dtype="float64")
    dense = keras.layers.Dense(2, dtype="float64")
    joined = keras.layers.Concatenate(dtype="float64")([dense(inputs), inputs])
    outputs = keras.layers.Dense(3, dtype="float64")(joined)
    random = np.random.RandomState(0)
    problem = shifted(
        keras.Model(inputs, outputs), random.randn(8, 3), random.randint(0, 3, 8)
    )
    result = far.ForwardHG().compute(problem, 3)
    assert result.status.compiler == "graph"
    assert "XLA cannot compile it" in result.status.reason
    reverse = far.ReverseHG(jit_compile=False).compute(problem, 3)
    assert_close(result.hypergradients, reverse.hypergradients, 1e-9)
