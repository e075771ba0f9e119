"""Keras models and other owners of variables, against the reference."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference
from tests.helpers import assert_close, hyper, in_tiers, slope
from tests.reference import constant


def classification(shape, classes=3, count=12, seed=0):
    random = np.random.RandomState(seed)
    return random.randn(count, *shape), random.randint(0, classes, count)


def cross_entropy(model, training):
    def objective(batch):
        x, y = batch
        log_p = tf.nn.log_softmax(model(x, training=training))
        chosen = tf.gather(log_p, y, axis=-1, batch_dims=1)
        return -tf.reduce_mean(chosen) + sum(model.losses)

    return objective


def compare(model, inner_data, outer_data, tolerance=1e-9, jit_compile="auto"):
    """Runs a model by momentum on minibatches; returns the result's status."""
    rate, mass = hyper(0.1, "rate"), hyper(0.8, "mass")
    inner, outer = cross_entropy(model, True), cross_entropy(model, False)
    batches = far.Batches(inner_data, batch_size=5, seed=2)
    naive = {
        "inner": inner,
        "outer": outer,
        "variables": model.trainable_variables,
        "state": model.non_trainable_variables,
        "hyperparameters": [rate, mass],
        "batch": batches,
        "outer_batch": outer_data,
    }
    rule = reference.momentum(constant(rate), constant(mass))
    value, expected, final = reference.unrolled(naive, rule, 5)
    problem = far.BilevelProblem(
        inner,
        outer,
        model,
        far.Momentum(rate, mass),
        [rate, mass],
        inner_data=batches,
        outer_data=outer_data,
    )
    result = far.ReverseHG(jit_compile=jit_compile).compute(problem, 5)
    assert_close([result.outer_value], [value], 1e-11)
    assert_close(model.trainable_variables, final, 1e-11)
    assert_close(result.hypergradients, expected, tolerance)
    # Of what is done one by one; see hypergradients/forward/test_mode.py.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TensorFlow cannot vectorize")
        forward = far.ForwardHG(jit_compile=jit_compile).compute(problem, 5)
    assert_close(forward.hypergradients, expected, tolerance)
    assert_close([forward.outer_value], [value], 1e-11)
    # The model itself is left in the final state, statistics included.
    assert_close([outer(outer_data)], [value], 1e-11)
    return result.status


@pytest.fixture
def float64():
    keras.config.set_floatx("float64")


