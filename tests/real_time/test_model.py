"""RealTimeModel: a Keras model that tunes while it trains."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers

UPDATE_EVERY = 3
some_stay_fixed = pytest.mark.filterwarnings(
    "ignore:`hyperparameters` does not list:UserWarning"
)


@pytest.fixture(autouse=True)
def _float64():
    keras.config.set_floatx("float64")


def arrays(seed, count):
    random = np.random.RandomState(seed)
    x = random.randn(count, 4)
    return x, (x @ random.randn(4, 3)).argmax(axis=1)


TRAIN, JUDGED, TEST = arrays(0, 22), arrays(1, 9), arrays(2, 7)


class Case:
    """A network with all that a training step may meet, and its hyperparameters."""

    def __init__(self, penalized=True):
        self.rate = hyper(0.05, "rate")
        self.mass = hyper(0.5, "mass")
        self.penalty = hyper(0.01, "penalty")
        self.hypers = [self.rate, self.mass, self.penalty]
        self.model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(
                    5, activation="tanh", kernel_regularizer=self._regularizer
                ),
                keras.layers.BatchNormalization(momentum=0.7),
                keras.layers.Dropout(0.2, seed=1),
                keras.layers.Dense(3),
            ]
        )
        random = np.random.RandomState(5)
        self.model.set_weights(
            [0.1 + random.rand(*w.shape) for w in self.model.get_weights()]
        )
        self.dynamics = far.Momentum(self.rate, self.mass)
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def _regularizer(self, kernel):
        return self.penalty * tf.reduce_sum(tf.square(kernel))

    def real_time(self, hypers=None, hyper_data=JUDGED, compiled=None, **options):
        options = {"update_every": UPDATE_EVERY} | options
        optimizer = keras.optimizers.SGD(0.0625, momentum=0.5)
        tuned = far.RealTimeModel(
            self.model,
            self.hypers if hypers is None else hypers,
            self.dynamics,
            options.pop("hyper_optimizer", optimizer),
            hyper_data=hyper_data,
            **options,
        )
        tuned.compile(
            loss=options.pop("loss", self.loss),
            metrics=["accuracy"],
            **(compiled or {}),
        )
        return tuned

    def online(self, inner_data, outer_data, updates):
        """The path of `HyperOptimizer.fit(mode="online")`."""

        def inner(batch):
            x, y = batch
            loss = self.loss(y, self.model(x, training=True))
            return loss + sum(self.model.losses)

        def outer(batch):
            x, y = batch
            return self.loss(y, self.model(x, training=False))

        problem = far.BilevelProblem(
            inner,
            outer,
            self.model,
            self.dynamics,
            self.hypers,
            inner_data=inner_data,
            outer_data=outer_data,
        )
        tuner = far.HyperOptimizer(
            problem,
            far.ForwardHG(jit_compile=False),
            keras.optimizers.SGD(0.0625, momentum=0.5),
        )
        path = []
        for _ in range(updates):
            path.append(float(tuner.run(UPDATE_EVERY, mode="online").outer_value))
        return path, tuner.get_weights()


def dataset(data, size):
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def hyper_kinds():
    batches = far.Batches(JUDGED, batch_size=4, seed=2)
    return {
        "arrays": (JUDGED, JUDGED),
        "Dataset": (dataset(JUDGED, 5), dataset(JUDGED, 5)),
        "callable": (lambda step: batches(2 * step), lambda step: batches(2 * step)),
    }


PATHS = [("arrays", 1), ("Dataset", 4), ("callable", 1)]


@pytest.mark.parametrize(("kind", "steps_per_execution"), in_tiers(PATHS, PATHS[1:2]))
def test_the_path_is_that_of_the_hyper_optimizer(kind, steps_per_execution):
    """Five steps an epoch, the last of them smaller; an update every three."""
    ours, theirs = hyper_kinds()[kind]
    one, other = Case(), Case()
    tuned = one.real_time(
        hyper_data=ours, compiled={"steps_per_execution": steps_per_execution}
    )
    history = tuned.fit(dataset(TRAIN, 5), epochs=6, verbose=0, shuffle=False).history
    path, values = other.online(dataset(TRAIN, 5).repeat(), theirs, updates=10)
    assert_close(one.hypers, values, 1e-9)
    assert history["rate"][-1] == pytest.approx(float(values[0]), rel=1e-9)
    # 5, 10, ..., 30 steps: the updates after 3, 9, 15, 18, 24 and 30 are seen.
    seen = [path[k] for k in (0, 2, 4, 5, 7, 9)]
    np.testing.assert_allclose(history["outer_value"], seen, rtol=1e-9)
    # The model itself is trained, its statistics too.
    assert_close(one.model.weights, other.model.weights, 1e-9)
    np.testing.assert_allclose(one.model(TEST[0]), tuned(TEST[0]), rtol=1e-12)


@pytest.mark.thorough
def test_xla_takes_the_same_path():
    """Without Dropout, whose masks XLA draws in another way."""
    values = []
    for jit_compile in (False, True):
        case = Case()
        case.model.layers[2].rate = 0.0
        tuned = case.real_time(compiled={"jit_compile": jit_compile})
        data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(5, drop_remainder=True)
        tuned.fit(data, epochs=4, verbose=0, shuffle=False)
        values.append([*case.hypers, *case.model.trainable_weights])
    assert_close(values[1], values[0], 1e-9)


@some_stay_fixed
@pytest.mark.parametrize("hypers", [[], None], ids=["none", "frozen"])
def test_the_weights_are_those_of_keras(hypers):
    """Without hyperparameters, and with an outer learning rate of zero."""
    one, other = Case(), Case()
    optimizer = keras.optimizers.SGD(0.0)
    tuned = one.real_time(
        hypers,
        hyper_data=JUDGED if hypers is None else None,
        hyper_optimizer=optimizer,
    )
    data = dataset(TRAIN, 5)
    logs = tuned.fit(
        data, validation_data=TEST, epochs=4, verbose=0, shuffle=False
    ).history
    other.model.compile(
        keras.optimizers.SGD(0.05, momentum=0.5), loss=other.loss, metrics=["accuracy"]
    )
    expected = other.model.fit(
        data, validation_data=TEST, epochs=4, verbose=0, shuffle=False
    ).history
    # Keras keeps its learning rate in float32.
    assert_close(one.model.weights, other.model.weights, 1e-6)
    for name, values in expected.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-6)
    extra = set(logs) - set(expected)
    assert extra == (
        {"outer_value", "rate", "mass", "penalty"} if hypers is None else set()
    )


@some_stay_fixed
def test_fit_on_arrays_with_sample_weights():
    """Keras' own shuffling, class weights and the like pass through."""
    one, other = Case(), Case()
    weights = np.linspace(0.5, 1.5, len(TRAIN[0]))
    tuned = one.real_time([])
    for case, model in ((one, tuned), (other, other.model)):
        keras.utils.set_random_seed(3)
        if case is other:
            model.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss=case.loss)
        model.fit(*TRAIN, batch_size=8, epochs=2, sample_weight=weights, verbose=0)
    assert_close(one.model.weights, other.model.weights, 1e-6)


