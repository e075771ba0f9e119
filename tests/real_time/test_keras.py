"""RealTimeModel where users meet it: as a Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(22, 3)
Y = X.sum(axis=1, keepdims=True) + 0.3 * RANDOM.randn(22, 1)
JUDGED = (X[16:], Y[16:])
TRAIN = (X[:16], Y[:16])
DATA = tf.data.Dataset.from_tensor_slices(TRAIN)


@pytest.fixture(autouse=True)
def _float64():
    keras.config.set_floatx("float64")


def line():
    """Linear regression from fixed weights."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.full((3, 1), 0.25), np.full(1, 0.5)])
    return model


def tuned(rate=0.02, model=None, loss="mse", compiled=None, **options):
    """A RealTimeModel, and the learning rate that it tunes."""
    rate = hyper(rate, "rate")
    options = {
        "hyper_optimizer": keras.optimizers.SGD(2.0**-10),
        "update_every": 2,
        "hyper_data": JUDGED,
    } | options
    made = far.RealTimeModel(
        model or line(), [rate], far.Momentum(rate, 0.5), **options
    )
    made.compile(loss=loss, **(compiled or {}))
    return made, rate


def trained(model, data=None, epochs=1):
    data = DATA.batch(4, drop_remainder=True) if data is None else data
    return model.fit(data, epochs=epochs, shuffle=False, verbose=0).history


def assert_same(one, other):
    """Two pairs (model, rate) hold the same."""
    assert_close(one[0].model.weights, other[0].model.weights, 1e-9)
    assert float(one[1]) == pytest.approx(float(other[1]), rel=1e-9)


def judged(model, *others):
    """The mean squared error on the data of the outer objective."""
    weights = others[0] if others else np.ones(len(JUDGED[0]))
    errors = np.square(np.asarray(model(JUDGED[0])) - JUDGED[1])[:, 0]
    return np.mean(weights * errors)


class TestGoingOn:
    """What is kept from one call to the next."""

    def test_a_second_fit_goes_on(self):
        whole, parts = tuned(), tuned()
        trained(whole[0], epochs=2)
        for _ in range(2):
            trained(parts[0])
        assert_same(parts, whole)

    def test_no_epochs(self):
        model, rate = tuned()
        before = float(rate)
        assert trained(model, epochs=0) == {} and float(rate) == before
        trained(model)
        assert trained(model, epochs=0) == {} and model.divergence is None

    @pytest.mark.thorough
    def test_a_second_compile_goes_on(self):
        whole, parts = tuned(), tuned()
        trained(whole[0], epochs=2)
        trained(parts[0])
        parts[0].compile(loss="mse", metrics=["mae"])
        assert "mae" in trained(parts[0])
        assert_same(parts, whole)

    def test_batches_of_another_size(self):
        """The step is made anew for them; XLA would be wrong there."""
        two, one = tuned(), tuned()
        fixed, uneven = DATA.batch(4, drop_remainder=True), DATA.batch(5)
        trained(two[0], fixed)
        trained(two[0], uneven)
        trained(two[0], fixed)
        trained(one[0], fixed.concatenate(uneven).concatenate(fixed))
        assert_same(two, one)

    def test_xla_is_refused_for_them(self):
        model, _ = tuned(compiled={"jit_compile": True})
        trained(model)
        assert model.status.compiler == "xla"
        with pytest.raises(ValueError, match="Batches differ in size"):
            trained(model, DATA.batch(5))

    def test_restart(self):
        """The same run again; without the outer optimizer's memory."""
        model, rate = tuned()
        start = model.get_weights()
        first = trained(model, epochs=2)
        assert first["outer_value"][0] != first["outer_value"][1]
        model.model.set_weights(start[1:])
        rate.assign(start[0])
        model.restart()
        assert trained(model, epochs=2) == first

    def test_the_first_outer_value_is_that_of_the_start(self):
        model, _ = tuned(update_every=3)
        short = DATA.take(4).batch(4)
        for _ in range(2):
            start = judged(model.model)
            with pytest.warns(UserWarning, match="has not tuned"):
                assert trained(model, short)["outer_value"] == [pytest.approx(start)]
            model.set_weights([w + 0.5 for w in model.get_weights()])

    @pytest.mark.parametrize(
        "by", in_tiers(["set_weights", "load_weights"], ["load_weights"])
    )
    def test_new_weights_begin_a_new_run(self, by, tmp_path):
        """Tangents, slots and counters belong to the weights they came with."""
        used, fresh = tuned(), tuned()
        trained(used[0])
        if by == "set_weights":
            used[0].set_weights(fresh[0].get_weights())
        else:
            fresh[0].save_weights(tmp_path / "a.weights.h5")
            used[0].load_weights(tmp_path / "a.weights.h5")
        for model, _ in (used, fresh):
            trained(model)
        assert_same(used, fresh)

    def test_callbacks_that_put_back_the_best_weights(self):
        """Without a warning; and the next fit begins a new run there."""
        used, fresh = tuned(), tuned()
        best = keras.callbacks.EarlyStopping(
            "outer_value", mode="max", patience=9, restore_best_weights=True
        )
        used[0].fit(DATA.batch(4), epochs=3, shuffle=False, verbose=0, callbacks=[best])
        trained(fresh[0], DATA.batch(4))
        assert_same(used, fresh)
        fresh[0].set_weights(used[0].get_weights())
        for model, _ in (used, fresh):
            trained(model)
        assert_same(used, fresh)

    def test_run_eagerly(self):
        one, other = tuned(), tuned(compiled={"run_eagerly": True})
        for model, _ in (one, other):
            trained(model)
        assert_same(one, other)


