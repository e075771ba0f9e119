"""Exact reversal of momentum descent."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import (
    Classification,
    assert_close,
    begins_out_of_bounds,
    hyper,
    in_tiers,
    normalized_network,
    relative_error,
)

COMPILERS = pytest.mark.parametrize(
    "jit_compile", in_tiers([False, True], [False]), ids=["graph", "xla"]
)


def network(dtype="float32"):
    """20-80-50-10, 6,240 weights."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(80, "tanh", dtype=dtype),
        keras.layers.Dense(50, "tanh", dtype=dtype),
        keras.layers.Dense(10, dtype=dtype),
    ]
    return keras.Sequential([keras.Input((20,), dtype=dtype), *layers])


class Network:
    """20-80-50-10 of 6,240 weights, on minibatches of random examples.

    Hyperparameters: rates and momenta by step and layer, the initial weights of a
    layer and its initial velocities, a weight for each example, a penalty.
    """

    def __init__(self, num_steps, dtype="float32"):
        random = np.random.RandomState(0)
        self.dtype = dtype
        x = random.randn(200, 20).astype(dtype)
        y = random.randint(0, 10, 200)
        self.model = network(dtype)
        layers = self.model.layers
        steps = np.arange(num_steps)[:, None]
        waves = 0.03 * np.sin(0.1 * steps + np.arange(3))
        rates = self.hyper(0.05 + waves, "rates")
        masses = self.hyper(0.9 + waves, "masses")
        start = self.hyper(layers[1].kernel, "start")
        velocity = self.hyper(0.01 * random.randn(80, 50), "velocity")
        weights = self.hyper(0.5 + random.rand(100), "weights")
        penalty = self.hyper(1e-3, "penalty")
        self.hyperparameters = [rates, masses, start, velocity, weights, penalty]

        def losses(batch):
            return tf.nn.sparse_softmax_cross_entropy_with_logits(
                batch[1], self.model(batch[0])
            )

        def inner(batch):
            chosen = tf.gather(tf.convert_to_tensor(weights), batch[2])
            norm = tf.nn.l2_loss(self.model.weights[0])
            return tf.reduce_mean(chosen * losses(batch)) + penalty * norm

        arrays = (x[:100], y[:100], np.arange(100))
        self.problem = far.BilevelProblem(
            inner,
            lambda batch: tf.reduce_mean(losses(batch)),
            self.model,
            far.Momentum(
                far.Schedule(rates, layers),
                far.Schedule(masses, layers),
                initial_velocity=[(layers[1].kernel, velocity), (self.model, 0.0)],
            ),
            self.hyperparameters,
            inner_data=far.Batches(arrays, batch_size=20, seed=0),
            outer_data=(x[100:], y[100:]),
            initial_values=[(layers[1].kernel, start)],
        )

    def hyper(self, value, name):
        return far.Hyperparameter(value, dtype=self.dtype, name=name)


def hyper32(value):
    return far.Hyperparameter(value, name="rate")


def together(gradients):
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


@COMPILERS
def test_equals_full_reverse_in_float32(jit_compile):
    """At T = 100, to 1e-5 in norm: all hyperparameters, and each."""
    case = Network(100)
    expected = far.ReverseHG(jit_compile).compute(case.problem, 100)
    result = far.ReversibleHG(jit_compile).compute(case.problem, 100)
    found, reference = (together(r.hypergradients) for r in (result, expected))
    assert relative_error(found, reference) < 1e-5
    assert_close(result.hypergradients, expected.hypergradients, 2e-5)
    assert_close(result.state.variables, expected.state.variables, 1e-5)
    assert_close([result.inner_values], [expected.inner_values], 1e-5)


@COMPILERS
def test_equals_full_reverse_in_float64(jit_compile):
    """Beyond the digits of float32: the integers have 46 after the point."""
    problem = Classification("float64")
    rate, mass = problem.hyper(0.2, "rate"), problem.hyper(0.9, "mass")
    bilevel = problem.bilevel(far.Momentum(rate, mass), [rate, mass])
    expected = far.ReverseHG().compute(bilevel, 50)
    result = far.ReversibleHG(jit_compile).compute(bilevel, 50)
    assert_close(result.hypergradients, expected.hypergradients, 1e-10)
    assert_close([result.outer_value], [expected.outer_value], 1e-12)


