"""The outer loop, against updates made by hand; and its wrong arguments."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close
from tests.misuse import fails


def ridge(penalty, rate, seed, name="w"):
    """A small regression with its own data and weights."""
    random = np.random.RandomState(seed)
    x, y = random.randn(6, 2), random.randn(6)
    w = keras.Variable(np.zeros(2), name=name)
    tensor = tf.convert_to_tensor

    def loss():
        return tf.reduce_mean((tf.linalg.matvec(x, tensor(w)) - y) ** 2)

    return far.BilevelProblem(
        lambda: loss() + penalty * tf.reduce_sum(w * w),
        lambda: loss() + tf.reduce_sum(tf.abs(w)),
        [w],
        far.Momentum(rate, 0.5),
        [penalty, rate],
    )


def hypers(penalty=0.3, rate=0.1):
    return [
        far.Hyperparameter(penalty, dtype="float64", name="penalty"),
        far.Hyperparameter(rate, dtype="float64", name="rate"),
    ]


def test_run_makes_one_update():
    pair = hypers()
    problem = ridge(*pair, seed=0)
    expected = far.ReverseHG().compute(problem, 5)
    tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.01))
    result = tuner.run(num_steps=5)
    assert_close(result.hypergradients, expected.hypergradients, 1e-12)
    moved = [
        start - 0.01 * np.array(g)
        for start, g in zip((0.3, 0.1), result.hypergradients, strict=True)
    ]
    assert_close(pair, moved, 1e-8)  # Keras keeps its learning rate in float32.


def test_restart_starts_from_the_same_state():
    pair = hypers()
    tuner = far.HyperOptimizer(
        ridge(*pair, seed=0), optimizer=keras.optimizers.SGD(0.0)
    )
    first, second = tuner.run(5), tuner.run(5)
    assert_close(second.hypergradients, first.hypergradients, 0)


@pytest.mark.parametrize("mode", ["online", "warm_restart"])
def test_online_goes_on_where_it_was(mode):
    """Twice three steps end where six do; the first three count as past."""
    pair = hypers()
    problem = ridge(*pair, seed=0)
    whole = far.ReverseHG().compute(problem, 6)
    tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.0))
    half = tuner.run(3, mode=mode)
    rest = tuner.run(3, mode=mode)
    assert_close(rest.state.variables, whole.state.variables, 1e-12)
    expected = far.ReverseHG().compute(problem, 3, start=half.end)
    assert_close(rest.hypergradients, expected.hypergradients, 1e-12)
    again = tuner.run(6)  # "restart" forgets it all.
    assert_close(again.hypergradients, whole.hypergradients, 1e-12)


def test_several_problems_are_averaged():
    pair = hypers()
    problems = [ridge(*pair, seed=seed, name=f"w{seed}") for seed in range(3)]
    single = [far.ReverseHG().compute(problem, 4) for problem in problems]
    tuner = far.HyperOptimizer(problems, optimizer=keras.optimizers.SGD(0.01))
    result = tuner.run(4)
    means = np.mean([one.hypergradients for one in single], axis=0)
    assert_close(result.hypergradients, means, 1e-12)
    value = np.mean([one.outer_value for one in single])
    assert_close([result.outer_value], [value], 1e-12)
    assert result.inner_values.shape == (3, 4)
    assert_close(pair, [0.3 - 0.01 * means[0], 0.1 - 0.01 * means[1]], 1e-8)


def test_constraints_hold_after_each_update():
    problem = Classification()
    weights = problem.hyper(
        np.full(12, 0.5), "capped", constraint=far.constraints.CappedSimplex(3.0)
    )
    problem.weights = weights
    bilevel = problem.bilevel(far.Momentum(0.2, 0.9))
    tuner = far.HyperOptimizer(bilevel, optimizer=keras.optimizers.Adam(0.3))
    for _ in range(3):
        tuner.run(4)
        assert np.sum(weights) <= 3 + 1e-9
        assert np.min(weights) >= 0
        assert np.max(weights) <= 1


def test_outer_data_advance_with_the_hyper_iterations():
    """Callables, batches and datasets are asked for the iteration's batch."""
    numbers = tf.constant([1.0, 10.0, 100.0])
    kinds = [
        lambda step: tf.gather(numbers, step),
        far.Batches(numbers, 1, shuffle=False),
        tf.data.Dataset.from_tensor_slices(numbers),  # Starts over at its end.
    ]
    for data in kinds:
        w = keras.Variable(1.0, name="w")
        rate = far.Hyperparameter(0.1, name="rate")
        problem = far.BilevelProblem(
            lambda w=w: 1.0 * w,
            lambda number, w=w: tf.reduce_sum(number) * w,
            [w],
            far.GradientDescent(rate),
            [rate],
            outer_data=data,
        )
        tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.0))
        gradients = [float(tuner.run(2).hypergradients[0]) for _ in range(3)]
        np.testing.assert_allclose(gradients, [-2.0, -20.0, -200.0], rtol=1e-6)
    assert float(tuner.run(2).hypergradients[0]) == pytest.approx(-2.0)


