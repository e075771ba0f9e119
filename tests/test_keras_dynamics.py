"""Keras' optimizers as dynamics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference, rules
from tests.dynamics_table import KERAS
from tests.helpers import assert_close, hyper, slope

NUM_STEPS = 6
optimizers = keras.optimizers
pytestmark = pytest.mark.filterwarnings("ignore:.*moves weights by a sign")


class Small:
    """One layer of six weights on eight examples, and a penalty."""

    def __init__(self, dtype="float64"):
        random = np.random.RandomState(0)
        self.dtype = dtype
        x, y = random.randn(16, 3).astype(dtype), random.randn(16, 2).astype(dtype)
        self.train, self.validation = (x[:8], y[:8]), (x[8:], y[8:])
        self.model = keras.Sequential(
            [
                keras.Input((3,), dtype=dtype),
                keras.layers.Dense(2, activation="tanh", dtype=dtype),
            ]
        )
        self.start = [
            (0.5 * random.randn(*w.shape)).astype(dtype) for w in self.model.weights
        ]
        self.model.set_weights(self.start)
        self.penalty = far.Hyperparameter(0.05, dtype=dtype, name="penalty")

    def loss(self, batch):
        x, y = batch
        return tf.reduce_mean(tf.square(self.model(x) - y))

    def inner(self, batch):
        kernel = tf.convert_to_tensor(self.model.weights[0])
        return self.loss(batch) + self.penalty * tf.reduce_sum(tf.square(kernel))

    def bilevel(self, dynamics, hypers=(), **options):
        return far.BilevelProblem(
            self.inner,
            self.loss,
            self.model,
            dynamics,
            [*hypers, self.penalty],
            inner_data=self.train,
            outer_data=self.validation,
            **options,
        )

    def unrolled(self, rule, hypers, num_steps=NUM_STEPS):
        return reference.unrolled(
            {
                "inner": self.inner,
                "outer": self.loss,
                "variables": self.model.trainable_variables,
                "hyperparameters": [*hypers, self.penalty],
                "batch": lambda t: self.train,
                "outer_batch": self.validation,
            },
            rule,
            num_steps,
        )

    def by_keras(self, optimizer, num_steps):
        """Weights after a plain training loop; then the model is put back."""
        variables = self.model.trainable_variables
        optimizer.build(variables)
        for _ in range(num_steps):
            with tf.GradientTape() as tape:
                value = self.inner(self.train)
            optimizer.apply(tape.gradient(value, variables), variables)
        weights = self.model.get_weights()
        self.model.set_weights(self.start)
        return weights


@pytest.mark.parametrize("name", KERAS)
def test_values_equal_keras_over_50_steps(name):
    """As it is accepted where a dynamics is.

    At a learning rate at which Adafactor's float32 does not turn chaotic.
    """
    kind, numbers, options, _ = KERAS[name]
    numbers = numbers | {"learning_rate": numbers["learning_rate"] / 4}
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-12)):
        problem = Small(dtype)
        expected = problem.by_keras(kind(**numbers, **options), 50)
        bilevel = problem.bilevel(kind(**numbers, **options))
        far.ReverseHG(jit_compile=False).compute(bilevel, 50)
        assert_close(problem.model.get_weights(), expected, tolerance)
        assert not np.allclose(expected[0], problem.start[0], rtol=1e-2)


SCHEDULE = optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)
FEATURES = {
    "weight decay": lambda: optimizers.SGD(0.1, 0.9, weight_decay=0.5),
    "a schedule": lambda: optimizers.Adam(SCHEDULE),
    "a schedule in Adafactor": lambda: optimizers.Adafactor(SCHEDULE),
    "clipnorm": lambda: optimizers.Adam(0.05, clipnorm=0.2),
    "global_clipnorm": lambda: optimizers.Adam(0.05, global_clipnorm=0.2),
    "clipvalue": lambda: optimizers.SGD(0.1, 0.9, clipvalue=0.1),
    "no norm at all": lambda: optimizers.SGD(0.1, 0.9, clipnorm=0.0),
    "averages": lambda: optimizers.SGD(
        0.1, 0.9, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4
    ),
}


@pytest.mark.parametrize("name", FEATURES)
def test_what_else_keras_does_is_done_too(name):
    """Values as Keras', hypergradients as finite differences."""
    problem = Small()
    expected = problem.by_keras(FEATURES[name](), 9)
    bilevel = problem.bilevel(FEATURES[name]())
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(bilevel, 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)
    found = slope(mode, bilevel, 9, 1e-6, (problem.penalty, 1.0))
    np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-7)
    forward = far.ForwardHG(jit_compile=False).compute(bilevel, 9)
    assert_close(forward.hypergradients, result.hypergradients, 1e-9)


