"""Schedules: tables and decays, learned and not, for all or by layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests import reference
from tests.helpers import Classification, assert_close, hyper

NUM_STEPS = 7
schedules = keras.optimizers.schedules
DECAYS = {
    "exponential": (far.Schedule.exponential, schedules.ExponentialDecay, 0.4),
    "inverse_time": (far.Schedule.inverse_time, schedules.InverseTimeDecay, 0.4),
    "cosine": (far.Schedule.cosine, schedules.CosineDecay, 0.1),
}


class TestValues:
    @pytest.mark.parametrize("name", DECAYS)
    def test_decays_are_those_of_keras(self, name):
        ours, keras_kind, last = DECAYS[name]
        found = ours(0.5, 20, last).table(30)
        expected = [float(keras_kind(0.5, 20, last)(step)) for step in range(30)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_a_table(self):
        values = np.array([0.5, 0.25, 0.1])
        assert far.Schedule(values).table(3).tolist() == [0.5, 0.25, 0.1]
        held = far.Schedule(values, every=2).table(5)
        assert held.tolist() == [0.5, 0.5, 0.25, 0.25, 0.1]
        rooted = far.Schedule(np.log(values), transform=tf.exp)
        np.testing.assert_allclose(rooted.table(3), values, rtol=1e-15)

    def test_by_layer(self):
        layers = [keras.layers.Dense(1), keras.layers.Dense(1)]
        values = np.arange(6.0).reshape(3, 2)
        np.testing.assert_array_equal(far.Schedule(values, layers).table(3), values)
        decay = far.Schedule.exponential([1.0, 2.0], 1, 0.5, layers)
        assert decay.table(2).tolist() == [[1.0, 2.0], [0.5, 1.0]]
        assert far.Schedule.cosine(1.0, 4, 0.0, layers).table(5).shape == (5, 2)


@pytest.mark.thorough
def test_every_number_of_every_dynamics_takes_one():
    """Momentum by layer, and numbers of a Keras optimizer."""
    problem = Classification()
    masses = problem.hyper(np.linspace(0.5, 0.9, 2 * NUM_STEPS).reshape(-1, 2), "mass")
    schedule = far.Schedule(masses, problem.model.layers)
    rule = reference.momentum(
        lambda t, i: np.float64(0.125), lambda t, i: masses[t, i // 2]
    )
    _, expected, _ = reference.unrolled(problem.naive([masses]), rule, NUM_STEPS)
    sgd = keras.optimizers.SGD(0.125)
    for dynamics in (
        far.Momentum(0.125, schedule),
        far.KerasDynamics(sgd, {"momentum": schedule}),
    ):
        fresh = Classification()
        fresh.model, fresh.weights, fresh.penalty = (
            problem.model,
            problem.weights,
            problem.penalty,
        )
        result = far.ReverseHG().compute(fresh.bilevel(dynamics, [masses]), NUM_STEPS)
        assert_close(result.hypergradients, expected, 1e-9)
        problem.model.set_weights(Classification().model.get_weights())


@pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])
def test_a_decay_rate_of_zero(method):
    """r⁰ = 1 whatever r is, so that only steps 1 and 2 have a derivative in r."""
    w = keras.Variable(1.0, dtype="float64", name="w")
    rate = hyper(0.0, "rate")
    schedule = far.Schedule.exponential(0.25, 1, rate)
    problem = far.BilevelProblem(
        lambda: 1.0 * w, lambda: 1.0 * w, [w], far.GradientDescent(schedule), [rate]
    )
    result = method().compute(problem, 3)
    assert float(w) == 0.75 and float(result.hypergradients[0]) == -0.25


def test_integer_tensors():
    expected = far.Schedule.exponential(0.5, 4.0, 0.5).table(5)
    found = far.Schedule.exponential(0.5, tf.constant(4), tf.constant(0.5)).table(5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert far.Schedule(tf.constant([1, 2])).table(2).tolist() == [1.0, 2.0]


def test_a_transform_that_reads_a_hyperparameter_is_no_constant():
    factor = hyper(-1.0, "factor")
    schedule = far.Schedule([0.1, 0.2], transform=lambda x: x * factor)
    assert schedule.constants() is None
    far.GradientDescent(schedule)
    plain = far.Schedule([0.1, 0.2], every=3, transform=tf.square)
    np.testing.assert_allclose(plain.constants(), [0.01, 0.04])


def test_representation():
    rates = hyper([0.5, 0.25], "rates")
    assert repr(far.Schedule(rates)) == "Schedule(values=`rates`)"
    shown = repr(far.Schedule.cosine(0.5, hyper(4.0, "steps")))
    assert shown.startswith("Schedule.cosine(initial=0.5, decay_steps=`steps`")


class TestErrors:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: far.Schedule(0.1), r"shape \(steps,\)"),
            (lambda: far.Schedule([[0.1]]), r"shape \(steps,\)"),
            (lambda: far.Schedule([0.1], layers=[1, 2]), r"shape \(steps, 2\)"),
            (lambda: far.Schedule([[0.1]], layers=[1, 2]), r"shape \(steps, 2\)"),
            (lambda: far.Schedule([0.1], every=0), "`every` must be an integer"),
            (
                lambda: far.Schedule.exponential([0.1, 0.2], 1, 0.5),
                "`initial` must be a scalar",
            ),
            (
                lambda: far.Schedule.cosine(0.1, [1, 2, 3], layers=[1, 2]),
                "`decay_steps` must be a scalar",
            ),
        ],
    )
    def test_shapes(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: far.Schedule(["a"]), "`values` of Schedule must be finite"),
            (lambda: far.Schedule(None), "`values` of Schedule must be finite"),
            (lambda: far.Schedule([[1.0], [1.0, 2.0]]), "`values` of Schedule must be"),
            (lambda: far.Schedule([np.nan]), "`values` of Schedule must be finite"),
            (lambda: far.Schedule(lambda: 1.0), "`values` of Schedule must be numbers"),
            (lambda: far.Schedule([0.1], transform=3), "`transform` .* a callable"),
            (
                lambda: far.Schedule([0.1], transform=lambda x: None).table(1),
                "`transform` .* of the same shape",
            ),
            (
                lambda: far.Schedule([0.1], transform=lambda x: x.nothing).table(1),
                "`transform` .* which fails with",
            ),
            (lambda: far.Schedule([0.1], layers=keras.layers.Dense(1)), "`layers` of"),
            (lambda: far.Schedule.cosine(0.1, 3, layers=[]), "`layers` of"),
            (lambda: far.Schedule([0.1]).table(2), "integer from 1 to 1"),
            (
                lambda: far.Schedule([0.1], transform=lambda x: x > 0).table(1),
                "`transform` .* of the same shape and dtype",
            ),
            (lambda: far.Schedule(tf.constant(["a"])), "`values` of Schedule must be"),
            (lambda: far.Schedule(tf.constant([1j])), "`values` of Schedule must be"),
            (lambda: far.Schedule.inverse_time(0.1, 1, -0.5), "`decay_rate` .* not be"),
            (lambda: far.Schedule.cosine(0.1, 0), "`decay_steps` .* be positive"),
            (
                lambda: far.Schedule.exponential(0.1, 1, -0.5),
                "`decay_rate` .* not be negative",
            ),
            (
                lambda: far.Schedule.cosine(hyper(1.0, "a"), far.Hyperparameter(2.0)),
                "must have one dtype",
            ),
            (
                lambda: far.Momentum(0.1, far.Schedule([0.5, 1.5])),
                r"`momentum` of Momentum must be in \[0.0, 1.0\]",
            ),
        ],
    )
    def test_values(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_more_steps_than_values(self):
        problem = Classification()
        rates = hyper([0.1, 0.2, 0.3], "rates")
        bilevel = problem.bilevel(far.GradientDescent(far.Schedule(rates)), [rates])
        message = r"`learning_rate` .* ends before step 3.* length_of_schedule=3"
        with pytest.raises(ValueError, match=message):
            far.ReverseHG().compute(bilevel, 4)

    def test_steps_beyond_the_table(self):
        for step in (2, -1):
            with pytest.raises(ValueError, match="`step` must be an integer from 0 to"):
                far.Schedule([0.1, 0.2])(step)
        assert float(far.Schedule([0.1, 0.2])(1)) == 0.2

    def test_layers_within_pairs(self):
        problem = Classification()
        schedule = far.Schedule(np.ones((3, 2)), problem.model.layers)
        for value in ([(problem.model, schedule)], {".*": schedule}):
            with pytest.raises(ValueError, match="says itself which variables"):
                problem.bilevel(far.GradientDescent(value))

    def test_a_callable_that_ends_or_fails(self):
        problem = Classification()

        def ending(step):
            return tf.gather(tf.constant([0.1, 0.2]), step)

        with pytest.raises(ValueError, match=r"fails there with indices = 2 is not in"):
            far.ReverseHG().compute(problem.bilevel(far.GradientDescent(ending)), 3)
        failing = far.GradientDescent(lambda step: {}["rate"])
        with pytest.raises(ValueError, match="`learning_rate` of GradientDescent must"):
            far.ReverseHG().compute(problem.bilevel(failing), 3)

    def test_another_precision(self):
        rates = far.Hyperparameter([0.1, 0.2], name="rates")
        dynamics = far.GradientDescent(far.Schedule(rates))
        with pytest.raises(ValueError, match=r"must have the dtype.* float32"):
            Classification().bilevel(dynamics)

    def test_a_layer_that_is_not_trained(self):
        problem = Classification()
        other = keras.layers.Dense(1)
        schedule = far.Schedule(np.ones((3, 2)), [problem.model, other])
        with pytest.raises(ValueError, match="fits no variable"):
            problem.bilevel(far.GradientDescent(schedule))
