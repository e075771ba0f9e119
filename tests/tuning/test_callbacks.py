"""`HyperOptimizer.fit` and callbacks, on a problem solved by hand.

Inner: two steps w ← w − ½(w − λ) from w = 0, so w₂ = cλ with c = ¾.
Outer: E = ½(w₂ − 1)², so dE/dλ = c(cλ − 1). With the outer update λ ← λ − r
dE/dλ the error e = cλ − 1 shrinks by the factor 1 − rc².
"""

import csv
import re
import time

import keras
import numpy as np
import pytest

import far_ho_tf as far

C = 0.75


def make_tuner(rate=1.0, constraint=None):
    w = keras.Variable(0.0, name="w")
    target = far.Hyperparameter(0.0, name="target", constraint=constraint)
    problem = far.BilevelProblem(
        inner_objective=lambda: 0.5 * (w - target) ** 2,
        outer_objective=lambda: 0.5 * (w - 1.0) ** 2,
        variables=[w],
        dynamics=far.GradientDescent(0.5),
        hyperparameters=[target],
    )
    return far.HyperOptimizer(
        problem,
        hypergradient=far.ReverseHG(jit_compile=False),
        optimizer=keras.optimizers.SGD(rate),
    )


def by_hand(rates):
    """λ before each update and after the last, E and |dE/dλ| at the former."""
    targets = [0.0]
    for rate in rates:
        targets.append(targets[-1] - rate * C * (C * targets[-1] - 1))
    targets = np.array(targets)
    errors = C * targets[:-1] - 1
    return targets, 0.5 * errors**2, np.abs(C * errors)


def fit(tuner, iterations, callbacks=None, verbose=0):
    return tuner.fit(iterations, num_steps=2, callbacks=callbacks, verbose=verbose)


def target_of(tuner):
    return float(tuner.hyperparameters[0])


def test_history():
    tuner = make_tuner(rate=0.5)
    history = fit(tuner, 5)
    targets, values, norms = by_hand([0.5] * 5)
    assert isinstance(history, keras.callbacks.History)
    assert history.epoch == [0, 1, 2, 3, 4]
    assert set(history.history) == {"outer_value", "hypergradient_norm", "target"}
    np.testing.assert_allclose(history.history["outer_value"], values, rtol=1e-5)
    np.testing.assert_allclose(history.history["hypergradient_norm"], norms, rtol=1e-5)
    assert target_of(tuner) == pytest.approx(targets[-1], rel=1e-5)