def test_variables_without_decay():
    def made(problem):
        optimizer = optimizers.AdamW(0.05, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[problem.model.weights[0]])
        return optimizer

    problem = Small()
    expected = problem.by_keras(made(problem), 9)
    far.ReverseHG(jit_compile=False).compute(problem.bilevel(made(problem)), 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)


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
}


@pytest.mark.parametrize("name", BY_VARIABLE)
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
    "make",
    [
        lambda: optimizers.AdamW(0.1, weight_decay=0.5),
        lambda: far.AdamW(0.1, weight_decay=0.5),
        lambda: optimizers.SGD(
            0.1, weight_decay=0.5, use_ema=True, ema_overwrite_frequency=2
        ),
    ],
    ids=["Keras' AdamW", "AdamW", "averages"],
)
@pytest.mark.filterwarnings("ignore:.*stay where they are")
def test_variables_without_a_gradient_stay(make):
    """As under Keras' `apply`; neither decay nor constraint moves them."""
    used, idle = (
        keras.Variable([1.0, -2.0], dtype="float64", name=name) for name in "ui"
    )
    idle.constraint = keras.constraints.NonNeg()
    scale = hyper(1.0, "scale")
    problem = far.BilevelProblem(
        lambda: scale * tf.reduce_sum(tf.square(used)),
        lambda: tf.reduce_sum(used * idle),
        [used, idle],
        make(),
        [scale],
    )
    for method in (far.ReverseHG, far.ForwardHG):
        method().compute(problem, 3)
        assert idle.numpy().tolist() == [1.0, -2.0]
        assert abs(float(used[0])) < 0.9


@pytest.mark.parametrize("kind", [keras.Variable, tf.Variable])
def test_variables_without_decay_are_known_by_either_kind(kind):
    values = [kind([1.0, 2.0], dtype="float64", name=name) for name in "ab"]
    optimizer = optimizers.SGD(0.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[values[0]])
    rate = hyper(0.5, "rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(0.0 * (values[0] + values[1])),
        lambda: tf.reduce_sum(values[0] + values[1]),
        values,
        far.KerasDynamics(optimizer, {"learning_rate": rate}),
        [rate],
    )
    far.ReverseHG().compute(problem, 1)
    assert [v.numpy().tolist() for v in values] == [[1.0, 2.0], [0.75, 1.5]]


def test_clipping_by_the_norm_of_all_where_all_are_zero():
    problem = Small()
    limit = hyper(0.2, "limit")
    problem.penalty.assign(0.0)
    problem.train = (problem.train[0], problem.model(problem.train[0]).numpy())
    dynamics = far.KerasDynamics(optimizers.SGD(0.1), {"global_clipnorm": limit})
    bilevel = problem.bilevel(dynamics, [limit])
    for mode in (far.ReverseHG(), far.ForwardHG()):
        result = mode.compute(bilevel, 3)
        found = slope(mode, bilevel, 3, 1e-6, (limit, 1.0))
        assert float(result.hypergradients[0]) == pytest.approx(found, abs=1e-15)
        assert np.isfinite(float(result.hypergradients[1]))


@pytest.mark.parametrize("own", [0.2, SCHEDULE])
@pytest.mark.parametrize("scheduled", [True, False])
def test_adafactor_asks_whether_its_rate_is_a_schedule(own, scheduled):
    """By what takes the place of its own: relative steps, or none."""
    problem = Small()
    rate = SCHEDULE if scheduled else 0.125
    expected = problem.by_keras(optimizers.Adafactor(rate), 9)
    dynamics = far.KerasDynamics(optimizers.Adafactor(own), {"learning_rate": rate})
    far.ReverseHG(jit_compile=False).compute(problem.bilevel(dynamics), 9)
    assert_close(problem.model.get_weights(), expected, 1e-12)


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


def test_nan_is_not_hidden_by_the_safe_root():
    problem = Small()
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG().compute(problem.bilevel(optimizers.Adam(beta_2=1.5)), 3)

    def rate(step):
        return tf.sqrt(tf.cast(step, tf.float64) - 1.0)  # At first √−1.

    dynamics = far.KerasDynamics(optimizers.SGD(), {"learning_rate": rate})
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG().compute(problem.bilevel(dynamics), 3)