@pytest.mark.thorough
class TestManySteps:
    """10,000 steps of a 6,240-weight network; an error if one bit is lost."""

    def run(self, learning_rate, momentum):
        random = np.random.RandomState(0)
        x = random.randn(50, 20).astype("float32")
        y = random.randint(0, 10, 50)
        model = network()
        scale = far.Hyperparameter(1.0, name="scale")

        def loss():
            logits = model(x)
            return tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            )

        problem = far.BilevelProblem(
            lambda: scale * loss(),
            loss,
            model,
            far.Momentum(learning_rate(model), momentum(model)),
            [scale],
        )
        assert model.count_params() > 6000
        return far.ReversibleHG().compute(problem, 10_000), model, loss

    def test_a_constant_momentum(self):
        result, model, loss = self.run(lambda _: 0.01, lambda _: 0.9)
        assert 0.152 <= result.status.buffer_bits <= 0.16
        assert np.isfinite(float(result.hypergradients[0]))
        # Floats do not return from a tenth of the way.
        start = model.get_weights()
        moving = [w.value for w in model.trainable_variables]
        _there_and_back(moving, [tf.Variable(0.0 * w) for w in moving], loss, 1000)
        pairs = zip(model.get_weights(), start, strict=True)
        off = np.max([np.abs(one - other).max() for one, other in pairs])
        assert not off < 1.0  # Or it has become NaN.

    def test_momenta_by_step_and_layer(self):
        steps = np.arange(10_000)[:, None]
        masses = 0.9 + 0.05 * np.sin(0.01 * steps + np.arange(3))
        result, *_ = self.run(
            lambda model: far.Schedule(0.01 + 0.1 * (masses - 0.9), model.layers),
            lambda model: far.Schedule(masses, model.layers),
        )
        mean = -np.log2(masses.mean(axis=0)) @ [20 * 80 + 80, 80 * 50 + 50, 510] / 6240
        assert result.status.buffer_bits == pytest.approx(mean, rel=0.05)


@tf.function
def _there_and_back(variables, velocities, loss, num_steps):
    """The naive reversal in floats, after as many steps of momentum 0.9."""
    moving = list(zip(variables, velocities, strict=True))
    for _ in tf.range(num_steps):
        with tf.GradientTape() as tape:
            value = loss()
        for (w, v), g in zip(moving, tape.gradient(value, variables), strict=True):
            v.assign(0.9 * v + g)
            w.assign_sub(0.01 * v)
    for _ in tf.range(num_steps):
        for w, v in moving:
            w.assign_add(0.01 * v)
        with tf.GradientTape() as tape:
            value = loss()
        for (_, v), g in zip(moving, tape.gradient(value, variables), strict=True):
            v.assign((v - g) / 0.9)


@pytest.mark.parametrize(
    ("dtype", "num_steps"),
    in_tiers([("float32", 600), ("float64", 1500)], [("float32", 600)]),
)
def test_floats_do_not_return(dtype, num_steps):
    """The naive reversal, beside ours: v ← (v − g)/γ multiplies rounding by 1/γ."""
    w = keras.Variable(np.linspace(-1.0, 1.0, 5), dtype=dtype, name="w")
    rate = far.Hyperparameter(0.1, dtype=dtype, name="rate")

    def gradient(w):
        return (w - 0.37) ** 3 + tf.sin(3.0 * (w - 0.37))

    x = start = tf.convert_to_tensor(w)
    v = tf.zeros_like(x)
    for _ in range(num_steps):
        v = 0.9 * v + gradient(x)
        x = x - 0.1 * v
    for _ in range(num_steps):
        x = x + 0.1 * v
        v = (v - gradient(x)) / 0.9
    error = np.abs(x - start).max()
    assert not error < 0.1  # Or it has become NaN.

    problem = far.BilevelProblem(
        lambda: tf.reduce_sum((w - 0.37) ** 4 / 4.0 - tf.cos(3.0 * (w - 0.37)) / 3.0),
        lambda: tf.reduce_sum(tf.square(w)),
        [w],
        far.Momentum(rate, 0.9),
        [rate],
    )
    far.ReversibleHG().compute(problem, num_steps)  # Raises unless it returns.