def test_bare_tf_variables_are_tuned():
    target = tf.Variable(0.0, name="target")
    w = tf.Variable(1.0, name="w")
    problem = far.BilevelProblem(
        lambda: (w - target) ** 2,
        lambda: (w - 2.0) ** 2,
        [w],
        far.GradientDescent(0.25),
        [target],
    )
    tuner = far.HyperOptimizer(problem, optimizer=keras.optimizers.SGD(0.4))
    history = tuner.fit(60, num_steps=10, verbose=0)
    # w_T = 2⁻¹⁰ + (1 − 2⁻¹⁰) target, so that E = 0 where w_T = 2.
    assert float(target) == pytest.approx((2 - 2**-10) / (1 - 2**-10), rel=1e-5)
    assert set(history.history) == {"outer_value", "hypergradient_norm", "target"}


def test_the_model_holds_the_final_state():
    problem = Classification()
    bilevel = problem.bilevel(far.Adam(0.05))
    tuner = far.HyperOptimizer(bilevel)
    result = tuner.run(5)
    assert_close(problem.model.trainable_variables, result.state.variables, 0)
    # `tuner` has moved the penalty, which the outer objective reads.
    moved = problem.outer(problem.validation) - 0.1 * float(problem.penalty) ** 2
    assert_close([moved], [result.outer_value - 0.1 * 0.01**2], 1e-12)


class TestHyperOptimizer:
    def test_of_no_problem(self):
        with fails("`problem`", "Received: 'problem'"):
            far.HyperOptimizer("problem")

    def test_of_an_empty_list(self):
        with fails("`problem`", "empty"):
            far.HyperOptimizer([])

    def test_problems_with_other_hyperparameters(self, parts):
        other = far.Hyperparameter(0.1, name="other")
        one = far.BilevelProblem(**parts)
        two = far.BilevelProblem(
            **{
                **parts,
                "hyperparameters": [other],
                "dynamics": far.GradientDescent(other),
            }
        )
        with fails("same hyperparameters", "path=rate,", "Received: .*path=other,"):
            far.HyperOptimizer([one, two])

    def test_wrong_arguments(self, parts):
        problem = far.BilevelProblem(**parts)
        with fails("`hypergradient`", "Received: 'reverse'"):
            far.HyperOptimizer(problem, hypergradient="reverse")
        with fails("`strategy`", "MirroredStrategy"):
            far.HyperOptimizer(problem, strategy=tf.distribute.get_strategy())
        for wrong in (far.ReverseHG, keras.optimizers.SGD()):
            with fails("`hypergradient`", "not a class", "`optimizer=`"):
                far.HyperOptimizer(problem, wrong)
        optimizer = far.HyperOptimizer(problem)
        with fails("`mode`", "restart", "Received: mode='cold'"):
            optimizer.run(3, mode="cold")
        with fails("`num_steps`", "num_steps=0"):
            optimizer.run(0)
        with fails("`hyper_iterations`", "hyper_iterations=0"):
            optimizer.fit(0, num_steps=3)

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ({"epochs": 3}, "`hyper_iterations`"),
            ({"steps_per_epoch": 3}, "`num_steps`"),
            ({"num_step": 3}, "`num_steps`"),
            ({"validation_data": 3}, "`outer_data` of the BilevelProblem"),
        ],
        ids=str,
    )
    def test_other_names_of_arguments(self, parts, given, meant):
        (name,) = given
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        words = rf"has no argument `{name}`. Did you mean {meant}\? .*={given[name]}"
        with pytest.raises(TypeError, match=f"`HyperOptimizer.fit` {words}"):
            tuner.fit(**given)
        with pytest.raises(TypeError, match=f"`HyperOptimizer.run` {words}"):
            tuner.run(**given)
        with pytest.raises(TypeError, match=f"compute` {words}"):
            far.ReverseHG().compute(tuner.problems[0], **given)

    def test_a_name_that_is_like_no_other(self, parts):
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        with pytest.raises(TypeError, match=r"no argument `zzz`\. Received: zzz=1"):
            tuner.fit(3, 3, zzz=1)

    @pytest.mark.parametrize("wrong", ["x", print, keras.callbacks.History], ids=str)
    def test_callbacks(self, parts, wrong):
        tuner = far.HyperOptimizer(far.BilevelProblem(**parts))
        right = keras.callbacks.History()
        with fails("`callbacks`", "LambdaCallback", r"Received: callbacks\[1\]="):
            tuner.fit(1, 2, callbacks=[right, wrong], verbose=0)
        with fails("`callbacks`", r"Received: callbacks\[0\]="):
            tuner.fit(1, 2, callbacks=wrong, verbose=0)
        for callbacks in (right, (right,), keras.callbacks.CallbackList([right])):
            tuner.fit(1, 2, callbacks=callbacks, verbose=0)
            assert right.epoch[-1] == 0