@pytest.mark.usefixtures("float64")
class TestModels:
    @pytest.mark.parametrize("jit_compile", in_tiers(["auto", False], ["auto"]))
    def test_batch_norm_and_dropout(self, jit_compile):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.BatchNormalization(momentum=0.7),
                keras.layers.Dropout(0.3, seed=1),
                keras.layers.Dense(3),
            ]
        )
        status = compare(
            model, classification((4,)), classification((4,), seed=1), 1e-9, jit_compile
        )
        assert status.compiler == "graph"  # XLA would draw other masks.

    def test_dropout_in_xla_equals_finite_differences(self):
        """XLA's masks differ from TensorFlow's, and are replayed as exactly."""
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.Dropout(0.4, seed=1),
                keras.layers.Dense(3),
            ]
        )
        rate = hyper(0.3, "rate")
        problem = far.BilevelProblem(
            cross_entropy(model, True),
            cross_entropy(model, False),
            model,
            far.Momentum(rate, 0.8),
            [rate],
            inner_data=classification((4,)),
            outer_data=classification((4,), seed=1),
        )
        mode = far.ReverseHG(jit_compile=True)
        (gradient,) = mode.compute(problem, 6).hypergradients
        found = slope(mode, problem, 6, 1e-5, (rate, 1.0))
        np.testing.assert_allclose(found, gradient, rtol=1e-7)

    def test_a_compiled_model_evaluates_the_final_state(self):
        """BatchNorm statistics included."""
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.BatchNormalization(momentum=0.5),
                keras.layers.Dense(3),
            ]
        )
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        rate = hyper(0.3, "rate")
        train, validation = classification((4,)), classification((4,), seed=1)
        problem = far.BilevelProblem(
            cross_entropy(model, True),
            cross_entropy(model, False),
            model,
            far.GradientDescent(rate),
            [rate],
            inner_data=train,
            outer_data=validation,
        )
        result = far.ReverseHG().compute(problem, 5)
        loss = model.evaluate(*validation, verbose=0)
        np.testing.assert_allclose(loss, result.outer_value, rtol=1e-6)

    def test_batch_norm_in_xla(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.BatchNormalization(momentum=0.7),
                keras.layers.Dense(3),
            ]
        )
        data = classification((4,)), classification((4,), seed=1)
        assert compare(model, *data, jit_compile=True).compiler == "xla"

    def test_batch_norm_statistics_carry_derivatives(self):
        """Outer objective of the moving statistics alone: all of it is theirs."""
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3),
                keras.layers.BatchNormalization(),
            ]
        )
        norm = model.layers[-1]
        rate = hyper(0.1, "rate")
        data = classification((4,))
        inner = cross_entropy(model, True)

        def outer():
            return tf.reduce_sum(norm.moving_mean * norm.moving_variance)

        naive = {
            "inner": inner,
            "outer": outer,
            "variables": model.trainable_variables,
            "state": model.non_trainable_variables,
            "hyperparameters": [rate],
            "batch": lambda t: data,
            "outer_batch": None,
        }
        rule = reference.gradient_descent(constant(rate))
        _, expected, _ = reference.unrolled(naive, rule, 4)
        problem = far.BilevelProblem(
            inner, outer, model, far.GradientDescent(rate), [rate], inner_data=data
        )
        result = far.ReverseHG(jit_compile=False).compute(problem, 4)
        assert_close(result.hypergradients, expected, 1e-9)

    @pytest.mark.parametrize(
        "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
    )
    def test_normalization_equals_finite_differences(self, jit_compile):
        """Tapes agree with each other, right or wrong; differences do not care.

        Without the mend of `tf.nn.moments` the error here is 2 % and more.
        """
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.BatchNormalization(momentum=0.7),
                keras.layers.Dense(6, activation="tanh"),
                keras.layers.LayerNormalization(),
                keras.layers.Dense(3),
            ]
        )
        rate, shift = hyper(0.3, "rate"), hyper(np.zeros(5), "shift")
        inner = cross_entropy(model, True)
        problem = far.BilevelProblem(
            lambda b: inner((b[0] + shift[:, None], b[1])),
            cross_entropy(model, False),
            model,
            far.Momentum(rate, 0.8),
            [rate, shift],
            inner_data=far.Batches(classification((4,)), 5, seed=1),
            outer_data=classification((4,), seed=1),
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        gradients = mode.compute(problem, 4).hypergradients
        direction = [0.7, np.array([1.0, -2.0, 0.5, 1.0, 0.3])]
        found = slope(
            mode, problem, 4, 1e-5, (rate, direction[0]), (shift, direction[1])
        )
        expected = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_convolution_and_max_pooling_under_the_defaults(self):
        """26×26 max pooling, whose second derivative XLA gets wrong."""
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1)),
                keras.layers.Conv2D(2, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Flatten(),
                keras.layers.Dense(3),
            ]
        )
        data = classification((28, 28, 1)), classification((28, 28, 1), seed=1)
        status = compare(model, *data)
        assert status.compiler == "graph"
        assert "XLA misplaces" in status.reason

    def test_max_pooling_in_float32_is_close_to_float64(self):
        """XLA, which has no float64 kernel, is wrong by 1 % here in float32."""
        results = []
        for dtype in ("float64", "float32"):
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.Input((28, 28, 1), dtype=dtype),
                    keras.layers.Conv2D(2, 3, activation="relu", dtype=dtype),
                    keras.layers.MaxPooling2D(2, dtype=dtype),
                    keras.layers.Flatten(dtype=dtype),
                    keras.layers.Dense(3, dtype=dtype),
                ]
            )
            random = np.random.RandomState(3)
            model.set_weights(
                [0.2 * random.randn(*w.shape) for w in model.get_weights()]
            )
            x, y = classification((28, 28, 1))
            x = np.round(x, 1).astype(dtype)
            shift = far.Hyperparameter(np.zeros(12), dtype=dtype, name="shift")
            inner = cross_entropy(model, True)
            problem = far.BilevelProblem(
                lambda batch, inner=inner, shift=shift: inner(
                    (batch[0] * (1 + shift[:, None, None, None]), batch[1])
                ),
                cross_entropy(model, False),
                model,
                far.Momentum(0.05, 0.5),
                [shift],
                inner_data=(x, y),
                outer_data=(x, y[::-1].copy()),
            )
            results.append(far.ReverseHG().compute(problem, 5))
        exact, single = results
        assert single.status.compiler == "graph"
        assert_close(single.hypergradients, exact.hypergradients, 1e-4)

    @pytest.mark.thorough
    def test_embedding_and_recurrence(self):
        model = keras.Sequential(
            [
                keras.Input((6,), dtype="int32"),
                keras.layers.Embedding(9, 4),
                keras.layers.LSTM(5),
                keras.layers.Dense(3),
            ]
        )

        def data(seed):
            random = np.random.RandomState(seed)
            return random.randint(0, 9, (12, 6)), random.randint(0, 3, 12)

        compare(model, data(0), data(1))

    def test_regularizers_of_weights_and_activities(self):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(
                    5,
                    activation="tanh",
                    kernel_regularizer=keras.regularizers.L2(0.1),
                    activity_regularizer=keras.regularizers.L2(0.1),
                ),
                keras.layers.Dense(3),
            ]
        )
        compare(model, classification((4,)), classification((4,), seed=1))

    @pytest.mark.thorough
    def test_objectives_made_of_tf_functions(self):
        """A nested tf.function must not keep the values of its first trace."""
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(5, activation="tanh"),
                keras.layers.Dropout(0.2, seed=3),
                keras.layers.Dense(3),
            ]
        )
        rate, penalty = hyper(0.1, "rate"), hyper(0.1, "penalty")
        data = classification((4,))
        start = [tf.identity(v.value) for v in model.variables]

        def plain(batch):
            squares = sum(tf.reduce_sum(w * w) for w in model.trainable_variables)
            return cross_entropy(model, True)(batch) + penalty * squares

        forward = tf.function(lambda x: tf.nn.log_softmax(model(x, training=True)))

        @tf.function
        def squares():
            return sum(tf.reduce_sum(w * w) for w in model.trainable_variables)

        def nested(batch):
            x, y = batch
            chosen = tf.gather(forward(x), y, axis=-1, batch_dims=1)
            return -tf.reduce_mean(chosen) + penalty * squares()

        @tf.function
        def branching(batch):
            value = plain(batch)
            if tf.reduce_sum(batch[0]) > 1e9:  # AutoGraph turns it into tf.cond.
                value = 2.0 * value
            return value

        results = []
        for inner in (plain, tf.function(plain), nested, branching):
            for variable, value in zip(model.variables, start, strict=True):
                variable.assign(value)
            problem = far.BilevelProblem(
                inner,
                tf.function(cross_entropy(model, False)),
                model,
                far.Momentum(rate, 0.9),
                [rate, penalty],
                inner_data=far.Batches(data, 5, seed=1),
                outer_data=data,
            )
            result = far.ReverseHG(jit_compile=False).compute(problem, 4)
            results.append(result.hypergradients)
        for other in results[1:]:
            assert_close(other, results[0], 1e-12)

    def test_a_seed_generator_that_no_layer_owns(self):
        w = keras.Variable(np.ones(3), name="w")
        generator = keras.random.SeedGenerator(4)
        rate = hyper(0.1, "rate")

        def inner():
            noise = keras.random.normal((3,), seed=generator)
            return tf.reduce_sum(tf.sin(w + noise))

        def outer():
            return tf.reduce_sum(w * w)

        naive = {
            "inner": inner,
            "outer": outer,
            "variables": [w],
            "state": [generator.state],
            "hyperparameters": [rate],
            "batch": lambda t: None,
            "outer_batch": None,
        }
        rule = reference.gradient_descent(constant(rate))
        _, expected, _ = reference.unrolled(naive, rule, 4)
        problem = far.BilevelProblem(
            inner, outer, [w], far.GradientDescent(rate), [rate]
        )
        first = far.ReverseHG().compute(problem, 4)
        again = far.ReverseHG().compute(problem, 4)
        assert_close(first.hypergradients, expected, 1e-9)
        assert_close(again.hypergradients, expected, 1e-9)
        assert generator.state.numpy().tolist() == [4, 4]


