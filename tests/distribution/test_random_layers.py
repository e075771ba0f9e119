"""Layers that draw, and those that normalize by batches, on several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, normalized_network
from tests.replicated import mirrored, outcome


class TestRandomLayers:
    def network_problem(self, *layers):
        x = np.random.RandomState(1).randn(7, 4)
        model = keras.Sequential(
            [
                keras.Input((4,), dtype="float64"),
                keras.layers.Dense(6, "tanh", dtype="float64"),
                *layers,
                keras.layers.Dense(1, dtype="float64"),
            ]
        )
        rate = hyper(0.1, "rate")
        return far.BilevelProblem(
            lambda x: tf.reduce_mean((model(x, training=True) - 1.0) ** 2),
            lambda x: tf.reduce_mean((model(x) + 1.0) ** 2),
            model,
            far.Momentum(rate, 0.5),
            [rate],
            x,
            x,
        )

    @pytest.mark.thorough
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_draws_are_those_of_the_whole_batch(self, jit_compile):
        """Dropout's masks and noise do not depend on the number of replicas."""
        layers = [
            keras.layers.Dropout(0.4, seed=1, dtype="float64"),
            keras.layers.Dropout(0.4, noise_shape=(None, 1), seed=4, dtype="float64"),
            keras.layers.GaussianNoise(0.3, seed=2, dtype="float64"),
            keras.layers.GaussianDropout(0.3, seed=3, dtype="float64"),
        ]
        problem = self.network_problem(*layers)
        mode = far.ReverseHG(jit_compile=jit_compile)
        expected = outcome(problem, mode, 0)
        for count in (3,) if jit_compile else (2, 3):
            assert_close(outcome(problem, mode, count), expected, 1e-10)
        forward = far.ForwardHG(jit_compile=jit_compile)
        assert_close(outcome(problem, forward, 2), expected, 1e-10)

    def drawing(self, draw, data=None):
        """A problem whose inner objective draws, by a callable(seeds, x) -> noise."""
        seeds = keras.random.SeedGenerator(3)
        w = keras.Variable(np.zeros((3, 2)), dtype="float64", name="w")
        rate = hyper(0.1, "rate")
        x = np.random.RandomState(1).randn(6, 3)

        def inner(x):
            return tf.reduce_mean((draw(seeds, x, w) - 1.0) ** 2)

        return far.BilevelProblem(
            inner,
            lambda x: tf.reduce_mean((x @ w + 1.0) ** 2),
            [w],
            far.GradientDescent(rate),
            [rate],
            x if data is None else data(x),
            x,
        )

    def test_noise_of_weights_is_not_cut(self):
        """Of three rows, as the shards have."""

        def draw(seeds, x, w):
            return x @ (w + keras.random.normal((3, 2), dtype="float64", seed=seeds))

        mode = far.ReverseHG()
        for data in (None, lambda x: tf.data.Dataset.from_tensors(x).repeat()):
            problem = self.drawing(draw, data)
            assert_close(outcome(problem, mode, 2), outcome(problem, mode, 0), 1e-10)

    def test_other_draws(self):
        def draw(seeds, x, w):
            shape = (tf.shape(x)[0], 2)
            gamma = keras.random.gamma(shape, 2.0, dtype="float64", seed=seeds)
            kinds = keras.random.categorical(x, 2, seed=seeds)
            return (x @ w) * gamma + tf.cast(kinds, tf.float64)

        mode = far.ReverseHG(jit_compile=False)
        problem = self.drawing(draw)
        assert_close(outcome(problem, mode, 4), outcome(problem, mode, 0), 1e-10)

    def test_draws_that_merge_the_batch_with_another_axis_are_refused(self):
        def draw(seeds, x, w):
            flat = tf.reshape(x @ w, [-1])
            return keras.random.dropout(flat, 0.5, seed=seeds)

        with pytest.raises(
            ValueError, match=r"on_the_share=\[6\], on_the_batch=\[12\]"
        ):
            outcome(self.drawing(draw), far.ReverseHG(), 2)

    @pytest.mark.thorough
    def test_batch_normalization_is_per_replica(self):
        """Against a problem on one device that normalizes each shard by itself."""
        x = np.random.RandomState(1).randn(7, 4)
        model = normalized_network()
        model.layers[2].rate = 0.0
        start = [variable.numpy() for variable in model.variables]
        rate = hyper(0.1, "rate")
        shards = [(x[:3], 3 / 7), (x[3:], 4 / 7)]
        normalization = model.layers[1]

        def loss(x):
            return tf.reduce_mean((model(x, training=True) - 1.0) ** 2)

        def by_shares(x):
            """The mean of losses, and of statistics, by hand."""
            moving = [normalization.moving_mean, normalization.moving_variance]
            before = [tf.convert_to_tensor(v) for v in moving]
            total, after = 0.0, [0.0, 0.0]
            for shard, weight in shards:
                for variable, value in zip(moving, before, strict=True):
                    variable.assign(value)
                total += weight * loss(shard)
                after = [a + weight * v for a, v in zip(after, moving, strict=True)]
            for variable, value in zip(moving, after, strict=True):
                variable.assign(value)
            return total

        def problem(inner):
            for variable, value in zip(model.variables, start, strict=True):
                variable.assign(value)
            return far.BilevelProblem(
                inner,
                lambda x: tf.reduce_mean((model(x) + 1.0) ** 2),
                model,
                far.Momentum(rate, 0.5),
                [rate],
                x,
                x,
            )

        for mode in (far.ReverseHG(), far.ForwardHG()):
            expected = mode.compute(problem(by_shares), 5)
            with pytest.warns(UserWarning, match="normalizes by batches"):
                result = mode.compute(problem(loss), 5, strategy=mirrored(2))
            assert_close(result.hypergradients, expected.hypergradients, 1e-10)
            assert_close(result.state.extra[:2], expected.state.extra[:2], 1e-10)
