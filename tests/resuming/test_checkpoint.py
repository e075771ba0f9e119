"""`far.Checkpoint`: a run that was stopped ends as one that was not, bit for bit.

A stop is an exception here, after which a problem is made anew, as by the next
process; test_killed_runs.py kills processes.
"""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.resuming import encoding
from tests.helpers import in_tiers, normalized_network

STEPS = 3


class Stop(Exception):  # noqa: N818
    """Stands for the end of the process."""


def stop_at(iteration, hook="on_epoch_end"):
    def stop(epoch, logs):
        if epoch == iteration:
            raise Stop

    return keras.callbacks.LambdaCallback(**{hook: stop})


def end_at(iteration):
    """A callback that sets `stop_training`."""

    class End(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training |= epoch == iteration

    return End()


def arrays(seed, *shape):
    return np.random.RandomState(seed).randn(*shape)


def hypers(**values):
    return [
        far.Hyperparameter(value, dtype="float64", name=name)
        for name, value in values.items()
    ]


def ridge(pair, seed=0, name="w", dynamics=None, **data):
    """A small regression with weights, data and dynamics of its own."""
    penalty, rate = pair
    x, y = arrays(seed, 8, 3), arrays(seed + 1, 8)
    w = keras.Variable(np.zeros(3), dtype="float64", name=name)

    def loss(batch):
        x, y = batch
        return tf.reduce_mean((tf.linalg.matvec(x, tf.convert_to_tensor(w)) - y) ** 2)

    data = {"inner_data": (x, y), "outer_data": (x[::-1].copy(), y)} | data
    return far.BilevelProblem(
        lambda batch: loss(batch) + penalty * tf.reduce_sum(w * w),
        loss,
        [w],
        dynamics or far.Momentum(rate, 0.5),
        [penalty, rate],
        **data,
    )


def reverse(**options):
    pair = hypers(penalty=0.3, rate=0.05)
    batches = far.Batches((arrays(0, 8, 3), arrays(1, 8)), 3, seed=1)
    return far.HyperOptimizer(
        ridge(pair, inner_data=batches, outer_data=batches, **options),
        far.ReverseHG(jit_compile=False),
        keras.optimizers.Adam(0.01),
    )


def forward():
    """RTHO, with a clipped optimizer for each hyperparameter."""
    penalty, rate = hypers(penalty=0.3, rate=0.05)
    return far.HyperOptimizer(
        ridge([penalty, rate], dynamics=far.Adam(rate)),
        far.ForwardHG(jit_compile=False),
        [
            (rate, keras.optimizers.SGD(0.001, momentum=0.9, clipnorm=1.0)),
            (penalty, keras.optimizers.RMSprop(0.01)),
        ],
    )


def several():
    """Problems that share hyperparameters, one of them by a Keras optimizer."""
    pair = hypers(penalty=0.3, rate=0.05)
    keras_adam = far.KerasDynamics(keras.optimizers.Adam(), {"learning_rate": pair[1]})
    problems = [ridge(pair, 2, "one"), ridge(pair, 4, "two", dynamics=keras_adam)]
    return far.HyperOptimizer(problems, far.ReverseHG(jit_compile=False))


def network():
    """BatchNorm statistics, Dropout seeds, a frozen layer; weights of no known seed."""
    model = normalized_network()
    frozen = keras.layers.Dense(4, trainable=False, dtype="float64")
    model = keras.Sequential([keras.Input((4,), dtype="float64"), frozen, model])
    random = np.random.default_rng()
    model.set_weights([w + random.random(w.shape) for w in model.get_weights()])
    rate, scale = hypers(rate=0.05, scale=1.0)
    x, y = arrays(6, 12, 4), arrays(7, 12, 1)
    problem = far.BilevelProblem(
        lambda: scale * tf.reduce_mean((model(x, training=True) - y) ** 2),
        lambda: tf.reduce_mean((model(x[:5]) - y[:5]) ** 2),
        model,
        far.Momentum(rate, 0.9),
        [rate, scale],
    )
    return far.HyperOptimizer(problem, far.ReverseHG(jit_compile=False), "adam")


def shuffled(seed=3):
    """Datasets that draw another order for each iterator, and each epoch."""
    pair = hypers(penalty=0.3, rate=0.05)
    base = tf.data.Dataset.from_tensor_slices((arrays(0, 8, 3), arrays(1, 8)))
    inner = base.shuffle(8, seed=seed).batch(3).repeat()
    outer = base.shuffle(8, seed=seed).batch(5)
    return far.HyperOptimizer(
        ridge(pair, inner_data=inner, outer_data=outer),
        far.ReverseHG(jit_compile=False),
        "adam",
    )


def state_of(tuner):
    """All numbers that a run leaves."""
    values = [*tuner.get_weights()]
    for problem in tuner.problems:
        values += [np.asarray(variable) for variable in problem.pure.owned]
        values += [np.asarray(v) for v in problem.pure.extra_variables]
    optimizers = (
        tuner.optimizer if isinstance(tuner.optimizer, list) else [tuner.optimizer]
    )
    return values + [np.asarray(v) for one in optimizers for v in one.variables]


def same(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def anew(make, **options):
    """As in another process."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    return make(**options)


def fit(tuner, iterations, mode="restart", callbacks=(), verbose=0, steps=STEPS):
    return tuner.fit(iterations, steps, mode, list(callbacks), verbose)


def resumed(make, path, iterations, stop, mode="restart", **options):
    """A tuner that was stopped by a callback and begun again."""
    with pytest.raises(Stop):
        fit(
            anew(make),
            iterations,
            mode,
            [far.Checkpoint(path, **options), stop],
        )
    tuner = anew(make)
    fit(tuner, iterations, mode, [far.Checkpoint(path, **options)])
    return tuner


STOPPED = [
    (reverse, "restart"),
    (forward, "online"),
    (several, "online"),
    (several, "warm_restart"),
    (shuffled, "restart"),
    (shuffled, "online"),
]


@pytest.mark.parametrize("every", in_tiers([1, 2], [1]))
@pytest.mark.parametrize(
    ("make", "mode"),
    in_tiers(STOPPED, [(reverse, "restart"), (several, "online")]),
)
def test_a_stopped_run_ends_as_another(make, mode, every, tmp_path):
    whole = anew(make)
    expected = fit(whole, 5, mode).history
    tuner = resumed(make, tmp_path, 5, stop_at(3), mode, every=every)
    same(state_of(tuner), state_of(whole))
    assert tuner.history.history == expected
    assert tuner.history.epoch == [0, 1, 2, 3, 4]


def test_a_stop_at_the_ends(tmp_path):
    whole = anew(diverging)
    fit(whole, 2)
    for place in ((0, "on_epoch_end"), (1, "on_epoch_begin"), (1, "on_epoch_end")):
        path = tmp_path / f"{place[1]}{place[0]}"
        tuner = resumed(diverging, path, 2, stop_at(*place))
        same(state_of(tuner), state_of(whole))


def test_weights_of_no_known_seed(tmp_path):
    """Frozen weights and Φ_0 are those of the run that is gone on with."""
    one = anew(network)
    fit(one, 2, callbacks=[far.Checkpoint(tmp_path / "one")])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    fit(one, 2, callbacks=[])  # On as in one process, without a word to the first.
    two = anew(network)
    for mine, theirs in zip(
        one.problems[0].pure.owned, two.problems[0].pure.owned, strict=True
    ):
        assert mine.dtype == "uint32" or not np.array_equal(mine, theirs)
    checkpoint = far.Checkpoint(tmp_path / "two", allow=["initial_values"])
    fit(two, 4, callbacks=[checkpoint])
    same(state_of(two), state_of(one))


def test_several_fits(tmp_path):
    """Complete ones are passed over, whatever the script assigns in between.

    The hyperparameters that it reads there are those that it read.
    """
    read = []

    def script(stop, checkpoints=()):
        tuner = anew(forward)
        first = fit(tuner, 2, callbacks=checkpoints)
        read.append(tuner.get_weights())
        tuner.optimizer[0].learning_rate = 0.002
        second = fit(tuner, 3, "online", [*checkpoints, *stop])
        return tuner, first.history, second.history

    whole, *expected = script([])
    with pytest.raises(Stop):
        script([stop_at(1)], [far.Checkpoint(tmp_path)])
    tuner, *histories = script([], [far.Checkpoint(tmp_path)])
    same(state_of(tuner), state_of(whole))
    assert histories == expected
    files = sorted(path.name for path in tmp_path.iterdir())
    again, *histories = script([stop_at(0)], [far.Checkpoint(tmp_path)])
    same(state_of(again), state_of(whole))
    assert histories == expected
    assert len(read) == 4
    for one in read[1:]:
        np.testing.assert_array_equal(np.hstack(one), np.hstack(read[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_a_second_fit_in_one_process_is_another(tmp_path):
    checkpoint = far.Checkpoint(tmp_path)
    tuner, other = anew(diverging), anew(diverging)
    for _ in range(2):
        assert fit(tuner, 2, callbacks=[checkpoint]).epoch == [0, 1]
        fit(other, 2)
    same(state_of(tuner), state_of(other))


def test_more_hyper_iterations(tmp_path):
    whole = anew(diverging)
    fit(whole, 5)
    for iterations in (2, 5):
        tuner = anew(diverging)
        fit(tuner, iterations, callbacks=[far.Checkpoint(tmp_path)])
    same(state_of(tuner), state_of(whole))
    assert tuner.history.epoch == [0, 1, 2, 3, 4]


def test_what_had_ended_stays_so(tmp_path):
    whole = anew(reverse)
    fit(whole, 9, callbacks=[far.Checkpoint(tmp_path, every=5), end_at(2)])
    tuner = anew(reverse)
    history = fit(tuner, 9, callbacks=[far.Checkpoint(tmp_path), stop_at(3)])
    assert history.epoch == [0, 1, 2]
    assert tuner.stop_training
    same(state_of(tuner), state_of(whole))


def diverging():
    """Whose outer value grows by 1.25² from ½ on; see tuning/test_callbacks.py."""
    w = keras.Variable(0.0, name="w")
    target = far.Hyperparameter(0.0, name="target")
    problem = far.BilevelProblem(
        lambda: 0.5 * (w - target) ** 2,
        lambda: 0.5 * (w - 1.0) ** 2,
        [w],
        far.GradientDescent(0.5),
        [target],
    )
    mode = far.ReverseHG(jit_compile=False)
    return far.HyperOptimizer(problem, mode, keras.optimizers.SGD(4.0))


def test_what_diverged_stays_so(tmp_path):
    """And so it is where it diverges after a stop, next to what was saved."""

    def run(path, *callbacks):
        tuner = anew(diverging)
        callbacks = [far.Checkpoint(tmp_path / path), *callbacks]
        tuner.fit(9, 2, callbacks=callbacks, verbose=0, outer_limit=1.0)
        return tuner

    with pytest.raises(Stop):
        run("two", stop_at(2, "on_epoch_begin"))
    tuners = []
    for path in ("one", "one", "two"):
        with pytest.warns(UserWarning, match="diverged"):
            tuners.append(run(path))
    for tuner in tuners:
        assert tuner.history.epoch == [0, 1]
        assert "above outer_limit=1" in str(tuner.divergence)
        same(state_of(tuner), state_of(tuners[0]))


def test_early_stopping_of_the_best_is_saved(tmp_path):
    """What other callbacks do at the end of `fit` is saved too."""
    tuners = []
    for _ in range(2):
        tuners.append(anew(diverging))
        stopping = keras.callbacks.EarlyStopping(
            "outer_value", mode="min", restore_best_weights=True, patience=2
        )
        checkpoint = far.Checkpoint(tmp_path)
        tuners[-1].fit(9, 2, callbacks=[checkpoint, stopping], verbose=0)
        assert float(tuners[-1].hyperparameters[0]) == 0.0
    same(state_of(tuners[1]), state_of(tuners[0]))


def test_a_schedule_of_the_rate_goes_on(tmp_path):
    """Saved is what was before the next hyper-iteration's `on_epoch_begin`."""

    def run(*callbacks):
        tuner = anew(diverging)
        halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        fit(tuner, 4, callbacks=[halve, *callbacks])
        return tuner

    whole = run()
    with pytest.raises(Stop):
        run(far.Checkpoint(tmp_path), stop_at(2))
    same(state_of(run(far.Checkpoint(tmp_path))), state_of(whole))


def test_the_progress_bar_goes_on(tmp_path, capsys):
    for iterations, stop in ((2, []), (4, []), (4, [])):
        tuner = anew(diverging)
        fit(tuner, iterations, callbacks=[far.Checkpoint(tmp_path), *stop], verbose=1)
        shown = capsys.readouterr().out
        assert shown.endswith("\n")
        assert f"{iterations}/{iterations}" in shown
    assert "2/4" not in shown


def test_the_progress_bar_of_one_that_was_stopped(tmp_path, capsys):
    for _ in range(2):
        tuner = anew(diverging)
        fit(tuner, 4, callbacks=[far.Checkpoint(tmp_path), end_at(1)], verbose=1)
        shown = capsys.readouterr().out
        assert shown.endswith("\n")
        assert "2/4" in shown


def test_old_ones_are_removed(tmp_path):
    checkpoint = far.Checkpoint(tmp_path, every=2, max_to_keep=3)
    fit(anew(diverging), 9, callbacks=[checkpoint])
    kept = sorted(path.stem for path in tmp_path.glob("*.index"))
    assert kept == ["ckpt-6", "ckpt-8", "ckpt-9"]


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float32", "float64", "int32", "uint32", "bool"]
)
def test_every_dtype_is_saved_as_it_is(dtype):
    tensors = [tf.cast(tf.constant(value), dtype) for value in (1.7, [[0.1, 2.0]], [])]
    state = far.State(tensors, [(), (tensors[0],)], [])
    found = encoding.from_bytes(
        encoding.to_bytes({"a": state, "b": [None, 1, "c", 0.1]})
    )
    assert found["b"] == [None, 1, "c", 0.1]
    assert isinstance(found["a"], far.State)
    assert found["a"].slots[0] == ()
    for mine, theirs in zip(found["a"].variables, tensors, strict=True):
        assert tf.as_dtype(mine.dtype) == theirs.dtype
        assert mine.shape == theirs.shape
        assert mine.tobytes() == theirs.numpy().tobytes()
