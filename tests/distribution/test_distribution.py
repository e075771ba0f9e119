"""Batches split over replicas, against one device."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import (
    Classification,
    assert_close,
    counted,
    hyper,
    in_tiers,
    normalized_network,
)

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def mirrored(count):
    """A strategy over logical devices; `None` for 0."""
    if not count:
        return None
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


def minibatches(dynamics, dtype="float64", **options):
    """Batches of 7 of 12 examples, which no number of replicas here divides."""
    setting = Classification(dtype)
    rate = setting.hyper(0.1, "rate")
    options = {"inner_data": far.Batches(setting.train, batch_size=7, seed=1)} | options
    return setting.bilevel(dynamics(rate), [rate], **options)


def outcome(problem, mode, count, num_steps=6):
    result = mode.compute(problem, num_steps, strategy=mirrored(count))
    return [result.outer_value, *result.hypergradients, *result.state.variables]


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


def test_the_device_of_the_caller_counts():
    problem = minibatches(far.GradientDescent)
    for name in ("CPU:1", "CPU:3"):
        with tf.device(name):
            result = far.ReverseHG(jit_compile=False).compute(problem, 2)
        assert result.state.variables[0].device.endswith(name)


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

    def test_an_optimizer_of_another_scope(self):
        adam = keras.optimizers.Adam()
        outside = Classification().bilevel(far.GradientDescent(0.1))
        with mirrored(2).scope():
            inside = Classification().bilevel(far.GradientDescent(0.1))
            other = keras.optimizers.Adam()
        for problem, optimizer in ((inside, adam), (outside, other)):
            with pytest.raises(ValueError, match="must both be made in one"):
                far.HyperOptimizer(problem, optimizer=optimizer)

    @pytest.mark.thorough
    def test_divergence_is_found(self):
        problem = minibatches(far.GradientDescent)
        problem.hyperparameters[0].assign(1e200)
        with pytest.raises(far.NonFiniteError, match="first appears in step"):
            far.ReverseHG().compute(problem, 6, strategy=mirrored(2))


class TestKerasLosses:
    """Where Keras knows of replicas its losses divide by their number."""

    def problem(self):
        setting = Classification()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, dtype="float64")
        setting.inner = lambda batch: (
            loss(batch[1], setting.model(batch[0])) + 0.0 * setting.penalty
        )
        setting.outer = lambda batch: loss(batch[1], setting.model(batch[0]))
        rate = setting.hyper(0.1, "rate")
        problem = setting.bilevel(far.Momentum(rate, 0.9), [rate])
        problem.hyperparameters = problem.hyperparameters[:1]
        return problem

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


def test_hyperparameters_in_a_scope_are_numbers():
    with mirrored(2).scope():
        rate = far.Hyperparameter(0.5, name="rate")
        vector = far.Hyperparameter([0.5, 0.25], name="vector")
    assert float(rate) == 0.5
    with pytest.raises(TypeError):
        float(vector)