def test_progress_bar(capsys, monkeypatch):
    """It shows the newest values, not their means as Keras' bar does."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    slow = keras.callbacks.LambdaCallback(  # Keras redraws after 0.05 s.
        on_epoch_end=lambda epoch, logs: now.append(now.pop() + 2.5)
    )
    history = fit(make_tuner(), 4, [slow], verbose=1).history
    lines = re.split(r"[\b\r\n]+", capsys.readouterr().out.strip())
    for number in (2, 3, 4):
        (line,) = [line for line in lines if f"{number}/4" in line]
        for name in ("outer_value", "hypergradient_norm", "target"):
            shown = re.search(rf" {name}: (\S+)", line)[1]
            assert float(shown) == pytest.approx(history[name][number - 1], abs=1e-4)
        elapsed = float(re.search(r"elapsed_seconds: (\S+)", line)[1])
        assert elapsed == 2.5 * number


def test_one_line(capsys):
    fit(make_tuner(), 4, verbose=2)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1
    for shown in ("4/4", "elapsed_seconds:", "outer_value:", "hypergradient_norm:"):
        assert shown in lines[0]


def test_silent(capsys):
    fit(make_tuner(), 2, verbose=0)
    assert capsys.readouterr() == ("", "")


def test_lambda_callback_sees_every_iteration():
    epochs, targets = [], []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch),
        on_epoch_end=lambda epoch, logs: targets.append(logs["outer_value"]),
    )
    fit(make_tuner(), 4, [callback])
    assert epochs == [0, 1, 2, 3]
    np.testing.assert_allclose(targets, by_hand([1.0] * 4)[1], rtol=1e-5)


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_callback_stops(verbose, capsys):
    tuner = make_tuner()

    def stop(epoch, logs):
        tuner.stop_training = epoch == 2

    callback = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    assert fit(tuner, 9, [callback], verbose).epoch == [0, 1, 2]
    output = capsys.readouterr().out
    assert output.endswith("\n") if verbose else output == ""
    targets, _, _ = by_hand([1.0] * 2)  # Stopped before the third update.
    assert target_of(tuner) == pytest.approx(targets[-1], rel=1e-5)
    assert fit(tuner, 2).epoch == [0, 1]  # The next `fit` starts afresh.


def stopping(**arguments):
    return keras.callbacks.EarlyStopping("outer_value", mode="min", **arguments)


def test_early_stopping():
    """With r = 4 the error grows by the factor −1.25 from the start."""
    tuner = make_tuner(rate=4.0)
    assert fit(tuner, 20, [stopping(patience=3)]).epoch == [0, 1, 2, 3]
    assert target_of(tuner) == pytest.approx(by_hand([4.0] * 3)[0][-1], rel=1e-5)


def test_early_stopping_restores_the_best():
    """The best outer value is the first, at λ = 0."""
    tuner = make_tuner(rate=4.0)
    fit(tuner, 20, [stopping(patience=3, restore_best_weights=True)])
    assert target_of(tuner) == 0.0


def test_logs_hold_the_value_and_its_hyperparameter():
    history = fit(make_tuner(rate=0.5), 5).history
    targets, _, _ = by_hand([0.5] * 5)
    np.testing.assert_allclose(history["target"], targets[:-1], rtol=1e-5)


def test_reduce_learning_rate():
    """The rate halves after the growth in iterations 1 and 2."""
    tuner = make_tuner(rate=4.0)
    callback = keras.callbacks.ReduceLROnPlateau(
        "outer_value", factor=0.5, patience=2, mode="min"
    )
    history = fit(tuner, 5, [callback]).history
    targets, values, _ = by_hand([4.0, 4.0, 2.0, 2.0, 2.0])
    np.testing.assert_allclose(history["outer_value"], values, rtol=1e-4)
    np.testing.assert_allclose(history["learning_rate"], [4, 4, 4, 2, 2])
    assert target_of(tuner) == pytest.approx(targets[-1], rel=1e-4)


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    fit(make_tuner(), 3, [keras.callbacks.CSVLogger(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {"epoch", "outer_value", "hypergradient_norm", "target"} <= set(rows[0])
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    logged = [float(row["outer_value"]) for row in rows]
    np.testing.assert_allclose(logged, by_hand([1.0] * 3)[1], rtol=1e-5)


def test_constraint_is_applied_in_each_iteration():
    tuner = make_tuner(constraint=far.constraints.Interval(high=0.5))
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(target_of(tuner))
    )
    seen = []
    fit(tuner, 3, [callback])
    assert seen == [0.0, 0.5, 0.5]  # The first update leads to 0.75.


@pytest.mark.parametrize("hyper_iterations", [0, True, 2.0])
def test_wrong_number_of_iterations(hyper_iterations):
    with pytest.raises(ValueError, match=f"Received: .*={hyper_iterations}"):
        make_tuner().fit(hyper_iterations, num_steps=2)


def test_early_stopping_knows_that_lower_is_better():
    """As with mode="min": it stops after three iterations without a lower value."""
    for monitor in ("outer_value", "hypergradient_norm"):
        tuner = make_tuner(rate=4.0)
        callback = keras.callbacks.EarlyStopping(monitor, patience=3)
        assert fit(tuner, 20, [callback]).epoch == [0, 1, 2, 3]
        assert callback.mode == "min" and callback.best_epoch == 0
    falling = keras.callbacks.EarlyStopping("outer_value", patience=3)
    assert fit(make_tuner(rate=0.5), 6, [falling]).epoch == [0, 1, 2, 3, 4, 5]
    highest = keras.callbacks.EarlyStopping("outer_value", mode="max", patience=1)
    assert fit(make_tuner(rate=0.5), 6, [highest]).epoch == [0, 1]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (keras.callbacks.ModelCheckpoint, "ModelCheckpoint"),
        (
            lambda path: keras.callbacks.ModelCheckpoint(
                path.replace("keras", "weights.h5"), save_weights_only=True
            ),
            "ModelCheckpoint",
        ),
        (keras.callbacks.BackupAndRestore, "BackupAndRestore"),
    ],
)
def test_callbacks_that_save_a_model(make, name, tmp_path):
    tuner = make_tuner()
    saving = make(str(tmp_path / "x.keras"))
    message = f"`callbacks` holds {name}, which saves a Keras model.*far.Checkpoint"
    with pytest.raises(ValueError, match=message):
        fit(tuner, 2, [keras.callbacks.TerminateOnNaN(), saving])
    assert tuner.inner_runs.outer_step == 0 and target_of(tuner) == 0.0


def test_a_subclass_that_saves_in_its_own_way(tmp_path):
    class Saving(keras.callbacks.ModelCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            saved.append(epoch)

    saved = []
    fit(make_tuner(), 2, [Saving(str(tmp_path / "x.keras"))])
    assert saved == [0, 1]


@pytest.mark.parametrize("verbose", ["yes", 3, -1, None])
def test_wrong_verbose(verbose):
    with pytest.raises(
        ValueError, match=f"`verbose` must be 0, .* verbose={verbose!r}"
    ):
        fit(make_tuner(), 1, verbose=verbose)
