"""Batches split over replicas, against one device."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, counted, hyper, in_tiers
from tests.replicated import minibatches, mirrored, outcome

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}

# Modes, precisions and numbers of replicas; the first two are in the first tier.
CASES = [
    (far.ReverseHG(jit_compile=False), "float64", (1, 2, 4)),
    (far.ForwardHG(jit_compile=False, spread_tangents=True), "float64", (2, 4)),
    (far.ReverseHG(jit_compile=False), "float32", (2, 4)),
    (far.ReverseHG(jit_compile=True), "float64", (2,)),
    (far.ReverseHG(jit_compile=False, checkpointing="sqrt"), "float64", (2, 4)),
    (far.ReverseHG(checkpointing=2, truncation=4), "float64", (4,)),
    (far.ForwardHG(jit_compile=False), "float64", (2, 4)),
    (far.ForwardHG(jit_compile=True, chunk_size=5), "float32", (4,)),
    (far.ForwardHG(jit_compile=True, spread_tangents=True), "float32", (2,)),
]


class TestModes:
    """Every mode, with shards of different sizes."""

    @pytest.mark.parametrize("mode, dtype, counts", in_tiers(CASES, CASES[:2]), ids=str)
    def test_as_on_one_device(self, mode, dtype, counts):
        problem = minibatches(far.Adam, dtype)
        expected = outcome(problem, mode, 0)
        for count in counts:
            assert_close(outcome(problem, mode, count), expected, TOLERANCE[dtype])

    @pytest.mark.thorough
    def test_real_time(self):
        """RTHO: three updates, tangents kept between them."""

        def tuned(count, **options):
            problem = minibatches(lambda rate: far.Momentum(rate, 0.9))
            tuner = far.HyperOptimizer(
                problem,
                far.ForwardHG(jit_compile=False, **options),
                keras.optimizers.Adam(0.01),
                strategy=mirrored(count),
            )
            for _ in range(3):
                result = tuner.run(2, mode="online")
            tangents = tf.nest.flatten(result.tangents)
            return [*tuner.get_weights(), *result.state.variables, *tangents]

        expected = tuned(0)
        assert_close(tuned(2), expected, 1e-10)
        assert_close(tuned(4, spread_tangents=True), expected, 1e-10)

    @pytest.mark.thorough
    def test_fewer_examples_than_replicas(self):
        setting = Classification()
        data = [array[:2] for array in setting.train]
        problem = setting.bilevel(far.GradientDescent(0.1), inner_data=tuple(data))
        mode = far.ReverseHG()
        expected = outcome(problem, mode, 0)
        assert_close(outcome(problem, mode, 4), expected, 1e-10)

    @pytest.mark.thorough
    def test_batches_of_unknown_size(self):
        """The last batch of an epoch is smaller: 5, 5, 2."""
        setting = Classification()
        data = tf.data.Dataset.from_tensor_slices(setting.train).batch(5).repeat()
        problem = setting.bilevel(far.Momentum(0.1, 0.9), inner_data=data)
        mode = far.ReverseHG()
        expected = outcome(problem, mode, 0)
        for count in (2, 3):
            assert_close(outcome(problem, mode, count), expected, 1e-10)

    def test_without_examples(self):
        """What has no batch is not split."""
        w = keras.Variable(np.ones(3), dtype="float64", name="w")
        scale = hyper(0.5, "scale")
        problem = far.BilevelProblem(
            lambda: tf.reduce_sum((w - scale) ** 2),
            lambda: tf.reduce_sum(w**3),
            [w],
            far.GradientDescent(0.1),
            [scale],
        )
        mode = far.ReverseHG()
        assert_close(outcome(problem, mode, 2), outcome(problem, mode, 0), 1e-12)

    def test_bare_variables(self):
        """A tf.Variable is assigned in a run, on whichever replica."""
        x = np.random.RandomState(0).randn(7, 3)
        w, scale = tf.Variable(np.zeros(3)), tf.Variable(np.float64(0.5))
        problem = far.BilevelProblem(
            lambda x: (
                tf.reduce_mean((tf.linalg.matvec(x, w) - 1.0) ** 2)
                + scale * tf.reduce_sum(w * w)
            ),
            lambda x: tf.reduce_mean((tf.linalg.matvec(x, w) + 1.0) ** 2),
            [w],
            far.GradientDescent(0.1),
            [scale],
            x,
            x,
        )
        mode = far.ReverseHG()
        assert_close(outcome(problem, mode, 3), outcome(problem, mode, 0), 1e-10)

    @pytest.mark.thorough
    def test_line_search(self):
        """The dynamics try step lengths on the whole batch."""
        problem = minibatches(
            lambda rate: far.BacktrackingGradientDescent(rate, tau=0.5)
        )
        for mode in (far.ReverseHG(), far.ForwardHG()):
            expected = outcome(problem, mode, 0)
            assert_close(outcome(problem, mode, 2), expected, 1e-10)

    def test_the_second_call_does_not_trace(self):
        setting = Classification()
        setting.inner, calls = counted(setting.inner)
        problem = setting.bilevel(far.GradientDescent(0.1))
        strategy = mirrored(2)
        far.ReverseHG().compute(problem, 3, strategy=strategy)
        before = len(calls)
        far.ReverseHG().compute(problem, 3, strategy=strategy)
        assert len(calls) == before


class TestKerasLosses:
    """Where Keras knows of replicas its losses divide by their number."""

    def problem(self):
        setting = Classification()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64")
        setting.inner = lambda batch: loss(batch[1], setting.model(batch[0]))
        setting.outer = lambda batch: loss(batch[1], setting.model(batch[0]))
        rate = setting.hyper(0.1, "rate")
        return far.BilevelProblem(
            setting.inner,
            setting.outer,
            setting.model,
            far.Momentum(rate, 0.9),
            [rate],
            setting.train,
            setting.validation,
        )

    def test_the_loss_is_that_of_one_device(self):
        strategy = mirrored(2)
        problem = self.problem()
        mode = far.ReverseHG(jit_compile=False)
        expected = outcome(problem, mode, 0)
        assert_close(outcome(problem, mode, 2), expected, 1e-10)
        with strategy.scope():  # Even where one device is asked for.
            assert_close(outcome(problem, mode, 0), expected, 1e-12)
            tuner = far.HyperOptimizer(problem, mode, strategy=strategy)
            result = tuner.run(6)
        assert_close(result.hypergradients, expected[1:2], 1e-10)
