"""What is made or run within the scope of a strategy, or on a device."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, in_tiers
from tests.replicated import minibatches, mirrored, outcome


def tuned_twice(strategy=None, made_within=False, run_within=False):
    """Two updates, with parts of them within the scope; variables and slots."""
    nothing = contextlib.nullcontext
    with strategy.scope() if made_within else nothing():
        setting = Classification()
        low = far.constraints.Interval(0.0, 0.105)
        rate = setting.hyper(0.1, "rate", constraint=low)
        problem = setting.bilevel(far.GradientDescent(rate), [rate])
        adam = keras.optimizers.Adam(0.01)
        tuner = far.HyperOptimizer(problem, optimizer=adam, strategy=strategy)
    with strategy.scope() if run_within else nothing():
        tuner.run(3)
        tuner.run(3)
    return [*problem.hyperparameters, *setting.model.weights], adam.variables


@functools.cache
def tuned_on_one_device():
    variables, _ = tuned_twice()
    return [variable.numpy() for variable in variables]


class TestScope:
    """Variables within `strategy.scope()`, and runs within it."""

    @pytest.mark.parametrize("made_within", in_tiers([False, True], [True]))
    @pytest.mark.parametrize("run_within", in_tiers([False, True], [False]))
    def test_variables_and_slots_are_updated_everywhere(self, made_within, run_within):
        strategy = mirrored(2)
        variables, slots = tuned_twice(strategy, made_within, run_within)
        assert_close([v.numpy() for v in variables], tuned_on_one_device(), 1e-10)
        for variable in variables + slots:
            copies = strategy.experimental_local_results(variable.value)
            assert len(copies) == 1 + made_within
            for copy in copies:
                assert np.array_equal(copy, copies[0])

    @pytest.mark.thorough
    def test_the_default_optimizer_is_made_in_the_scope_of_hyperparameters(self):
        strategy = mirrored(2)
        with strategy.scope():
            setting = Classification()
            problem = setting.bilevel(far.GradientDescent(0.1))
        far.HyperOptimizer(problem, strategy=strategy).run(2)
        copies = strategy.experimental_local_results(setting.penalty.value)
        assert copies[0].numpy() == copies[1].numpy() != 0.01

    def test_several_problems_and_the_planner(self):
        strategy = mirrored(2)
        expected = minibatches(far.GradientDescent)
        expected = outcome(expected, far.ReverseHG(jit_compile=False), 0, 2)
        with strategy.scope():
            problem = minibatches(far.GradientDescent)
            far.plan(problem, 5)
            tuner = far.HyperOptimizer(
                [problem, problem], far.ReverseHG(jit_compile=False), strategy=strategy
            )
            result = tuner.run(2)
        assert_close(result.hypergradients, expected[1:4], 1e-10)

    @pytest.mark.parametrize("made_within", in_tiers([False, True], [True]))
    def test_one_device(self, made_within):
        """All of it runs on that device, within the scope or not."""
        strategy = tf.distribute.OneDeviceStrategy("/cpu:2")
        mode = far.ReverseHG(jit_compile=False)
        expected = minibatches(far.Adam)
        tuner = far.HyperOptimizer(expected, mode, keras.optimizers.Adam(0.1))
        tuner.run(6)
        with strategy.scope() if made_within else contextlib.nullcontext():
            problem = minibatches(far.Adam)
            adam = keras.optimizers.Adam(0.1)
        other = far.HyperOptimizer(problem, mode, adam, strategy)
        result = other.run(6)
        assert_close(other.get_weights(), tuner.get_weights(), 1e-12)
        assert result.state.variables[0].device.endswith("CPU:2")


def test_a_warning_points_to_the_line_that_asked():
    """Within a scope another thread does the work."""
    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: w * w * rate, lambda: 1.0 * w, [w], far.GradientDescent(0.1), [rate]
    )
    with mirrored(2).scope(), pytest.warns(FutureWarning) as told:
        far.ReverseHG().compute(problem, 2, outer_step=1)
    assert [one.filename for one in told] == [__file__]


def test_the_device_of_the_caller_counts():
    problem = minibatches(far.GradientDescent)
    for name in ("CPU:1", "CPU:3"):
        with tf.device(name):
            result = far.ReverseHG(jit_compile=False).compute(problem, 2)
        assert result.state.variables[0].device.endswith(name)


def test_hyperparameters_in_a_scope_are_numbers():
    with mirrored(2).scope():
        rate = far.Hyperparameter(0.5, name="rate")
        vector = far.Hyperparameter([0.5, 0.25], name="vector")
    assert float(rate) == 0.5
    with pytest.raises(TypeError):
        float(vector)
