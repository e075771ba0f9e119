"""Bare tf.Variables and tf.Modules, against Keras variables."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.variables.identity import path_of
from far_ho_tf.variables.owners import check_variables, common_dtype, trained_variables
from tests.helpers import assert_close, hyper, in_tiers


class _Ridge(tf.Module):
    """A plain tf.Module; one of its weights is not trainable."""

    def __init__(self):
        super().__init__()
        self.w = tf.Variable([0.1, -0.2, 0.3], dtype=tf.float64, name="w")
        self.b = tf.Variable(0.5, dtype=tf.float64, name="b")
        self.fixed = tf.Variable(2.0, dtype=tf.float64, trainable=False, name="fixed")

    def __call__(self, x):
        return tf.linalg.matvec(x, self.w) * self.fixed + self.b


@pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)
@pytest.mark.parametrize("owner", ["module", "list", "mixed"])
def test_bare_variables_equal_keras_variables(owner, jit_compile):
    """The same ridge regression over tf.Variables and over Keras variables."""
    random = np.random.RandomState(0)
    data = random.randn(8, 3), random.randn(8)

    def solve(model, variables, penalty, rate):
        def inner(batch):
            x, y = batch
            squares = tf.reduce_sum(tf.square(model.w)) * penalty
            return tf.reduce_mean((model(x) - y) ** 2) + squares

        def outer(batch):
            return tf.reduce_mean(tf.abs(model(batch[0]) - batch[1]))

        problem = far.BilevelProblem(
            inner,
            outer,
            variables,
            far.Momentum(rate, 0.9),
            [penalty, rate],
            data,
            data,
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        return [mode.compute(problem, 5), mode.compute(problem, 5)]

    reference_model = _Ridge()
    for name in ("w", "b"):
        value = getattr(reference_model, name).numpy()
        setattr(reference_model, name, keras.Variable(value, name=name))
    expected, _ = solve(
        reference_model,
        [reference_model.w, reference_model.b],
        hyper(0.1, "penalty"),
        hyper(0.05, "rate"),
    )
    model = _Ridge()
    penalty = tf.Variable(0.1, dtype=tf.float64, name="penalty")
    rate = tf.Variable(0.05, dtype=tf.float64, name="rate")
    if owner == "mixed":
        penalty, model.b = hyper(0.1, "penalty"), keras.Variable(0.5, dtype="float64")
    variables = model if owner == "module" else [model.w, model.b]
    for result in solve(model, variables, penalty, rate):
        assert_close(result.hypergradients, expected.hypergradients, 1e-12)
        assert_close([result.outer_value], [expected.outer_value], 1e-12)
    # s_T is left in the variables, and the hyperparameters are left alone.
    assert_close([model.w], [reference_model.w], 1e-12)
    assert (float(tf.convert_to_tensor(penalty)), float(rate)) == (0.1, 0.05)


def test_a_module_that_holds_keras_layers_and_variables():
    """tf.Module's own `trainable_variables` knows nothing of Keras."""

    class Head(tf.Module):
        def __init__(self):
            super().__init__()
            self.layers = [keras.layers.Dense(2, name="head")]
            self.layers[0].build((None, 3))

    class Network(tf.Module):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization(name="norm")
            self.norm.build((None, 3))
            self.scale = keras.Variable(2.0, name="scale")
            self.shift = tf.Variable(1.0, name="shift")
            self.fixed = tf.Variable(1.0, name="fixed", trainable=False)
            self.head, self.same_head = [Head()] * 2

        def __call__(self, x):
            x = self.norm(x, training=True) * self.scale + self.shift * self.fixed
            return self.head.layers[0](x)

    network = Network()
    x = np.random.RandomState(0).randn(6, 3).astype("float32")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_mean(network(x) ** 2),
        lambda: tf.reduce_mean(network(x)),
        network,
        far.GradientDescent(rate),
        [rate],
    )
    names = sorted(variable.name for variable in problem.variables)
    assert names == ["beta", "bias", "gamma", "kernel", "scale", "shift:0"]
    far.ReverseHG(jit_compile=False).compute(problem, 3)
    assert float(network.scale) != 2.0
    assert float(network.shift) != 1.0


class _Listing(tf.Module):
    """Says itself what is trained: all but one, whatever the flags say."""

    def __init__(self, *parts, without=(), more=()):
        super().__init__()
        self.parts = parts
        self.without = {id(variable) for variable in without}
        self.more = lambda: list(more)  # Which is no attribute of the module.

    @property
    def trainable_variables(self):
        listed = [*super().trainable_variables, *self.more()]
        return [v for v in listed if id(v) not in self.without]


