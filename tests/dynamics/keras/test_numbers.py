"""Numbers of Keras' optimizers as hyperparameters, and optimizers of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference, rules
from tests.helpers import assert_close, hyper, in_tiers, slope
from tests.keras_problem import FEATURES, NUM_STEPS, Small

optimizers = keras.optimizers
pytestmark = pytest.mark.filterwarnings("ignore:.*moves weights by a sign")


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("clipnorm", {"clipnorm": 0.2}),
        ("global_clipnorm", {"global_clipnorm": 0.2}),
        ("clipvalue", {"clipvalue": 0.1, "momentum": 0.9}),
        ("averages", {"ema_momentum": 0.8}),
        ("weight decay", {"weight_decay": 0.5, "momentum": 0.9}),
    ],
)
def test_numbers_of_what_else_keras_does(name, numbers):
    problem = Small()
    hypers = [hyper(value, key) for key, value in numbers.items()]
    dynamics = far.KerasDynamics(
        FEATURES[name](), dict(zip(numbers, hypers, strict=True))
    )
    bilevel = problem.bilevel(dynamics, hypers)
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(bilevel, 9)
    for one, gradient in zip(hypers, result.hypergradients[:-1], strict=True):
        found = slope(mode, bilevel, 9, 1e-6, (one, 1.0))
        np.testing.assert_allclose(found, gradient, rtol=1e-7)


BY_VARIABLE = {
    "clipnorm": (lambda: optimizers.SGD(0.1), {"clipnorm": (0.3, 0.02)}),
    "clipvalue": (lambda: optimizers.SGD(0.1), {"clipvalue": (0.1, 0.01)}),
    "weight_decay": (lambda: optimizers.SGD(0.1), {"weight_decay": (0.5, 2.0)}),
    "averages": (FEATURES["averages"], {"ema_momentum": (0.8, 0.3)}),
    "Nadam": (optimizers.Nadam, {"learning_rate": (0.1, 0.02)}),
    "Nadam's decay": (optimizers.Nadam, {"weight_decay": (0.5, 2.0)}),
}


@pytest.mark.parametrize("name", in_tiers(BY_VARIABLE, ["clipnorm", "Nadam"]))
def test_numbers_by_variable(name):
    """Each variable moves as under an optimizer with its number for both.

    Where the other one's gradient has no influence: both are decoupled.
    """
    make, numbers = BY_VARIABLE[name]
    ((key, values),) = numbers.items()
    start = [np.array([1.0, -2.0]), np.array([1.5, 0.5, -1.0])]
    target = hyper(0.25, "target")

    def run(value):
        weights = [keras.Variable(w, dtype="float64", name=f"w{len(w)}") for w in start]

        def loss():
            return sum(tf.reduce_sum((w - target) ** 2 + 0.1 * w**4) for w in weights)

        dynamics = far.KerasDynamics(make(), {key: value(weights)})
        problem = far.BilevelProblem(loss, loss, weights, dynamics, [target])
        far.ReverseHG().compute(problem, 9)
        return [weight.numpy() for weight in weights]

    both = [run(lambda weights, value=value: value) for value in values]
    mixed = run(lambda weights: list(zip(weights, values, strict=True)))
    assert_close(mixed, [both[0][0], both[1][1]], 1e-14)
    assert not np.allclose(both[0][1], both[1][1])


def test_order_of_an_optimizer_that_was_built():
    """Its own order of variables is not that of the problem."""
    first, second = (keras.Variable([1.0], dtype="float64", name=n) for n in "ab")
    optimizer = optimizers.SGD(0.5)
    optimizer.build([second, first])
    fast = hyper(0.25, "fast")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(first + second),
        lambda: tf.reduce_sum(first + 2.0 * second),
        [first, second],
        far.KerasDynamics(optimizer, {"learning_rate": [(first, fast), (second, 0.0)]}),
        [fast],
    )
    result = far.ReverseHG().compute(problem, 1)
    assert (float(first[0]), float(second[0])) == (0.75, 1.0)
    assert float(result.hypergradients[0]) == -1.0


@pytest.mark.parametrize(
    "method", in_tiers([far.ReverseHG, far.ForwardHG], [far.ReverseHG])
)
def test_clipping_by_the_norm_of_all_where_all_are_zero(method):
    """w' = w − η a w with a = 0: dE/da = −η w²."""
    w, scale = keras.Variable([1.0, 2.0], dtype="float64"), hyper(0.0, "scale")
    problem = far.BilevelProblem(
        lambda: 0.5 * scale * tf.reduce_sum(tf.square(w)),
        lambda: 0.5 * tf.reduce_sum(tf.square(w)),
        [w],
        optimizers.SGD(0.125, global_clipnorm=0.5),
        [scale],
    )
    for compiled in (True, False):
        result = method(jit_compile=compiled).compute(problem, 1)
        assert float(result.hypergradients[0]) == -0.125 * 5.0