def test_logs_reach_the_callbacks(tmp_path):
    case = Case()
    tuned = case.real_time()
    path = tmp_path / "log.csv"
    callbacks = [
        keras.callbacks.CSVLogger(path),
        keras.callbacks.EarlyStopping("val_loss", patience=9),
    ]
    history = tuned.fit(
        *TRAIN,
        batch_size=5,
        epochs=2,
        validation_data=TEST,
        callbacks=callbacks,
        verbose=0,
    ).history
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == history["rate"]
    assert [float(row["outer_value"]) for row in rows] == history["outer_value"]
    assert float(case.rate) == history["rate"][-1] != 0.05
    assert "val_loss" in history
    assert "val_outer_value" not in history


def test_weights_and_hyperparameters_are_saved(tmp_path):
    one, other = Case(), Case()
    tuned, fresh = one.real_time(), other.real_time()
    tuned.fit(*TRAIN, epochs=1, batch_size=5, verbose=0)
    path = tmp_path / "some.weights.h5"
    tuned.save_weights(path)
    fresh.load_weights(path)
    assert_close(other.hypers, one.hypers, 0)
    assert_close(other.model.weights, one.model.weights, 0)
    np.testing.assert_allclose(
        fresh.evaluate(*TEST, verbose=0), tuned.evaluate(*TEST, verbose=0)
    )
    np.testing.assert_allclose(fresh.predict(TEST[0], verbose=0), tuned(TEST[0]))


def test_train_on_batch():
    one, other = Case(), Case()
    tuned = one.real_time()
    batches = list(dataset(TRAIN, 5).take(4)) * 2
    for x, y in batches:
        logs = tuned.train_on_batch(x, y, return_dict=True)
    again = other.real_time()
    again.fit(dataset(TRAIN, 5).take(4), epochs=2, verbose=0, shuffle=False)
    assert_close(one.hypers, other.hypers, 1e-12)
    assert logs["rate"] == pytest.approx(float(one.rate))


