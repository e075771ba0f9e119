"""A `Hyperparameter` that a problem reads and does not tune is warned of."""

import warnings

import keras
import pytest
import tensorflow as tf

import far_ho_tf as far


def warned(compute):
    """What is warned of, as strings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compute()
    return [str(one.message) for one in caught if one.category is UserWarning]


def bilevel(factor=1.0, **changes):
    """A right problem, but for what is changed: functions of its variable."""
    w = keras.Variable([1.0, 2.0], name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    parts = {
        "inner_objective": lambda *batch: tf.reduce_sum(w * w) * factor,
        "outer_objective": lambda *batch: tf.reduce_sum(w * w),
        "variables": [w],
        "dynamics": far.GradientDescent(rate),
        "hyperparameters": [rate],
    }
    return far.BilevelProblem(**parts | {k: make(w) for k, make in changes.items()})


# The part that reads it: how, of the variable and the hyperparameter.
READERS = {
    "inner_objective": lambda h: {
        "inner_objective": lambda w: lambda: h * tf.reduce_sum(w * w)
    },
    "outer_objective": lambda h: {
        "outer_objective": lambda w: lambda: h * tf.reduce_sum(w * w)
    },
    "initial_values": lambda h: {
        "initial_values": lambda w: [(w, lambda: h * tf.ones(2))]
    },
    "inner_data": lambda h: {
        "inner_data": lambda w: lambda step: h * tf.cast(step, tf.float32),
        "inner_objective": lambda w: lambda batch: batch * tf.reduce_sum(w * w),
    },
    "outer_data": lambda h: {
        "outer_data": lambda w: tf.data.Dataset.range(3).map(
            lambda step: h * tf.cast(step, tf.float32)
        ),
        "outer_objective": lambda w: lambda batch: batch * tf.reduce_sum(w * w),
    },
}
DYNAMICS = {
    "a number": far.GradientDescent,
    "a schedule": lambda h: far.GradientDescent(lambda step: h * 0.9**step),
    "a table": lambda h: far.GradientDescent(
        far.Schedule.exponential(h, decay_steps=3, decay_rate=0.9)
    ),
    "one of two": lambda h: far.Momentum(0.1, h),
    "of Keras": lambda h: far.KerasDynamics(
        keras.optimizers.Adam(), {"learning_rate": h}
    ),
}


@pytest.mark.parametrize("part", READERS)
def test_the_part_that_reads_it_is_named(part):
    h = far.Hyperparameter(0.5, name="unlisted")
    (message,) = warned(lambda: bilevel(**READERS[part](h)))
    assert f"not list `unlisted`, a Hyperparameter that is read by `{part}`:" in message
    assert "Remedy: list it; or, if it is to stay fixed" in message


@pytest.mark.parametrize("name", DYNAMICS)
def test_dynamics(name):
    h = far.Hyperparameter(0.5, name="unlisted")
    scale = far.Hyperparameter(1.0, name="scale")
    (message,) = warned(
        lambda: bilevel(
            inner_objective=lambda w: lambda: scale * tf.reduce_sum(w * w),
            dynamics=lambda w: DYNAMICS[name](h),
            hyperparameters=lambda w: [scale],
        )
    )
    assert "`unlisted`, a Hyperparameter that is read by `dynamics`:" in message


def test_all_that_read_it_are_named_at_once():
    h = far.Hyperparameter(0.5, name="unlisted")
    both = READERS["inner_objective"](h) | READERS["initial_values"](h)
    (message,) = warned(lambda: bilevel(**both))
    assert "read by `inner_objective` and `initial_values`:" in message


def test_in_a_loop_and_a_branch():
    h = far.Hyperparameter(0.5, name="unlisted")

    def objective(w):
        def body(turn, x):
            return turn + 1, tf.cond(turn > 1, lambda: h * x, lambda: x)

        return lambda: tf.reduce_sum(
            tf.while_loop(lambda turn, x: turn < 3, body, [0, w * w])[1]
        )

    (message,) = warned(lambda: bilevel(inner_objective=objective))
    assert "`unlisted`, a Hyperparameter that is read by `inner_objective`:" in message


def test_get_hyperparameter_and_real_time():
    penalty = far.get_hyperparameter("penalty", 0.1)
    rate = far.Hyperparameter(0.1, name="rate")
    net = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(1, kernel_regularizer=far.regularizers.L2(penalty)),
        ]
    )
    x = tf.random.stateless_normal([8, 2], (1, 2))

    def fit(hyperparameters):
        tuned = far.RealTimeModel(
            *(net, hyperparameters, far.GradientDescent(rate)),
            hyper_data=(x, x[:, :1]),
            update_every=1,
        )
        tuned.compile(loss="mse")
        tuned.fit(x, x[:, :1], verbose=0)

    (message,) = warned(lambda: fit([rate]))
    assert "`penalty`, a Hyperparameter that is read by `inner_objective`:" in message
    assert warned(lambda: fit([rate, penalty])) == []


def test_what_is_no_constant_or_no_hyperparameter_is_not_warned_of():
    h = far.Hyperparameter(0.5, name="elsewhere")
    fixed = keras.Variable(0.5, trainable=False, name="fixed")
    bare = tf.Variable(0.5, name="bare")
    for other in (fixed, bare, tf.constant(0.5), 0.5, float(h)):
        assert warned(lambda other=other: bilevel(other)) == []