@pytest.mark.parametrize("verbose", in_tiers([1, "auto", 0, 2], [1, 0]))
def test_the_wait_is_told_above_the_bar(verbose, capsys):
    model, _ = tuned()
    # Sizes of no other test's batches, which would have compiled the same.
    data = DATA.batch({1: 3, "auto": 2}.get(verbose, 4), drop_remainder=True)
    for epochs in (1, 2):  # Of which only the first waits.
        model.fit(data, epochs=epochs, shuffle=False, verbose=verbose)
    told = capsys.readouterr().out
    has_bar = verbose in (1, "auto")
    assert told.count("tracing …") == told.count("compiling … (about ") == has_bar
    if has_bar:
        assert told.index("tracing …") < told.index("compiling …") < told.index("loss")


class TestOutputsAndWeights:
    @pytest.mark.parametrize("kind", in_tiers(["list", "dict"], ["dict"]))
    def test_outputs(self, kind):
        """Two outputs of which the first is judged equal one output alone."""
        inputs = keras.Input((3,))
        first = keras.layers.Dense(1, name="first")
        second = keras.layers.Dense(1, name="second")
        if kind == "list":
            outputs = [first(inputs), second(inputs)]
        else:
            outputs = {"a": first(inputs), "b": second(inputs)}

        def by_output(one, other):
            return [one, other] if kind == "list" else {"a": one, "b": other}

        model = keras.Model(inputs, outputs)
        first.set_weights(line().get_weights())
        x, y = JUDGED
        pair = tuned(
            model=model,
            loss=by_output("mse", "mse"),
            hyper_loss=by_output("mse", None),
            hyper_data=(x, by_output(y, -y)),
        )
        alone = tuned()
        pair[0].fit(
            TRAIN[0],
            by_output(TRAIN[1], -TRAIN[1]),
            batch_size=4,
            shuffle=False,
            verbose=0,
        )
        trained(alone[0])
        assert_close(first.get_weights(), alone[0].model.get_weights(), 1e-9)
        assert float(pair[1]) == pytest.approx(float(alone[1]), rel=1e-9)

    @pytest.mark.parametrize(
        "hyper_loss",
        [None, "mse", keras.losses.MeanSquaredError, lambda y, p: (y - p) ** 2],
        ids=["none", "name", "object", "callable"],
    )
    def test_weights_of_hyper_data(self, hyper_loss):
        if isinstance(hyper_loss, type):
            hyper_loss = hyper_loss()
        weights = np.arange(1.0, 7.0)
        model, _ = tuned(hyper_loss=hyper_loss, hyper_data=(*JUDGED, weights))
        history = trained(model)
        # The last update was after the last step, and moved λ only.
        expected = judged(model.model, weights)
        assert history["outer_value"][-1] == pytest.approx(expected)

    def test_sample_weights_reach_loss_and_metrics(self):
        weights = np.linspace(0.0, 2.0, 16)
        model, _ = tuned(
            hyper_optimizer=keras.optimizers.SGD(0.0),
            compiled={"weighted_metrics": ["mae"]},
        )
        plain = line()
        plain.compile(
            keras.optimizers.SGD(0.02, 0.5), loss="mse", weighted_metrics=["mae"]
        )
        found, expected = (
            one.fit(
                *TRAIN,
                sample_weight=weights,
                batch_size=4,
                shuffle=False,
                epochs=2,
                verbose=0,
            ).history
            for one in (model, plain)
        )
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-6)
        assert_close(model.model.weights, plain.weights, 1e-6)