class _Plain(tf.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = parts


def _variable(name, trainable=True):
    return tf.Variable(1.0, trainable=trainable, name=name)


def _dense(name, **options):
    layer = keras.layers.Dense(1, use_bias=False, name=name, **options)
    layer.build((None, 1))
    return layer


def _nested_frozen_sublayer():
    model = keras.Sequential([keras.Input((1,)), _dense("a"), _dense("b")])
    model.layers[0].trainable = False
    return _Plain([model])


def _list_of_a_module():
    a, b = _variable("a"), _variable("b")
    return _Listing(a, b, without=[a])


def _list_of_a_part():
    a, b = _variable("a"), _variable("b")
    return _Plain({"one": _Listing(a, without=[a])}, b)


def _part_of_a_list():
    """Whose own list goes by tf.Module's flags, as those of Sonnet's modules do."""
    a, b = _variable("a"), _variable("b")
    return _Listing(_Listing(a, without=[a]), b)


def _shared_by_a_part_that_trains_it():
    b = _variable("b")
    return _Plain(_Listing(b, without=[b]), _Plain(b))


def _list_that_knows_nothing_of_keras():
    a = _variable("a")
    return _Listing(a, _dense("b"), without=[a])


def _list_of_kerass():
    a, b = _dense("a"), _dense("b")
    return _Listing(a, b, _variable("c"), more=[b.kernel])


def _list_of_more():
    return _Listing(
        _variable("a", trainable=False), _variable("c"), more=[_variable("b")]
    )


def _modules_in_a_circle():
    a, b = _variable("a"), _variable("b")
    inner = _Listing(a, b, without=[a])
    outer = _Plain(inner)
    inner.owner = outer
    return outer


def _weights_of_a_model():
    """What `fit` trains: the model's own `trainable_weights`."""

    class Adapted(keras.Sequential):
        @property
        def trainable_weights(self):
            return super().trainable_weights[1:]

    return Adapted([keras.Input((1,)), _dense("a"), _dense("b")])


TRAINED = {
    "a frozen layer": (lambda: _Plain(_dense("a", trainable=False), _dense("b")), "b"),
    "a frozen sublayer": (_nested_frozen_sublayer, "b"),
    "a module's own list": (_list_of_a_module, "b"),
    "a part's own list": (_list_of_a_part, "b"),
    "a list within a list": (_part_of_a_list, "b"),
    "trained by another part": (_shared_by_a_part_that_trains_it, "b"),
    "a list without Keras": (_list_that_knows_nothing_of_keras, "b"),
    "a list with Keras": (_list_of_kerass, "bc"),
    "a list of more": (_list_of_more, "bc"),
    "modules in a circle": (_modules_in_a_circle, "b"),
    "a model's own list": (_weights_of_a_model, "b"),
}


@pytest.mark.parametrize("case", TRAINED)
def test_what_is_left_out_is_not_trained(case):
    make, expected = TRAINED[case]
    owner = make()
    trained, owned = trained_variables(owner, [])
    assert sorted(_letter(variable) for variable in trained) == list(expected)
    assert len(set(map(id, owned))) == len(owned) >= len(trained)


def _letter(variable):
    path = path_of(variable)
    return next(part for part in path.split("/") if len(part) == 1)


def test_frozen_layers_stay_and_the_rest_is_trained():
    """In a tf.Module: by values, and the hypergradient of a plain training loop."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="float64"),
            keras.layers.Dense(4, "tanh", dtype="float64"),
            keras.layers.Dense(1, dtype="float64"),
        ]
    )
    model.layers[0].trainable = False
    module = _Plain([model])
    start = [weight.numpy() for weight in model.weights]
    random = np.random.RandomState(0)
    x, y = random.randn(8, 3), random.randn(8, 1)

    def loss(batch=None):
        return tf.reduce_mean((model(x) - y) ** 2)

    def plain(rate):
        model.set_weights(start)
        weights = model.layers[1].weights
        for _ in range(4):
            with tf.GradientTape() as tape:
                value = loss()
            for weight, gradient in zip(
                weights, tape.gradient(value, weights), strict=True
            ):
                weight.assign_sub(rate * gradient)
        return float(loss()), model.get_weights()

    value, weights = plain(0.1)
    slope = (plain(0.1 + 1e-6)[0] - plain(0.1 - 1e-6)[0]) / 2e-6
    model.set_weights(start)
    rate = hyper(0.1, "rate")
    problem = far.BilevelProblem(loss, loss, module, far.GradientDescent(rate), [rate])
    result = far.ReverseHG(jit_compile=False).compute(problem, 4)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(result.hypergradients, [slope], 1e-7)
    assert_close(model.get_weights(), weights, 1e-12)


def test_what_is_trained_is_settled_when_the_problem_is_made():
    """As by `compile` in Keras: flags that change afterwards change nothing."""
    first, second = _dense("a"), _dense("b")
    second.trainable = False
    module = _Plain(first, second)
    rate = far.Hyperparameter(0.1, name="rate")

    def loss():
        return tf.reduce_sum((second(first(tf.ones((1, 1)))) - 3.0) ** 2)

    for layer in (first, second):
        layer.set_weights([np.ones((1, 1))])
    problem = far.BilevelProblem(loss, loss, module, far.GradientDescent(rate), [rate])
    mode = far.ReverseHG(jit_compile=False)
    for trainable in (True, False):  # Before the first trace, and after it.
        first.trainable, second.trainable = not trainable, trainable
        result = mode.compute(problem, 1)
        assert first.get_weights()[0] == pytest.approx(1.4)
        assert second.get_weights()[0] == 1.0
        assert float(result.hypergradients[0]) == pytest.approx(2 * -1.6 * 4)


def test_a_list_with_what_is_not_trainable():
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
    message = "moving_mean.*moving_variance.*`trainable` is False.*trainable_variables"
    with pytest.warns(UserWarning, match=f"(?s){message}"):
        trained, _ = trained_variables(model.weights, [])
    assert len(trained) == 4
    trained, _ = trained_variables(model.trainable_variables, [])
    assert len(trained) == 2


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("hyperparameters", [0.1], r"far.Hyperparameter\(value\).*\[0\]=0.1"),
        ("hyperparameters", _variable("w"), r"hyperparameters=\[it\]"),
        ("variables", _variable("w"), r"variables=\[it\]"),
    ],
)
def test_remedies(name, given, message):
    with pytest.raises(ValueError, match=f"`{name}` must .*Remedy: .*{message}"):
        check_variables(name, given)


def test_a_hyperparameter_of_another_dtype():
    rate = far.Hyperparameter(0.1, dtype="float64")
    message = r'Remedy: Hyperparameter\(..., dtype="float32"\)'
    with pytest.raises(ValueError, match=message):
        common_dtype([keras.Variable(0.0, dtype="float32")], [rate])
