"""NaN and infinity are reported with where they begin, and with a usual cause."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.misuse import compute, fails


class TestNonFinite:
    """NaN and infinity are reported with the step at which they begin."""

    def parts(self, hyperparameters=1, **changes):
        w = keras.Variable([1.0, 2.0], name="w")
        rates = far.Hyperparameter(tf.fill([10], 0.1), name="rates")
        return {
            "inner_objective": lambda c: tf.reduce_sum(c * w),
            "outer_objective": lambda: tf.reduce_sum(w * w),
            "variables": [w],
            "dynamics": far.GradientDescent(lambda step: rates[step]),
            "hyperparameters": [rates],
            **changes,
        }

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    @pytest.mark.parametrize("jit_compile", [True, False])
    def test_in_the_state(self, value, jit_compile):
        numbers = np.ones(10, "float32")
        numbers[6] = value
        parts = self.parts(inner_data=lambda step: tf.gather(numbers, step))
        problem = far.BilevelProblem(**parts)
        (w,), (rates,) = parts["variables"], parts["hyperparameters"]
        mode = far.ReverseHG(jit_compile=jit_compile)
        with pytest.raises(far.NonFiniteError, match=r"step 6 .*s_7.*`w`") as error:
            mode.compute(problem, 10)
        assert error.value.step == 6
        # Nothing is lost: variables and hyperparameters are as they were.
        assert w.numpy().tolist() == [1.0, 2.0]
        np.testing.assert_allclose(rates, 0.1)

    def test_in_a_hyperparameter(self):
        parts = self.parts(inner_data=1.0)
        parts["hyperparameters"][0].assign(tf.fill([10], np.nan))
        with pytest.raises(far.NonFiniteError, match="hyperparameter `rates`"):
            compute(parts)

    def test_in_the_initial_state(self):
        parts = self.parts(inner_data=1.0)
        parts["variables"][0].assign([np.nan, 1.0])
        with pytest.raises(far.NonFiniteError, match=r"initial state .*`w`"):
            compute(parts)

    def test_in_the_inner_objective_alone(self):
        """A constant infinity leaves the gradient and the state as they are."""
        parts = self.parts(
            inner_data=lambda step: tf.where(step == 2, np.inf, 1.0),
        )
        (w,) = parts["variables"]
        parts["inner_objective"] = lambda c: tf.reduce_sum(w) + c
        with pytest.raises(
            far.NonFiniteError, match=r"`inner_objective` .*step 2 .*inf"
        ) as error:
            compute(parts, 10)
        assert error.value.step == 2

    @pytest.mark.parametrize("role", ["inner", "outer"])
    @pytest.mark.parametrize("library", ["tf", "keras"])
    def test_labels_out_of_range(self, role, library):
        """Of which XLA makes NaN, and TensorFlow's own kernel an error."""
        logits = keras.Variable(np.zeros((4, 3), "float32"), name="logits")
        cross_entropy = {
            "tf": tf.nn.sparse_softmax_cross_entropy_with_logits,
            "keras": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        }[library]

        def loss(labels):
            return tf.reduce_mean(cross_entropy(labels, tf.convert_to_tensor(logits)))

        right, wrong = tf.constant([0, 1, 2, 0]), tf.constant([0, 1, 3, 0])
        data = {"inner_data": right, "outer_data": right}
        if role == "inner":  # In step 2 only.
            data["inner_data"] = lambda step: tf.where(step == 2, wrong, right)
        else:
            data["outer_data"] = wrong
        rate = far.Hyperparameter(0.1, name="rate")
        problem = far.BilevelProblem(
            loss, loss, [logits], far.GradientDescent(rate), [rate], **data
        )
        for compiled, error in ((True, far.NonFiniteError), (False, ValueError)):
            with pytest.raises(error) as caught:
                far.ReverseHG(jit_compile=compiled).compute(problem, 4)
            said = str(caught.value)
            assert "label value of 3 which is outside the valid range of [0, 3)" in said
            assert (
                "labels are out of range: give the last layer a unit for each" in said
            )
            assert "learning rate" not in said
            if compiled:
                assert (
                    "in step 2 (" if role == "inner" else "`outer_objective`"
                ) in said
                assert f"of {__file__} (`" in said

    def test_a_squared_norm_at_zero(self):
        """Its derivative is 0, but by XLA's rule for roots NaN."""
        w, rate = keras.Variable([0.0, 0.0]), far.Hyperparameter(0.1, name="rate")

        def loss():
            return tf.norm(w) ** 2 + tf.reduce_sum((w - 1.0) ** 2)

        problem = far.BilevelProblem(loss, loss, [w], far.GradientDescent(rate), [rate])
        with fails(
            "step 0", "Without XLA the same is finite", "root or norm"
        ) as caught:
            far.ReverseHG(jit_compile=True).compute(problem, 2)
        assert "learning rate" not in str(caught.value)

    def test_what_first_makes_it(self):
        def outcome(function, start, rate, data=None, num_steps=4):
            w = keras.Variable([start], name="w")
            speed = far.Hyperparameter(rate, name="rate")
            problem = far.BilevelProblem(
                lambda *batch: tf.reduce_sum(function(tf.convert_to_tensor(w), *batch)),
                lambda: tf.reduce_sum(w * w),
                [w],
                far.GradientDescent(speed),
                [speed],
                inner_data=data,
            )
            with pytest.raises(far.NonFiniteError) as caught:
                far.ReverseHG().compute(problem, num_steps)
            return str(caught.value)

        said = outcome(lambda w: tf.math.log(w - 0.5), 1.0, 1.0)
        assert "first made by Log in line" in said
        assert f"of {__file__} (`said = outcome(lambda w: tf.math.log" in said
        assert "a logarithm or division" in said
        assert "learning rate" not in said
        said = outcome(lambda w: w**4, 2.0, 1e3, num_steps=20)
        assert "A usual cause: too large a learning rate." in said
        said = outcome(lambda w: 3.0 * w, 2.0, 3e38)  # In the update itself.
        assert "too large a learning rate" in said
        data = tf.where(tf.range(8.0)[:, tf.newaxis] == 5, np.nan, 1.0)
        batches = far.Batches(data, 2, shuffle=False)
        said = outcome(lambda w, batch: w * batch, 2.0, 0.1, batches)
        assert "in step 2 (" in said
        assert "The batch holds NaN or infinity." in said

    def test_in_the_outer_objective(self):
        parts = self.parts(inner_data=1.0)
        (w,) = parts["variables"]
        parts["outer_objective"] = lambda: tf.reduce_sum(tf.math.log(-w))
        with pytest.raises(far.NonFiniteError, match=r"`outer_objective`.*nan"):
            compute(parts)

    def test_in_the_backward_pass(self):
        """√ has an infinite derivative at 0, which only step 4 meets."""
        scale = far.Hyperparameter(0.0, name="scale")
        parts = self.parts(
            inner_data=lambda step: tf.where(step == 4, 1.0, 0.0),
            dynamics=far.GradientDescent(0.1),
        )
        (w,) = parts["variables"]
        parts["inner_objective"] = lambda c: tf.reduce_sum(
            w * (1 + tf.sqrt(scale + 1 - c))
        )
        parts["hyperparameters"] = [scale]
        with pytest.raises(
            far.NonFiniteError, match=r"hypergradient of `scale`.*step 4 "
        ) as error:
            compute(parts, 10)
        assert error.value.step == 4

    def test_steps_that_are_not_differentiated(self):
        """Step 0 has an infinite derivative, too, but counts as a constant."""

        def outcome(factors):
            w = keras.Variable(1.0, name="w")
            rate = far.Hyperparameter(0.1, name="rate")
            factors = tf.constant(factors)
            problem = far.BilevelProblem(
                lambda b: w * w + b * w * tf.sqrt(tf.abs(rate - 0.1)),
                lambda: 1.0 * w,
                [w],
                far.GradientDescent(rate),
                [rate],
                inner_data=lambda step: factors[step],
            )
            mode = far.ReverseHG(truncation=1, jit_compile=False)
            return mode.compute(problem, 4)

        with fails("in step 3 ") as error:
            outcome([1.0, 0.0, 0.0, 1.0])
        assert error.value.step == 3
        # w_4 = (1 − 2η) s_3, of s_3 = 0.8³.
        found = outcome([1.0, 0.0, 0.0, 0.0]).hypergradients[0]
        assert float(found) == pytest.approx(-2 * 0.8**3, rel=1e-5)

    def test_what_reverse_mode_leaves_out(self):
        """0·∞ is 0 in reverse mode, by TensorFlow's rule, and NaN in forward mode."""
        w = keras.Variable(1.0, name="w")
        rate = far.Hyperparameter(0.1, name="rate")
        problem = far.BilevelProblem(
            lambda: w * w + 0.0 * w * tf.sqrt(rate - 0.1),
            lambda: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [rate],
        )
        with fails("propagated forward", "root or norm at zero", "ReverseHG") as error:
            far.ForwardHG(jit_compile=False).compute(problem, 2)
        assert error.value.step is None

    @pytest.mark.parametrize("mode", [far.ReverseHG(), far.ForwardHG()])
    def test_where_no_step_makes_it(self, mode):
        """w ← 4w(1 − w) stays in [0, 1], while its derivative doubles."""
        w, rate = keras.Variable(0.3, name="w"), far.Hyperparameter(1.0, name="rate")
        problem = far.BilevelProblem(
            lambda: (4 / 3) * w**3 - 1.5 * w**2,
            lambda: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [rate],
        )
        text = {
            far.ReverseHG: r"\(steps 0 to 299\) is, but their product overflows",
            far.ForwardHG: "is chaotic, so that it overflows",
        }[type(mode)]
        with fails(text) as error:
            mode.compute(problem, 300)
        assert error.value.step is None

    def test_a_bare_variable_is_put_back(self):
        w = tf.Variable(1.0, name="w")
        rate = tf.Variable(1e30, name="rate")
        problem = far.BilevelProblem(
            lambda: w**4, lambda: w * w, [w], far.GradientDescent(rate), [rate]
        )
        with pytest.raises(far.NonFiniteError, match=r"step 1 .*`w`"):
            far.ReverseHG().compute(problem, 5)
        assert float(w) == 1.0

    def test_the_hyper_optimizer_keeps_its_hyperparameters(self):
        rate = far.Hyperparameter(1e30, name="rate")
        w = keras.Variable(1.0, name="w")
        problem = far.BilevelProblem(
            lambda: w**4, lambda: w * w, [w], far.GradientDescent(rate), [rate]
        )
        optimizer = far.HyperOptimizer(problem)
        with pytest.raises(far.NonFiniteError, match="step 1 "):
            optimizer.fit(3, num_steps=5, verbose=0)
        assert float(rate) == np.float32(1e30)