class TestDivergence:
    def test_after_the_last_update(self):
        model, rate = tuned(1e6, update_every=100)
        start = model.model.get_weights()
        with pytest.warns(UserWarning) as warned:
            trained(model, epochs=20)
        assert "diverged by step 80" in str(warned[0].message)
        assert_close(model.model.get_weights(), start, 0)
        assert float(rate) == 1e6
        assert isinstance(model.divergence, far.NonFiniteError)

    def test_above_the_limit_after_the_last_update(self):
        model, _ = tuned(3.0, update_every=100, outer_limit=50.0)
        start = model.model.get_weights()
        with pytest.warns(UserWarning, match="outer_limit=50"):
            trained(model, epochs=2)
        assert_close(model.model.get_weights(), start, 0)

    def test_of_train_on_batch(self):
        model, _ = tuned(1e6)
        start = model.model.get_weights()
        with pytest.warns(UserWarning, match="RealTimeModel stops"):
            for _ in range(40):
                model.train_on_batch(*TRAIN)
                if model.divergence:
                    break
        assert all(np.isfinite(w).all() for w in model.model.get_weights())
        assert len(start) == 2

    def test_what_was_loaded_before_is_kept(self):
        """Not what was good in the fit before."""
        model, rate = tuned()
        trained(model)
        loaded = [np.full((3, 1), 0.3), np.ones(1)]
        model.model.set_weights(loaded)
        rate.assign(1e200)
        with pytest.warns(UserWarning, match="no update had been made"):
            trained(model, epochs=3)
        assert_close(model.model.get_weights(), loaded, 0)
        # Slots and tangents are zero: it goes on as a new run does.
        rate.assign(0.02)
        fresh = tuned()
        fresh[0].model.set_weights(loaded)
        for one in (model, fresh[0]):
            trained(one)
        assert_same((model, rate), fresh)

    def test_nothing_moves_between_it_and_the_stop(self):
        """Within one execution of several steps."""
        model, rate = tuned(
            1e200,
            update_every=1,
            hyper_optimizer=keras.optimizers.SGD(1.0, clipvalue=1e-3),
            compiled={"steps_per_execution": 16},
        )
        with pytest.warns(UserWarning, match="no update had been made"):
            trained(model, epochs=4)
        assert int(model._training.carried.outer_step) <= 4
        assert float(rate) == 1e200


