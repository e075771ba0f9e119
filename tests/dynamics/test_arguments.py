"""Wrong arguments of dynamics get an error that names them and what was received."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.misuse import compute, fails


class TestDynamics:
    def test_of_a_wrong_kind(self, parts):
        with fails("`dynamics`", "far.Momentum", "Received: dynamics='sgd'"):
            compute(parts, dynamics="sgd")

    def test_an_argument_of_a_wrong_kind(self, parts):
        with fails("`learning_rate` of GradientDescent", "Received: 'fast'"):
            compute(parts, dynamics=far.GradientDescent("fast"))

    def test_an_argument_out_of_bounds(self):
        with fails("`momentum` of Momentum", r"\[0.0, 1.0\]", "momentum=1.5"):
            far.Momentum(0.1, momentum=1.5)

    def test_a_hyperparameter_out_of_bounds(self, parts):
        rate = far.Hyperparameter(-0.1, name="rate")
        changes = {"dynamics": far.Momentum(rate, 0.5), "hyperparameters": [rate]}
        with pytest.warns(
            UserWarning, match=r"in \[0\.0, inf\).*'non_neg'.*`rate`=-0\.1"
        ):
            far.BilevelProblem(**parts | changes)
        rate.assign(0.1)
        far.BilevelProblem(**parts | changes)

    @pytest.mark.parametrize(
        "value",
        [1.0, np.float32(1.5), np.array([0.5, 1.0]), -0.1, [("w", 2.0)], {"w": 2.0}],
        ids=str,
    )
    def test_other_forms_of_numbers_out_of_bounds(self, parts, value):
        if isinstance(value, list):
            value = [(parts["variables"][0], 2.0)]
        with fails("`beta_1` of Adam", r"\[0.0, 1.0\)", "beta_1="):
            compute(parts, dynamics=far.Adam(0.1, beta_1=value))

    def test_an_update_that_returns_something_else(self, parts):
        class Wrong(far.Dynamics):
            def update(self, variable, gradient, slots, step):
                return variable - gradient

        with fails("`update` of Wrong", "a tuple of 0 slots", "Received: result="):
            compute(parts, dynamics=Wrong())

    def test_an_argument_of_another_dtype(self, parts):
        double = far.Hyperparameter(0.1, dtype="float64", name="double")
        with fails("`learning_rate`", "`w` of float32", "`double` of float64"):
            compute(parts, dynamics=far.GradientDescent(double))

    def test_an_argument_that_does_not_broadcast(self, parts):
        rates = far.Hyperparameter(tf.ones(5), name="rates")
        with fails("`learning_rate`", r"\(2,\)", r"\(5,\)", "`rates`"):
            compute(parts, dynamics=far.GradientDescent(rates), hyperparameters=[rates])

    def test_a_pattern_that_matches_nothing(self, parts):
        with fails("`learning_rate`", "'dense/.*' matches no variable", "`w`"):
            compute(parts, dynamics=far.GradientDescent({"dense/.*": 0.1}))

    def test_a_pattern_that_comes_too_late(self, parts):
        with fails("`learning_rate`", r"'\^w' matches have a value", "the first"):
            compute(parts, dynamics=far.GradientDescent({".*": 0.1, "^w": 0.2}))

    def test_a_pair_that_comes_too_late(self, parts):
        (w,) = parts["variables"]
        with fails("`learning_rate`", "`w` comes after", "first counts"):
            compute(parts, dynamics=far.GradientDescent([(w, 0.1), (w, 0.2)]))

    def test_a_key_that_is_no_pattern(self, parts):
        with fails("`learning_rate`", "regular expressions", r"'\*'"):
            compute(parts, dynamics=far.GradientDescent({"*": 0.1}))

    @pytest.mark.parametrize("jit_compile", [True, False])
    @pytest.mark.parametrize("index", [lambda v, t: v[t], tf.gather])
    def test_a_schedule_that_ends_too_soon(self, parts, index, jit_compile):
        """XLA would take the last entry for all steps beyond it."""
        rates = far.Hyperparameter(tf.fill([3], 0.1), name="rates")

        def schedule(step):
            return index(tf.convert_to_tensor(rates), step)

        problem = far.BilevelProblem(
            **{
                **parts,
                "dynamics": far.GradientDescent(schedule),
                "hyperparameters": [rates],
            }
        )
        mode = far.ReverseHG(jit_compile=jit_compile)
        with fails("`learning_rate`", "ends before step 3", "schedule"):
            mode.compute(problem, 4)
        result = mode.compute(problem, 3)
        with fails("`learning_rate`", "ends before step 5"):
            mode.compute(problem, 3, start=result.end)

    @pytest.mark.parametrize(
        "schedule",
        [lambda: 0.1, lambda t: [0.1, 0.2][t], lambda t: None, lambda t: "fast"],
    )
    def test_a_schedule_that_makes_no_number(self, parts, schedule):
        with fails("`learning_rate` of GradientDescent ", "Received: .*lambda"):
            compute(parts, dynamics=far.GradientDescent(schedule))

    def test_a_schedule_that_reads_trained_variables(self, parts):
        (w,) = parts["variables"]
        with fails("`dynamics` reads `w`", "on the step and on hyperparameters"):
            compute(
                parts,
                dynamics=far.GradientDescent(lambda t: 0.1 / (1 + tf.norm(w))),
                outer_objective=lambda: parts["hyperparameters"][0] * tf.norm(w),
            )

    def test_a_pair_with_a_foreign_variable(self, parts):
        foreign = keras.Variable(1.0, name="foreign")
        with fails("`learning_rate`", "`foreign`", "`w`"):
            compute(parts, dynamics=far.GradientDescent([(foreign, 0.1)]))

    def test_variables_without_a_value(self, parts):
        other = keras.Variable(1.0, name="other")
        (w,) = parts["variables"]
        with fails("`learning_rate`", "no value", "`other`"):
            compute(
                parts,
                variables=[w, other],
                dynamics=far.GradientDescent([(w, 0.1)]),
            )

    def test_not_pairs(self, parts):
        with fails("`learning_rate`", "pairs", "Received the element: 0.1"):
            compute(parts, dynamics=far.GradientDescent([0.1]))