@pytest.mark.parametrize("name", KERAS)
@pytest.mark.parametrize(
    "mode",
    [
        far.ReverseHG(jit_compile=False),
        far.ReverseHG(jit_compile=True),
        far.ForwardHG(jit_compile=False),
    ],
    ids=["reverse", "reverse, XLA", "forward"],
)
def test_gradients_of_zero(name, mode):
    """A feature that is always zero: √0, and no NaN.

    In reverse mode a graph of TensorFlow gives 0 for 0/0 by itself, others NaN.
    """
    kind, numbers, options, _ = KERAS[name]
    problem = Small()
    problem.train[0][:, 0] = 0.0
    problem.penalty.assign(0.0)
    hypers = [hyper(value, key) for key, value in numbers.items()]
    dynamics = far.KerasDynamics(
        kind(**options), dict(zip(numbers, hypers, strict=True))
    )
    bilevel = problem.bilevel(dynamics, hypers)
    result = mode.compute(bilevel, 4)
    found = slope(mode, bilevel, 4, 1e-6, (hypers[0], 1.0))
    np.testing.assert_allclose(found, result.hypergradients[0], rtol=1e-6)
    # The penalty's gradient is zero here, its hypergradient is not.
    if name not in ("Lion", "Lamb"):
        assert abs(result.hypergradients[-1]) > 1e-3


@pytest.mark.parametrize("name", [n for n in KERAS if n not in ("Adafactor", "Lamb")])
def test_all_gradients_are_zero(name):
    """With the numbers that Keras has by default, in float32.

    Adafactor and Lamb divide by the norm of a variable's whole update, which has
    no derivative there.
    """
    kind, _, options, _ = KERAS[name]
    rate = far.Hyperparameter(0.01, name="rate")
    problem = Small("float32")
    problem.penalty.assign(0.0)
    far_off = problem.model(problem.train[0]).numpy()
    problem.train = (problem.train[0], far_off)
    dynamics = far.KerasDynamics(kind(**options), {"learning_rate": rate})
    bilevel = problem.bilevel(dynamics, [rate])
    for method in (far.ReverseHG, far.ForwardHG):
        result = method(jit_compile=False).compute(bilevel, 3)
        assert np.isfinite(result.hypergradients).all()


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