@pytest.mark.thorough
def test_batchnorm_dropout_and_idle_weights():
    """What else changes is stored; what is not read stays where it is."""
    random = np.random.RandomState(0)
    x, y = random.randn(40, 4), random.randn(40, 1)
    model = normalized_network()
    idle = keras.Variable([1.0, 2.0], dtype="float64", name="idle")
    rate, scale = hyper(0.1, "rate"), hyper(1.0, "scale")

    def loss(batch, training):
        return tf.reduce_mean(tf.square(model(batch[0], training=training) - batch[1]))

    with pytest.warns(UserWarning, match="stay where they are"):
        problem = far.BilevelProblem(
            lambda batch: scale * loss(batch, True),
            lambda: loss((x, y), False) + tf.reduce_sum(idle),
            [*model.trainable_variables, idle],
            far.Momentum(rate, 0.5, initial_velocity={"idle": 1.0, ".*": 0.0}),
            [rate, scale],
            inner_data=far.Batches((x, y), batch_size=16, seed=1),
        )
    expected = far.ReverseHG(jit_compile=False).compute(problem, 20)
    result = far.ReversibleHG(jit_compile=False).compute(problem, 20)
    assert_close(result.hypergradients, expected.hypergradients, 1e-9)
    assert_close(result.state.extra, expected.state.extra, 1e-9)
    assert idle.numpy().tolist() == [1.0, 2.0]


@COMPILERS
def test_bare_variables(jit_compile):
    """Which are assigned in the loops, as they cannot be replaced."""
    found = []
    for kind in (keras.Variable, tf.Variable):
        w, rate = kind([1.0, -2.0], dtype="float64", name="w"), hyper(0.1, "rate")
        problem = far.BilevelProblem(
            lambda w=w: tf.reduce_sum(tf.square(w)),
            lambda w=w: tf.reduce_sum(tf.convert_to_tensor(w) ** 3),
            [w],
            far.Momentum(rate),
            [rate],
        )
        result = far.ReversibleHG(jit_compile).compute(problem, 9)
        found.append([*result.hypergradients, w])
    assert_close(found[1], found[0], 1e-12)
    full = far.ReverseHG().compute(problem, 9)
    assert_close(found[0][:1], full.hypergradients, 1e-9)


@pytest.mark.thorough
def test_it_goes_on_and_tunes():
    """As a mode of the outer loop, online too."""
    histories = []
    for mode in (far.ReverseHG(), far.ReversibleHG()):
        problem = Classification("float64")
        rate = problem.hyper(0.1, "rate")
        bilevel = problem.bilevel(far.Momentum(rate, 0.75), [rate])
        tuner = far.HyperOptimizer(bilevel, mode, keras.optimizers.SGD(0.01))
        for options in ({}, {"mode": "online"}):
            tuner.fit(3, num_steps=4, verbose=0, **options)
        histories.append([rate, *problem.model.weights])
    assert float(histories[0][0]) != 0.1
    assert_close(histories[1], histories[0], 1e-9)


def quadratic(scale, momentum, dtype, rate=0.05):
    """A loss times `scale`, its rate divided by it: the same run."""
    w = keras.Variable(np.linspace(-1.0, 1.0, 7), dtype=dtype, name="w")
    rate = far.Hyperparameter(rate / scale, dtype=dtype, name="rate")
    mass = far.Hyperparameter(momentum, dtype=dtype, name="mass")
    curvature = tf.cast(tf.linspace(0.5, 2.0, 7), dtype)
    return far.BilevelProblem(
        lambda: scale * tf.reduce_sum(curvature * tf.square(w - 0.3)),
        lambda: tf.reduce_sum(tf.convert_to_tensor(w) ** 3),
        [w],
        far.Momentum(rate, mass),
        [rate, mass],
    )