def test_an_optimizer_is_put_back():
    problem = Small()
    optimizer = optimizers.Adam(0.01, beta_1=0.75, clipnorm=0.5)
    before = {k: v for k, v in vars(optimizer).items() if isinstance(v, float)}
    numbers = {"beta_1": hyper(0.5, "b"), "clipnorm": hyper(1.0, "c")}
    bilevel = problem.bilevel(
        far.KerasDynamics(optimizer, numbers), list(numbers.values())
    )
    far.ReverseHG().compute(bilevel, 2)
    assert before == {k: v for k, v in vars(optimizer).items() if isinstance(v, float)}
    assert before["beta_1"] == 0.75 and before["clipnorm"] == 0.5
    assert type(optimizer) is optimizers.Adam


class TestNumbers:
    def test_by_variable(self):
        """Learning rates and momenta of two variables, and a schedule."""
        problem = Small()
        kernel, bias = problem.model.weights
        rates = hyper(np.linspace(0.1, 0.2, NUM_STEPS), "rates")
        slow, mass = hyper(0.05, "slow"), hyper(0.6, "mass")
        dynamics = far.KerasDynamics(
            optimizers.SGD(),
            {
                "learning_rate": [
                    (kernel, lambda step: tf.convert_to_tensor(rates)[step]),
                    (bias, slow),
                ],
                "momentum": {"kernel": mass, ".*": 0.9},
            },
        )
        hypers = [rates, slow, mass]
        rule = rules.sgd(
            lambda t, i: tf.convert_to_tensor(slow if i else rates[t]),
            lambda t, i: tf.convert_to_tensor(mass) if i == 0 else 0.9,
        )
        _, expected, final = problem.unrolled(rule, hypers)
        bilevel = problem.bilevel(dynamics, hypers)
        for method in (far.ReverseHG, far.ForwardHG):
            result = method().compute(bilevel, NUM_STEPS)
            assert_close(result.hypergradients, expected, 1e-9)
            assert_close(result.state.variables, final, 1e-12)

    def test_a_callable_without_arguments(self):
        """As Keras takes one for a learning rate; it may read hyperparameters."""
        problem = Small()
        root = hyper(0.3, "root")
        optimizer = optimizers.SGD(lambda: tf.square(root.value))
        rule = reference.gradient_descent(lambda t, i: tf.square(root.value))
        _, expected, _ = problem.unrolled(rule, [root])
        result = far.ReverseHG().compute(problem.bilevel(optimizer, [root]), NUM_STEPS)
        assert_close(result.hypergradients, expected, 1e-9)

    def test_the_learning_rate_can_be_changed(self):
        """It is a variable; no trace keeps its value."""
        w = keras.Variable(1.0, name="w")
        scale = far.Hyperparameter(1.0, name="scale")
        optimizer = optimizers.SGD(0.5)
        problem = far.BilevelProblem(
            lambda: scale * w, lambda: 1.0 * w, [w], optimizer, [scale]
        )
        mode = far.ReverseHG()
        assert float(mode.compute(problem, 1).outer_value) == 0.5
        optimizer.learning_rate = 0.25
        assert float(mode.compute(problem, 1).outer_value) == 0.75

    def test_momentum_that_starts_from_zero(self):
        """Keras would leave it out."""
        problem = Small()
        mass = hyper(0.0, "mass")
        dynamics = far.KerasDynamics(optimizers.SGD(0.125), {"momentum": mass})
        bilevel = problem.bilevel(dynamics, [mass])
        mode = far.ReverseHG()
        found = slope(mode, bilevel, 5, 1e-6, (mass, 1.0))
        result = mode.compute(bilevel, 5)
        np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-7)