class OwnApply(optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        super().apply(grads, trainable_variables)


class NoStep(optimizers.Optimizer):
    pass


class Copying(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self._copies = self.add_optimizer_variables(variables, "copy")
        for copy, variable in zip(self._copies, variables, strict=True):
            copy.assign(variable)


class Counting(optimizers.SGD):
    def build(self, variables):
        super().build(variables)
        self._count = self.add_variable((), name="count", dtype="int32")

    def update_step(self, gradient, variable, learning_rate):
        self.assign_add(self._count, 1)
        super().update_step(gradient, variable, learning_rate)


class Failing(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        if keras.ops.sum(gradient) > 0:
            super().update_step(gradient, variable, learning_rate)


class Threshold(optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        if self.momentum > 0.6:
            gradient = 2.0 * gradient
        super().update_step(gradient, variable, learning_rate)


class Tensors(optimizers.SGD):
    """What compares with tensors is a tensor."""

    def update_step(self, gradient, variable, learning_rate):
        large = self.momentum > keras.ops.convert_to_tensor(0.6, "float64")
        super().update_step(
            keras.ops.where(large, 2.0 * gradient, gradient), variable, learning_rate
        )


class Ending(optimizers.schedules.LearningRateSchedule):
    """A table of two values."""

    def __call__(self, step):
        return tf.gather(tf.constant([0.5, 0.25]), step)


@pytest.mark.parametrize("value", [0.5, 0.75])
def test_comparison_with_a_tensor(value):
    w = keras.Variable(1.0, dtype="float64", name="w")
    mass = hyper(value, "mass")
    dynamics = far.KerasDynamics(Tensors(0.125), {"momentum": mass})
    problem = far.BilevelProblem(lambda: 1.0 * w, lambda: w**2, [w], dynamics, [mass])
    far.ReverseHG().compute(problem, 1)
    assert float(w) == 1.0 - 0.125 * (2.0 if value > 0.6 else 1.0)


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: OwnApply(0.1), "OwnApply does not follow Keras' recipe"),
            (lambda: NoStep(0.1), "NoStep does not follow Keras' recipe"),
            (
                lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
                "LossScaleOptimizer does not follow .* the optimizer within",
            ),
            (
                lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
                "`gradient_accumulation_steps` of SGD .* make the batches larger",
            ),
            (
                lambda: optimizers.SGD(0.1, loss_scale_factor=2.0),
                "`loss_scale_factor` of SGD",
            ),
            (
                lambda: optimizers.SGD(0.1, use_ema=True),
                "`use_ema` of SGD needs `ema_overwrite_frequency`",
            ),
            (lambda: Copying(0.1), "Copying starts from a function of the weights"),
            (lambda: Counting(0.1), "Counting keeps a state .* int32"),
            (lambda: Failing(0.1), "Failing cannot be used as dynamics"),
            (
                lambda: optimizers.SGD(far.Schedule([0.1, 0.2])),
                r"given to SGD by far\.KerasDynamics",
            ),
            (
                lambda: far.KerasDynamics(Threshold(), {"momentum": hyper(0.9, "m")}),
                r"Threshold cannot .*`momentum` with 0\.6, once for all .*ops\.where",
            ),
        ],
    )
    def test_of_an_optimizer(self, make, message):
        with pytest.raises(ValueError, match=message):
            Small().bilevel(make())

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"beta_3": 0.1}, "Adam has no number `beta_3`.* 'beta_2'"),
            ({"amsgrad": 0.1}, "Adam has no number `amsgrad`"),
            ([("beta_1", 0.1)], "`hyperparameters` of KerasDynamics must be a mapping"),
            ({"learning_rate": -1.0}, "`learning_rate` of Adam must be in"),
            ({"learning_rate": {"nothing": 0.1}}, "'nothing' matches no variable"),
            ({"beta_1": "0.9"}, "`beta_1` of Adam must be a number"),
            ({"beta_1": 1.5}, r"`beta_1` of Adam must be in \[0.0, 1.0\)"),
            ({"clipnorm": -1.0}, r"`clipnorm` of Adam must be in \(0.0, inf\)"),
            ({"clipnorm": 0.1, "clipvalue": 0.1}, "Adam clips gradients in one way"),
            ({"ema_momentum": 0.9}, "`ema_momentum` of Adam needs use_ema=True"),
            ({"weight_decay": far.Schedule([-0.1])}, "`weight_decay` of Adam must be"),
            (
                {"global_clipnorm": {"kernel": 0.1, ".*": 0.2}},
                "`global_clipnorm` of Adam must be one value",
            ),
        ],
    )
    def test_of_numbers(self, numbers, message):
        with pytest.raises(ValueError, match=message):
            Small().bilevel(far.KerasDynamics(optimizers.Adam(), numbers))

    def test_no_optimizer(self):
        with pytest.raises(ValueError, match=r"needs a `keras\.optimizers"):
            far.KerasDynamics("adam")
        with pytest.raises(ValueError, match="or a Keras optimizer"):
            Small().bilevel("adam")

    def test_one_optimizer_for_two_models(self):
        optimizer = optimizers.SGD(0.1)
        Small().bilevel(optimizer)
        with pytest.raises(ValueError, match="used for other variables"):
            Small().bilevel(optimizer)

    def test_integers_are_numbers(self):
        numbers = {"clip_threshold": hyper(1.0, "threshold")}
        optimizer = optimizers.Adafactor(0.1, clip_threshold=1)
        assert far.KerasDynamics(optimizer, numbers).numbers == numbers

    def test_the_learning_rate_of_the_optimizer_itself_ends(self):
        with pytest.raises(ValueError, match=r"of SGD ends before step 2.* Ending"):
            far.ReverseHG().compute(Small().bilevel(optimizers.SGD(Ending())), 3)

    def test_built_without_momentum(self):
        problem = Small()
        optimizer = optimizers.SGD(0.1)
        optimizer.build(problem.model.trainable_variables)
        dynamics = far.KerasDynamics(optimizer, {"momentum": hyper(0.9, "mass")})
        with pytest.raises(ValueError, match=r"was built before.* make a new one"):
            problem.bilevel(dynamics)

    def test_built_from_the_weights(self):
        problem = Small()
        optimizer = Copying(0.1)
        optimizer.build(problem.model.trainable_variables)
        with pytest.raises(ValueError, match="Copying starts from a function"):
            problem.bilevel(optimizer)

    def test_a_state_that_variables_share(self):
        numbers = {"beta_1": {"kernel": 0.9, ".*": 0.8}}
        with pytest.raises(ValueError, match="`beta_1` of Nadam must be one value"):
            Small().bilevel(far.KerasDynamics(optimizers.Nadam(), numbers))

    @pytest.mark.filterwarnings("default")
    def test_signs_are_warned_of(self):
        with pytest.warns(UserWarning, match="Lion moves weights by a sign"):
            Small().bilevel(optimizers.Lion())

    def test_divergence_names_the_slot(self):
        problem = Small()
        with pytest.raises(far.NonFiniteError, match="kernel_momentum"):
            mode = far.ReverseHG(jit_compile=False)
            mode.compute(problem.bilevel(optimizers.SGD(1e200, momentum=0.9)), 9)


def test_representation():
    dynamics = far.KerasDynamics(optimizers.Adam(), {"beta_1": 0.5})
    assert repr(dynamics) == "KerasDynamics(Adam, {'beta_1': 0.5})"