def worst(problem, num_steps):
    """The largest relative error of a hypergradient beside full reverse."""
    expected = far.ReverseHG().compute(problem, num_steps)
    found = far.ReversibleHG().compute(problem, num_steps)
    pairs = zip(found.hypergradients, expected.hypergradients, strict=True)
    return max(relative_error(one, other) for one, other in pairs)


@pytest.mark.parametrize("momentum", in_tiers([0.9, 0.7351], [0.7351]))
@pytest.mark.parametrize("scale", in_tiers([1e3, 1e-4, 1e-15], [1e3, 1e-15]))
def test_small_and_large_gradients(scale, momentum):
    """A velocity has as many digits for small gradients as for large ones."""
    assert worst(quadratic(scale, momentum, "float32"), 30) < 1e-5


@pytest.mark.parametrize(
    ("momentum", "num_steps"),
    in_tiers([(0.3, 300), (0.7351, 100), (0.9999, 300)], [(0.7351, 100)]),
)
def test_after_digits_were_spilled(momentum, num_steps):
    problem = quadratic(1.0, momentum, "float64", rate=0.001)
    assert worst(problem, num_steps) < 1e-8


def test_momenta_that_small_ratios_do_not_tell():
    with pytest.warns(UserWarning, match="Momenta are rounded to ratios"):
        assert worst(quadratic(1.0, 0.99999, "float64"), 300) > 1e-5


def test_gradients_that_grow_small():
    """Where the first one says nothing of those that follow."""
    w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda step: 1e-10 * w * tf.cast(step > 0, tf.float32),
        lambda: 1.0 * w,
        [w],
        far.Momentum(rate, 0.7351),
        [rate],
        inner_data=lambda step: step,
    )
    with pytest.warns(UserWarning, match="Gradients are small"):
        far.ReversibleHG().compute(problem, 5)


def test_zero_gradients_need_no_warning():
    w, rate = keras.Variable([0.0, 0.0], name="w"), far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(w * w),
        lambda: tf.reduce_sum(tf.cos(w)),
        [w],
        far.Momentum(rate, 0.7351),
        [rate],
    )
    result = far.ReversibleHG().compute(problem, 5)  # A UserWarning is an error here.
    assert float(result.hypergradients[0]) == 0.0 and float(result.outer_value) == 2.0


def test_a_run_that_diverges_ends_the_outer_loop():
    """With the last good hyperparameters, as in other modes."""
    w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(0.5, name="rate")
    problem = far.BilevelProblem(
        lambda: w * w, lambda: 0.0 - rate, [w], far.Momentum(rate, 0.5), [rate]
    )
    tuner = far.HyperOptimizer(problem, far.ReversibleHG(), keras.optimizers.SGD(10.0))
    with pytest.warns(UserWarning, match="hyper-iteration 1 diverged"):
        tuner.fit(3, num_steps=9, verbose=0)
    assert float(rate) == 0.5
    assert "below 2¹⁴" in str(tuner.divergence)


