"""An objective that is no mean over examples is told from one that is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import (
    Classification,
    assert_close,
    hyper,
    in_tiers,
    normalized_network,
)
from tests.replicated import mirrored, outcome


class TestMeans:
    """What looks like a mean, but is none, is found whatever it looks like."""

    none = {
        "root": lambda losses, weights: tf.sqrt(tf.reduce_mean(losses)),
        "sum": lambda losses, weights: tf.reduce_sum(losses) + 1e9,
        "divided": lambda losses, weights: tf.reduce_sum(losses) / 12.0,
        "weights in the data": lambda losses, weights: (
            tf.reduce_sum(weights * losses) / tf.reduce_sum(weights)
        ),
    }

    @pytest.mark.parametrize("dtype", in_tiers(["float64", "float32"], ["float64"]))
    @pytest.mark.parametrize("kind", in_tiers(none, ["root", "weights in the data"]))
    def test_refused(self, dtype, kind):
        setting = Classification(dtype)
        x, y, _ = setting.train
        setting.train = x, y, np.ones(12, dtype)

        def objective(batch):
            x, y, weights = batch
            losses = tf.reduce_sum((setting.model(x) - y) ** 2, axis=-1)
            return self.none[kind](losses, weights) + setting.penalty

        setting.inner = objective
        problem = far.BilevelProblem(
            setting.inner,
            setting.outer,
            setting.model,
            far.GradientDescent(0.1),
            [setting.penalty],
            setting.train,
            setting.validation,
        )
        with pytest.raises(ValueError, match="must be a mean"):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))

    def test_weights_that_are_not_read_by_index(self):
        """They fit the whole batch, but not a shard of it."""
        setting = Classification()

        def objective(batch):
            losses = tf.reduce_sum((setting.model(batch[0]) - batch[1]) ** 2, axis=-1)
            weighted = tf.convert_to_tensor(setting.weights) * losses
            return tf.reduce_mean(weighted) + setting.penalty

        setting.inner = objective
        problem = setting.bilevel(far.GradientDescent(0.1))
        far.ReverseHG().compute(problem, 2)
        with pytest.raises(
            ValueError, match=r"`inner_objective`.*2 shards.*tf\.gather"
        ):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))

    def test_a_mask_with_holes_in_a_later_batch(self):
        setting = Classification()
        x, y, _ = setting.train
        data = x, y, np.arange(12) < 9

        def objective(batch):
            x, y, mask = batch
            losses = tf.reduce_sum((setting.model(x) - y) ** 2, axis=-1)
            kept = tf.boolean_mask(losses, mask)
            return tf.reduce_mean(kept) + 0.0 * (setting.penalty + setting.weights[0])

        setting.inner = objective
        problem = setting.bilevel(
            far.GradientDescent(0.1), inner_data=far.Batches(data, 6, shuffle=False)
        )
        with pytest.raises(ValueError, match="must be a mean"):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))

    def test_a_gradient_that_vanishes_but_for_rounding_is_no_error(self):
        """A constant within a softmax; float32."""
        random = np.random.RandomState(0)
        x = random.randn(12, 4).astype("float32")
        w = keras.Variable(random.randn(4, 3), dtype="float32", name="w")
        shift = keras.Variable(0.3, name="shift")
        scale = far.Hyperparameter(0.5, name="scale")

        def loss(x):
            logits = 3.0 * x @ w + shift
            return tf.reduce_mean(tf.nn.log_softmax(logits)[:, 0]) * scale

        problem = far.BilevelProblem(
            loss, loss, [w, shift], far.GradientDescent(0.1), [scale], x, x
        )
        mode = far.ReverseHG(jit_compile=False)
        assert_close(outcome(problem, mode, 2)[:3], outcome(problem, mode, 0)[:3], 1e-5)

    @pytest.mark.parametrize("kind", in_tiers(["float", "integer"], ["integer"]))
    def test_state_that_counts_examples(self, kind):
        setting = Classification()
        dtype = {"float": "float64", "integer": "int32"}[kind]
        count = keras.Variable(1, dtype=dtype, trainable=False, name="count")
        plain = setting.inner

        def objective(batch):
            count.assign(count + tf.cast(tf.shape(batch[0])[0], dtype))
            return plain(batch) * tf.exp(-tf.cast(count, tf.float64) / 30.0)

        setting.inner = objective
        setting.model.count = count
        self.refused(setting, "`inner_objective` assigns state.*`count`")

    def refused(self, setting, match, dynamics=None, num_steps=4):
        problem = setting.bilevel(dynamics or far.GradientDescent(0.1))
        with pytest.raises(ValueError, match=match):
            far.ReverseHG(jit_compile=False).compute(
                problem, num_steps, strategy=mirrored(2)
            )

    @pytest.mark.parametrize("role", in_tiers(["inner", "outer"], ["inner"]))
    def test_what_is_a_mean_until_the_end_only(self, role):
        """Flooding: at first both shards' losses are above the level, then one's is."""
        w, scale = keras.Variable(5.0, dtype="float64", name="w"), hyper(1.0, "scale")
        x = np.array([0.0, 1.0])

        def loss(x):
            return tf.reduce_mean((w - x) ** 2)

        def flooded(x):
            return tf.abs(loss(x) - 1.0) + 1.0

        problem = far.BilevelProblem(
            (lambda x: scale * flooded(x))
            if role == "inner"
            else (lambda x: scale * (w - 1.37) ** 2 + 0.0 * loss(x)),
            loss if role == "inner" else flooded,
            [w],
            far.GradientDescent(0.01),
            [scale],
            x,
            x,
        )
        with pytest.raises(ValueError, match=f"`{role}_objective` must be a mean"):
            far.ReverseHG().compute(problem, 300, strategy=mirrored(2))

    @pytest.mark.thorough
    def test_holes_that_come_later(self):
        """Looked for again after 1, 2, 4, 8, ... runs."""
        setting = Classification()
        mask = np.ones(12, bool)
        mask[7:9] = False

        def objective(batch):
            x, y, index, mask = batch
            losses = tf.reduce_sum((setting.model(x) - y) ** 2, axis=-1)
            losses *= tf.gather(tf.convert_to_tensor(setting.weights), index)
            return tf.reduce_mean(tf.boolean_mask(losses, mask))

        setting.inner = objective
        data = far.Batches((*setting.train, mask), 6, shuffle=False)
        problem = setting.bilevel(far.GradientDescent(0.1), inner_data=data)
        mode = far.ForwardHG(jit_compile=False)
        tuner = far.HyperOptimizer(problem, mode, "sgd", strategy=mirrored(2))
        tuner.run(1, mode="online")
        with pytest.raises(ValueError, match="must be a mean"):
            tuner.run(1, mode="online")

    def test_a_gradient_that_is_no_number_hides_no_other(self):
        """The root has none beside the start, where alone the weights are not one."""
        setting = Classification()
        edge = setting.hyper(0.99, "edge")

        def objective(batch):
            x, y, weights = batch
            losses = tf.reduce_sum((setting.model(x) - y) ** 2, axis=-1)
            mean = tf.reduce_sum(weights * losses) / tf.reduce_sum(weights)
            return mean + setting.penalty * tf.sqrt(1.0 - edge)

        x, y, _ = setting.train
        problem = far.BilevelProblem(
            objective,
            setting.outer,
            setting.model,
            far.GradientDescent(setting.penalty),
            [edge, setting.penalty],
            (x, y, np.ones(12)),
            setting.validation,
        )
        with pytest.raises(ValueError, match="`inner_objective` must be a mean"):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))

    @pytest.mark.parametrize("strength", in_tiers([-4.0, -11.0], [-11.0]))
    def test_a_weak_sum_beside_a_mean(self, strength):
        setting = Classification("float32")
        log_strength = setting.hyper(strength, "log_strength")
        plain = setting.inner

        def objective(batch):
            squares = tf.reduce_sum(setting.model(batch[0]) ** 2)
            return plain(batch) + tf.exp(log_strength) * squares

        setting.inner = objective
        problem = setting.bilevel(far.GradientDescent(0.1), [log_strength])
        with pytest.raises(ValueError, match="`log_strength`"):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))

    def test_a_sum_beside_batch_normalization(self):
        x = np.random.RandomState(1).randn(60, 4)
        model = normalized_network()
        rate = hyper(0.1, "rate")
        problem = far.BilevelProblem(
            lambda x: tf.reduce_sum((model(x, training=True) - 1.0) ** 2),
            lambda x: tf.reduce_mean((model(x) + 1.0) ** 2),
            model,
            far.GradientDescent(rate),
            [rate],
            x,
            x,
        )
        with pytest.raises(ValueError, match="it is a sum"):
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))


class TestFalseAlarms:
    """Means that could be taken for none."""

    def network(self, dtype, target=None):
        keras.utils.set_random_seed(0)
        x = np.random.RandomState(1).randn(61, 4).astype("float32")
        layers = [keras.layers.Dense(6, "tanh", dtype=dtype) for _ in range(2)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        y = np.zeros((61, 6), "float32") if target is None else model(x)
        rate = far.Hyperparameter(0.1, name="rate")

        def loss(batch):
            x, y = batch
            return tf.reduce_mean((tf.cast(model(x), tf.float32) - y) ** 2)

        data = tf.constant(x), tf.constant(y)
        return far.BilevelProblem(
            loss, loss, model, far.GradientDescent(rate), [rate], data, data
        )

    @pytest.mark.parametrize(
        "dtype", in_tiers(["mixed_bfloat16", "mixed_float16"], ["mixed_float16"])
    )
    def test_half_precision(self, dtype):
        problem = self.network(dtype)
        mode = far.ReverseHG(jit_compile=False)
        result = mode.compute(problem, 2, strategy=mirrored(3))
        expected = mode.compute(problem, 2)
        assert_close(result.hypergradients, expected.hypergradients, 0.05)

    def test_a_loss_of_zero(self):
        problem = self.network("float32", target="itself")
        result = far.ReverseHG(jit_compile=False).compute(
            problem, 2, strategy=mirrored(2)
        )
        assert float(result.outer_value) < 1e-10

    @pytest.mark.thorough
    def test_data_that_the_objective_checks(self):
        setting = Classification()
        plain = setting.inner

        def objective(batch):
            sums = tf.reduce_sum(batch[1], axis=-1)
            tf.debugging.assert_near(sums, tf.ones_like(sums))
            return plain(batch)

        setting.inner = objective
        problem = setting.bilevel(far.GradientDescent(0.1))
        mode = far.ReverseHG(jit_compile=False)
        expected = outcome(problem, mode, 0)
        assert_close(outcome(problem, mode, 2), expected, 1e-10)


def test_a_check_of_the_data_hides_no_loss_that_is_no_mean():
    """At weights of zero it looks like one, and other data fail the user's check."""
    x = np.random.RandomState(0).rand(8, 3)
    x /= x.sum(1, keepdims=True)
    w = keras.Variable(np.zeros(3), dtype="float64", name="w")
    rate = far.Hyperparameter(0.0, dtype="float64", name="rate")

    def inner(batch):
        sums = tf.reduce_sum(batch, axis=-1)
        tf.debugging.assert_near(sums, tf.ones_like(sums))
        scores = tf.linalg.matvec(batch, tf.convert_to_tensor(w))
        return tf.math.log(tf.reduce_mean(tf.exp(scores)))

    problem = far.BilevelProblem(
        *(inner, lambda: tf.reduce_sum(w.value), [w], far.GradientDescent(rate)),
        *([rate], x),
    )
    mode = far.ReverseHG(jit_compile=False)
    with pytest.raises(ValueError, match="`inner_objective` must be a mean"):
        mode.compute(problem, 1, strategy=mirrored(2))
