"""What cannot be split over replicas, and what is said of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, hyper
from tests.replicated import minibatches, mirrored


class TestErrors:
    def refused(self, *words, inner=None, outer=None, error=ValueError, **options):
        setting = Classification()
        setting.inner = inner(setting) if inner else setting.inner
        setting.outer = outer(setting) if outer else setting.outer
        problem = setting.bilevel(far.GradientDescent(0.1), **options)
        with pytest.raises(error) as caught:
            far.ReverseHG().compute(problem, 2, strategy=mirrored(2))
        for word in words:
            assert word in str(caught.value)

    @staticmethod
    def weighted(reduce):
        def objective(setting):
            def inner(batch):
                x, y, index = batch
                losses = tf.reduce_sum((setting.model(x) - y) ** 2, axis=-1)
                weights = tf.gather(tf.convert_to_tensor(setting.weights), index)
                return reduce(losses, weights) + 0.0 * setting.penalty

            return inner

        return objective

    def test_a_sum_is_no_mean(self):
        total = self.weighted(lambda losses, weights: tf.reduce_sum(weights * losses))
        self.refused("`inner_objective`", "it is a sum", "Received", inner=total)

    def test_weights_that_are_normalized_within_a_batch(self):
        normalized = self.weighted(
            lambda losses, weights: (
                tf.reduce_sum(weights * losses) / tf.reduce_sum(weights)
            )
        )
        self.refused("`inner_objective`", "sum of their weights", inner=normalized)

    def test_what_is_a_mean_at_the_start_only(self):
        """With weights that are all one the sum of weights is the batch's size."""
        normalized = self.weighted(
            lambda losses, weights: (
                tf.reduce_sum(weights * losses) / tf.reduce_sum(weights)
            )
        )

        def objective(setting):
            setting.weights.assign(np.ones(12))
            return normalized(setting)

        self.refused("`inner_objective`", "sum of their weights", inner=objective)

    def test_a_real_time_model(self):
        with mirrored(2).scope(), pytest.raises(ValueError, match="one device"):
            far.RealTimeModel(keras.Sequential(), [], far.Adam(0.1))

    def test_the_outer_objective_too(self):
        def objective(setting):
            return lambda batch: tf.reduce_sum(
                (setting.model(batch[0]) - batch[1]) ** 2
            )

        self.refused("`outer_objective`", "it is a sum", outer=objective)

    def test_tensors_of_a_batch_that_do_not_go_together(self):
        x, y, index = Classification().train

        def objective(setting):
            return lambda batch: Classification.inner(setting, batch[:3])

        data = (x, y, index, np.zeros((3, 2)))
        self.refused("first dimension", "(12, 5)", inner=objective, inner_data=data)

    def test_synchronized_normalization(self):
        strategy = mirrored(2)
        layer = keras.layers.BatchNormalization(synchronized=True, dtype="float64")
        layer.build((None, 4))
        rate = hyper(0.1, "rate")
        x = np.random.RandomState(1).randn(6, 4)
        problem = far.BilevelProblem(
            lambda x: tf.reduce_mean((layer(x, training=True) - 1.0) ** 3),
            lambda x: tf.reduce_mean(layer(x) ** 2),
            layer,
            far.GradientDescent(rate),
            [rate],
            x,
            x,
        )
        with pytest.raises(ValueError, match="synchronized=True"):
            far.ReverseHG().compute(problem, 2, strategy=strategy)

    def test_reversible(self):
        problem = minibatches(lambda rate: far.Momentum(rate, 0.9))
        with pytest.raises(ValueError, match="checkpointing"):
            far.ReversibleHG().compute(problem, 2, strategy=mirrored(2))

    def test_other_strategies(self):
        problem = minibatches(far.Adam)
        for strategy in (tf.distribute.get_strategy(), "mirrored"):
            with pytest.raises(ValueError, match="MultiWorkerMirroredStrategy"):
                far.ReverseHG().compute(problem, 2, strategy=strategy)

    @pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.SGD])
    def test_an_optimizer_of_another_scope(self, kind):
        """One without slots, too, of which Keras would say so at its first update."""
        outside = Classification().bilevel(far.GradientDescent(0.1))
        with mirrored(2).scope():
            inside = Classification().bilevel(far.GradientDescent(0.1))
            other = kind()
        for problem, optimizer in ((inside, kind()), (outside, other)):
            with pytest.raises(ValueError, match="must both be made in one"):
                far.HyperOptimizer(problem, optimizer=optimizer)

    @pytest.mark.thorough
    def test_divergence_is_found(self):
        problem = minibatches(far.GradientDescent)
        problem.hyperparameters[0].assign(1e200)
        with pytest.raises(far.NonFiniteError, match="first appears in step"):
            far.ReverseHG().compute(problem, 6, strategy=mirrored(2))