class TestErrors:
    def problem(self, dynamics, w=None, hypers=()):
        w = keras.Variable(1.0, dtype="float64", name="w") if w is None else w
        scale = hyper(1.0, "scale")
        return far.BilevelProblem(
            lambda: 0.5 * scale * tf.reduce_sum(w * w),
            lambda: tf.reduce_sum(1.0 * w),
            [w],
            dynamics,
            [scale, *hypers],
        )

    @pytest.mark.parametrize(
        "dynamics",
        [
            far.GradientDescent(0.1),
            far.Adam(0.1),
            far.Momentum(0.1, nesterov=True),
            keras.optimizers.SGD(0.1, 0.9),
        ],
        ids=["plain", "Adam", "Nesterov", "Keras"],
    )
    def test_dynamics(self, dynamics):
        with pytest.raises(ValueError, match=r'undoes steps .*checkpointing="sqrt"'):
            far.ReversibleHG().compute(self.problem(dynamics), 3)

    def test_momenta(self):
        mass = hyper(0.5, "mass")
        problem = self.problem(far.Momentum(0.1, mass), hypers=[mass])
        for value in (0.0, -0.5, 1e-9, 1.5):
            mass.assign(value)
            with pytest.raises(ValueError, match="needs a momentum from"):
                far.ReversibleHG().compute(problem, 3)
        mass.assign(1.0)
        far.ReversibleHG().compute(problem, 3)
        with pytest.raises(ValueError, match="undoes steps"):
            far.ReversibleHG().compute(self.problem(far.Momentum(0.1, 0.0)), 3)

    def test_a_momentum_for_each_weight(self):
        w, mass = keras.Variable([1.0, 2.0], dtype="float64"), hyper([0.5, 0.6], "mass")
        problem = self.problem(far.Momentum(0.1, mass), w, [mass])
        with pytest.raises(ValueError, match="takes one momentum for each variable"):
            far.ReversibleHG().compute(problem, 3)

    def test_constraints(self):
        w = keras.Variable(1.0, dtype="float64", name="w")
        w.constraint = keras.constraints.NonNeg()
        with pytest.raises(ValueError, match="cannot undo the constraints"):
            far.ReversibleHG().compute(self.problem(far.Momentum(0.1), w), 3)

    def test_values_beyond_the_range(self):
        w = keras.Variable(2.0**14, dtype="float64", name="w")
        with pytest.raises(ValueError, match="below 2¹⁴"):
            far.ReversibleHG().compute(self.problem(far.Momentum(0.1), w), 3)

    @begins_out_of_bounds
    @COMPILERS
    @pytest.mark.parametrize(
        ("slope", "rate"),
        in_tiers(
            [(1e6, 0.1), (-1e6, 0.1), (1.0, 2e5), (1.0, -2e5)],
            [(1e6, 0.1), (1.0, -2e5)],
        ),
    )
    def test_what_no_integer_stands_for(self, slope, rate, jit_compile):
        """In a first gradient, or on the way: floats become the least integer."""
        w, rate = keras.Variable([0.0, 1.0], name="w"), hyper32(rate)
        problem = far.BilevelProblem(
            lambda: slope * tf.reduce_sum(w),
            lambda: tf.reduce_sum(tf.sin(w)),
            [w],
            far.Momentum(rate, 0.9),
            [rate],
        )
        with pytest.raises(far.NonFiniteError, match="below 2¹⁴"):
            far.ReversibleHG(jit_compile).compute(problem, 1)

    def test_an_idle_weight_beyond_the_range(self):
        w, idle = keras.Variable([1.0], name="w"), keras.Variable([1e6], name="idle")
        rate = hyper32(0.1)
        with pytest.warns(UserWarning, match="stay where they are"):
            problem = far.BilevelProblem(
                lambda: tf.reduce_sum(w * w),
                lambda: tf.reduce_sum(w + idle),
                [w, idle],
                far.Momentum(rate, 0.9),
                [rate],
            )
        with pytest.raises(far.NonFiniteError, match="below 2¹⁴"):
            far.ReversibleHG().compute(problem, 5)

    def test_divergence(self):
        w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(3.0, name="rate")
        problem = far.BilevelProblem(
            lambda: tf.exp(w * w), lambda: 1.0 * w, [w], far.Momentum(rate), [rate]
        )
        with pytest.raises(far.NonFiniteError, match="first appears in step"):
            far.ReversibleHG().compute(problem, 9)

    def test_a_mismatch(self, monkeypatch):
        """Were the gradient another one on the way back, it would not go unseen."""
        from far_ho_tf.hypergradients.reversible import fixed_point_steps

        undo = fixed_point_steps.undo_kick

        def wrong(velocities, buffers, gradients, *others):
            return undo(velocities, buffers, [g + 1e-9 for g in gradients], *others)

        monkeypatch.setattr(fixed_point_steps, "undo_kick", wrong)
        with pytest.raises(far.ReversalError, match="bit for bit"):
            far.ReversibleHG().compute(self.problem(far.Momentum(0.1)), 3)