class TestErrors:
    @pytest.mark.parametrize(
        ("hyper_data", "message"),
        [
            (X, "must be arrays"),
            ((X,), "must be arrays"),
            ("validation", "must be arrays"),
            ((X.tolist(), Y.tolist()), "must be arrays"),
            ((X[:0], Y[:0]), "must not be empty"),
            ((row for row in X), "must be arrays"),
            ((X, Y[:3]), "must have one first dimension.*22, 3.*3, 1"),
            ((X, Y[:1]), "must have one first dimension"),
            ((X, Y, np.ones(3)), "must have one first dimension"),
        ],
    )
    def test_hyper_data(self, hyper_data, message):
        with pytest.raises(ValueError, match=f"`hyper_data` {message}"):
            tuned(hyper_data=hyper_data)

    def test_hyper_data_of_a_dataset(self):
        model, _ = tuned(hyper_data=tf.data.Dataset.from_tensors(X))
        with pytest.raises(ValueError, match="`hyper_data` must be arrays"):
            trained(model)
        model, _ = tuned(hyper_data=DATA.take(0).batch(4))
        with pytest.raises(ValueError, match="`hyper_data` ends before step 0"):
            trained(model)

    def test_hyper_data_that_are_not_finite(self):
        x, y = JUDGED
        model, _ = tuned(hyper_data=(x, np.full_like(y, np.nan)))
        with pytest.raises(far.NonFiniteError, match="`hyper_data` is nan before"):
            trained(model)

    def test_hyper_data_that_end(self):
        x, y = (tf.constant(part.reshape(2, 3, -1)) for part in JUDGED)
        model, _ = tuned(hyper_data=lambda step: (x[step], y[step]), update_every=1)
        with pytest.raises(ValueError, match="`hyper_data` ends before step 2"):
            trained(model)

    def test_a_schedule_that_ends(self):
        rates = hyper([0.1, 0.2, 0.3], "rates")
        model = far.RealTimeModel(
            line(),
            [rates],
            far.GradientDescent(lambda step: tf.convert_to_tensor(rates)[step]),
            hyper_data=JUDGED,
        )
        model.compile(loss="mse")
        with pytest.raises(ValueError, match=r"`learning_rate` .*ends before step 3"):
            trained(model)

    @pytest.mark.parametrize("limit", ["a", [1.0], float("nan"), True])
    def test_outer_limit(self, limit):
        with pytest.raises(ValueError, match="`outer_limit` must be a number"):
            tuned(outer_limit=limit)

    @pytest.mark.parametrize("hypers", [None, hyper(0.1, "rate"), "rate"])
    def test_hyperparameters(self, hypers):
        with pytest.raises(ValueError, match="`hyperparameters` must be"):
            far.RealTimeModel(line(), hypers, far.GradientDescent(0.1))

    @pytest.mark.parametrize("name", ["train_step", "compute_loss"])
    def test_models_that_train_in_their_own_way(self, name):
        own = type("Own", (keras.Sequential,), {name: lambda self, *args: 0.0})
        model = own([keras.Input((3,)), keras.layers.Dense(1)])
        with pytest.raises(ValueError, match=f"must not have a `{name}`"):
            tuned(model=model)

    def test_it_is_not_saved_whole(self, tmp_path):
        model, _ = tuned()
        with pytest.raises(NotImplementedError, match=r"tuned\.model\.save"):
            model.save(tmp_path / "a.keras")
        model.model.save(tmp_path / "b.keras")


class TestCallbacks:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (keras.callbacks.ReduceLROnPlateau, "an `optimizer`.*hyper_optimizer"),
            (
                lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
                "an `optimizer`.*far.Schedule",
            ),
            (
                lambda: keras.callbacks.BackupAndRestore("backup"),
                "slots and tangents .* are not saved.*save_weights_only",
            ),
        ],
    )
    def test_those_that_are_refused(self, make, message):
        model, _ = tuned()
        callback = make()
        with pytest.raises(ValueError, match=f"{type(callback).__name__}, .*{message}"):
            model.fit(*TRAIN, verbose=0, callbacks=callback)
        assert model.status is None

    def test_early_stopping_knows_that_lower_is_better(self):
        """It stops at the first epoch that is above one before."""
        model, _ = tuned()
        stopping = keras.callbacks.EarlyStopping("outer_value", patience=1)
        values = trained_with(model, stopping)["outer_value"]
        assert len(values) == 3 and values[0] > values[2] > values[1]
        model, _ = tuned()
        stopping = keras.callbacks.EarlyStopping("outer_value", 1e3, patience=2)
        assert len(trained_with(model, stopping)["outer_value"]) == 3


def trained_with(model, callback):
    data = DATA.batch(4, drop_remainder=True)
    options = {"shuffle": False, "verbose": 0, "callbacks": [callback]}
    return model.fit(data, epochs=4, **options).history


def test_data_that_are_not_finite():
    model, rate = tuned(update_every=1)
    start = model.model.get_weights()
    x, y = TRAIN
    bad = np.where(np.arange(16)[:, None] == 1, np.nan, y)
    with pytest.warns(UserWarning, match="`y` of `fit` holds NaN.* no update had been"):
        model.fit(x, bad, batch_size=16, shuffle=False, verbose=0)
    assert_close(model.model.get_weights(), start, 0)
    assert float(rate) == 0.02


def test_a_model_that_trains_nothing():
    frozen = line()
    frozen.trainable = False
    with pytest.raises(ValueError, match="`model` must have weights to train"):
        tuned(model=frozen)