class Halving(optimizers.Optimizer):
    """An optimizer of one's own, by Keras' recipe; with a state of its own kind."""

    def __init__(self, learning_rate=0.1, factor=0.5, **options):
        super().__init__(learning_rate=learning_rate, **options)
        self.factor = factor

    def build(self, variables):
        super().build(variables)
        self._sums = [
            self.add_variable((), name="sum", dtype=v.dtype) for v in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        total = self._sums[self._get_variable_index(variable)]
        if self.factor < 0:
            raise ValueError("A factor is positive.")
        self.assign_add(total, keras.ops.sum(gradient) * self.factor)
        self.assign_sub(variable, learning_rate * gradient + 0.01 * total)


class TestOwners:
    def test_an_optimizer_of_ones_own(self):
        problem = Small()
        factor, rate = hyper(0.5, "factor"), hyper(0.1, "rate")
        dynamics = far.KerasDynamics(
            Halving(), {"factor": factor, "learning_rate": rate}
        )

        def rule(t, i, w, g, total):
            total = (0.0 if total is None else total) + factor * tf.reduce_sum(g)
            return w - (rate * g + 0.01 * total), total

        _, expected, final = problem.unrolled(rule, [factor, rate])
        bilevel = problem.bilevel(dynamics, [factor, rate])
        for method in (far.ReverseHG, far.ForwardHG):
            result = method().compute(bilevel, NUM_STEPS)
            assert_close(result.hypergradients, expected, 1e-9)
            assert_close(result.state.variables, final, 1e-12)

    def test_bare_variables(self):
        values = []
        for kind in (keras.Variable, tf.Variable):
            w = kind([1.0, -2.0], dtype="float64", name="w")
            rate = hyper(0.1, "rate")
            problem = far.BilevelProblem(
                lambda w=w: tf.reduce_sum(tf.square(w)),
                lambda w=w: tf.reduce_sum(tf.convert_to_tensor(w) ** 3),
                [w],
                far.KerasDynamics(optimizers.Adam(), {"learning_rate": rate}),
                [rate],
            )
            values.append(far.ReverseHG().compute(problem, 4).hypergradients)
        assert_close(values[1], values[0], 1e-12)

    def test_constraints_of_weights(self):
        layer = keras.layers.Dense(1, kernel_constraint="non_neg", dtype="float64")
        layer.build((None, 3))
        layer.set_weights([np.full((3, 1), 0.1), np.zeros(1)])
        target = hyper([-1.0, 0.5, 0.2], "target")

        def loss():
            return tf.reduce_sum(tf.square(layer.kernel[:, 0] - target))

        problem = far.BilevelProblem(
            loss, loss, [layer.kernel], optimizers.SGD(0.25), [target]
        )
        far.ReverseHG().compute(problem, 30)
        np.testing.assert_allclose(layer.kernel[:, 0], [0.0, 0.5, 0.2], atol=1e-7)

    def test_an_optimizer_that_the_model_was_compiled_with(self):
        problem = Small()
        optimizer = optimizers.Adam(0.01)
        problem.model.compile(optimizer, loss="mse")
        optimizer.build(problem.model.trainable_variables)
        ours = far.ReverseHG().compute(problem.bilevel(optimizer), 3)
        assert type(optimizer) is optimizers.Adam
        assert isinstance(optimizer.beta_1, float)
        fresh = far.ReverseHG().compute(Small().bilevel(optimizers.Adam(0.01)), 3)
        assert_close(ours.hypergradients, fresh.hypergradients, 1e-12)
        # Keras can go on with it.
        problem.model.fit(*problem.train, verbose=0)
        with pytest.raises(ValueError, match="has made 1 steps already"):
            problem.bilevel(optimizer)


def test_it_tunes_a_model_in_real_time():
    """As dynamics of a RealTimeModel: its path is that of the HyperOptimizer."""
    keras.config.set_floatx("float64")
    values = []
    for real_time in (True, False):
        problem, decay = Small(), hyper(0.1, "decay")
        dynamics = far.KerasDynamics(optimizers.AdamW(0.05), {"weight_decay": decay})
        outer = optimizers.SGD(0.125)
        if real_time:
            tuned = far.RealTimeModel(
                problem.model,
                [decay],
                dynamics,
                outer,
                update_every=2,
                hyper_data=problem.validation,
            )
            tuned.compile(loss="mse")
            tuned.fit(*problem.train, batch_size=8, epochs=6, shuffle=False, verbose=0)
        else:
            problem.inner = problem.loss
            problem.penalty = decay
            bilevel = problem.bilevel(dynamics)
            tuner = far.HyperOptimizer(bilevel, far.ForwardHG(), outer)
            tuner.fit(3, num_steps=2, mode="online", verbose=0)
        values.append([decay, *problem.model.weights])
    assert float(values[0][0]) != 0.1
    assert_close(values[0], values[1], 1e-9)


class Tensors(optimizers.SGD):
    """What compares with tensors is a tensor."""

    def update_step(self, gradient, variable, learning_rate):
        large = self.momentum > keras.ops.convert_to_tensor(0.6, "float64")
        super().update_step(
            keras.ops.where(large, 2.0 * gradient, gradient), variable, learning_rate
        )


@pytest.mark.parametrize("value", [0.5, 0.75])
def test_comparison_with_a_tensor(value):
    w = keras.Variable(1.0, dtype="float64", name="w")
    mass = hyper(value, "mass")
    dynamics = far.KerasDynamics(Tensors(0.125), {"momentum": mass})
    with pytest.warns(UserWarning, match=r"`dynamics` holds Greater .*passes 0\.6,"):
        problem = far.BilevelProblem(
            *(lambda: 1.0 * w, lambda: w**2, [w], dynamics, [mass])
        )
    far.ReverseHG().compute(problem, 1)
    assert float(w) == 1.0 - 0.125 * (2.0 if value > 0.6 else 1.0)