@pytest.mark.usefixtures("float64")
def test_model_weights_as_hyperparameters_and_learned_initial_values():
    """A representation is tuned (outer), a head is trained from a learned w_0."""
    representation = keras.layers.Dense(4, activation="tanh")
    head = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((5,)), representation, head])
    start, scale = hyper(0.1 * np.ones(3), "start"), hyper(0.5, "scale")
    noise = tf.constant(np.random.RandomState(1).randn(4, 3))
    hypers = [*representation.trainable_variables, start, scale]
    objective = cross_entropy(model, True)
    train, validation = classification((5,)), classification((5,), seed=1)
    naive = {
        "inner": objective,
        "outer": objective,
        "variables": head.trainable_variables,
        "hyperparameters": hypers,
        "batch": lambda t: train,
        "outer_batch": validation,
        "initial": lambda: [scale * noise, tf.convert_to_tensor(start)],
    }
    rule = reference.momentum(constant(np.array(0.3)), constant(np.array(0.8)))
    _, expected, _ = reference.unrolled(naive, rule, 4)
    problem = far.BilevelProblem(
        objective,
        objective,
        model,
        far.Momentum(0.3, 0.8),
        hypers,
        inner_data=train,
        outer_data=validation,
        initial_values=[(head.bias, start), (head.kernel, lambda: scale * noise)],
    )
    assert [v.path for v in problem.variables] == [
        v.path for v in head.trainable_variables
    ]
    result = far.ReverseHG(jit_compile=False).compute(problem, 4)
    assert_close(result.hypergradients, expected, 1e-9)