def test_loss_weights_are_tuned():
    """Two outputs; the outer objective is the first one's loss alone."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, activation="tanh")(inputs)
    model = keras.Model(
        inputs, [keras.layers.Dense(1, name="a")(x), keras.layers.Dense(1, name="b")(x)]
    )
    start = model.get_weights()
    x, targets = TRAIN[0], [TRAIN[0][:, :1], TRAIN[0][:, 1:2] ** 2]
    weight = hyper(0.5, "weight")

    tuned = far.RealTimeModel(
        model,
        [weight],
        far.GradientDescent(0.1),
        keras.optimizers.SGD(0.5),
        update_every=4,
        hyper_data=(x, targets),
        hyper_loss=["mse", None],
    )
    tuned.compile(loss=["mse", "mse"], loss_weights=[1.0, weight])
    tuned.fit(x, targets, batch_size=len(x), epochs=4, shuffle=False, verbose=0)

    def trained(value):
        model.set_weights(start)
        for _ in range(4):
            with tf.GradientTape() as tape:
                a, b = model(x)
                loss = tf.reduce_mean(tf.square(a - targets[0]))
                loss += value * tf.reduce_mean(tf.square(b - targets[1]))
            gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
            for w, g in zip(model.trainable_weights, gradients, strict=True):
                w.assign(w - 0.1 * g)
        return float(tf.reduce_mean(tf.square(model(x)[0] - targets[0])))

    width = 1e-5
    slope = (trained(0.5 + width) - trained(0.5 - width)) / (2 * width)
    assert abs(slope) > 1e-4
    np.testing.assert_allclose(0.5 - 0.5 * slope, weight, rtol=1e-7)


class Doubling(keras.constraints.Constraint):
    """Doubles the hyperparameter after each update."""

    def __call__(self, w):
        return 2.0 * w


@some_stay_fixed
def test_divergence_stops_with_the_last_good_update():
    case = Case()
    case.rate.constraint = Doubling()
    frozen = keras.optimizers.SGD(0.0)
    tuned = case.real_time([case.rate], hyper_optimizer=frozen, outer_limit=20.0)
    seen = []

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((logs["outer_value"], logs["rate"]))

    with pytest.warns(UserWarning, match=r"diverged by step .*outer_limit=20"):
        tuned.fit(
            dataset(TRAIN, 5).repeat(),
            epochs=1,
            steps_per_epoch=600,
            shuffle=False,
            verbose=0,
            callbacks=[Recorder()],
        )
    updates = len(seen) // UPDATE_EVERY
    assert len(seen) == UPDATE_EVERY * updates
    assert 3 <= updates < 20
    values = [value for value, _ in seen]
    assert values[-1] > 20 >= max(values[:-1])
    # The last good update was the one before, at the rate before it doubled.
    assert float(case.rate) == 0.05 * 2 ** (updates - 2)
    assert seen[-1][1] == 0.05 * 2 ** (updates - 1)
    loss = case.loss(JUDGED[1], case.model(JUDGED[0], training=False))
    assert float(loss) == pytest.approx(values[-2], rel=1e-12)


@some_stay_fixed
def test_divergence_to_infinity_stops_too():
    case = Case()
    case.rate.constraint = Doubling()
    case.rate.assign(1e100)
    start = [w.copy() for w in case.model.get_weights()]
    frozen = keras.optimizers.SGD(0.0)
    tuned = case.real_time([case.rate], hyper_optimizer=frozen)
    with pytest.warns(UserWarning, match="no update had been made"):
        tuned.fit(*TRAIN, batch_size=5, epochs=9, verbose=0)
    assert isinstance(tuned.divergence, far.NonFiniteError)
    assert_close(case.model.get_weights(), start, 0)  # There was no good update.
    assert float(case.rate) == 1e100


class TestErrors:
    def test_hyper_data_must_be_given(self):
        with pytest.raises(ValueError, match="`hyper_data` must be the data"):
            Case().real_time(hyper_data=None)

    def test_a_model_that_is_not_built(self):
        model = keras.Sequential([keras.layers.Dense(1)])
        with pytest.raises(ValueError, match="`model` must be a built"):
            far.RealTimeModel(model, [], far.GradientDescent(0.1))

    def test_an_optimizer_in_compile(self):
        tuned = far.RealTimeModel(Case().model, [], far.GradientDescent(0.1))
        with pytest.raises(ValueError, match="`compile` takes no optimizer"):
            tuned.compile(keras.optimizers.SGD(0.1), loss="mse")

    def test_dynamics(self):
        with pytest.raises(ValueError, match="`dynamics` must be"):
            far.RealTimeModel(Case().model, [], "adam")

    def test_loss_weights_that_would_go_to_zero(self):
        case = Case()
        tuned = far.RealTimeModel(
            case.model, [case.rate], case.dynamics, hyper_data=JUDGED
        )
        with pytest.raises(ValueError, match="`hyper_loss`"):
            tuned.compile(loss=[case.loss], loss_weights=[case.rate])

    @some_stay_fixed
    def test_a_loss_that_weighs_itself_is_warned_of(self):
        case = Case()
        weight = hyper(0.5, "weight")
        tuned = far.RealTimeModel(
            case.model,
            [weight],
            far.GradientDescent(0.1),
            update_every=1,
            hyper_data=JUDGED,
        )
        tuned.compile(loss=lambda y, p: weight * case.loss(y, p))
        with pytest.warns(UserWarning, match=r"reads \['weight'\] directly"):
            tuned.fit(*TRAIN, verbose=0)

    @some_stay_fixed
    def test_a_hyperparameter_that_nothing_reads(self):
        case = Case()
        tuned = case.real_time([case.rate, hyper(1.0, "unread")])
        with pytest.raises(ValueError, match=r"Nothing depends on.*`unread`"):
            tuned.fit(*TRAIN, verbose=0)

    @pytest.mark.parametrize("value", [0, 1.5, "3"])
    def test_update_every(self, value):
        with pytest.raises(ValueError, match="`update_every` must be an integer"):
            Case().real_time(update_every=value)
