"""The examples after Maclaurin et al. 2015, shortened and in full."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
import mnist
import penalties_experiment
import schedules_experiment
from tests.helpers import run_example

SETTINGS = schedules_experiment.Settings(
    hidden_units=50,
    batch_size=200,
    num_steps=100,
    hyper_iterations=50,
    hyper_learning_rate=0.12,
    start_learning_rate=np.exp(-1),
    start_momentum=0.5,
    start_scale=np.exp(-3),
    num_draws=2,
    seed=0,
)


def finished(folder, script, flags):
    done = run_example(
        script, *(f"--{k}={v}" for k, v in flags.items()), f"--output_dir={folder}"
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, json.loads((folder / "results.json").read_text())


def assert_pictures(folder, *names):
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert (folder / name).stat().st_size > 20_000


@pytest.fixture(scope="module")
def small_schedules(tmp_path_factory):
    flags = {
        "num_train": 300,
        "hidden_units": 8,
        "batch_size": 50,
        "num_steps": 12,
        "hyper_iterations": 5,
        "num_draws": 2,
        "start_scale": 0.2,
    }
    folder = tmp_path_factory.mktemp("schedules") / "made"
    return finished(folder, "training_schedules.py", flags)


class TestSchedules:
    def test_results(self, small_schedules):
        _, output, results = small_schedules
        mean = results["mean"]
        assert mean["learned"]["train_loss"] < mean["start"]["train_loss"] - 0.05
        ratio = mean["learned"]["train_loss"] / mean["constant"]["train_loss"]
        assert results["ratio"] == pytest.approx(ratio)
        assert dict(results["grid"])[results["best_constant_rate"]] == pytest.approx(
            mean["constant"]["train_loss"]
        )
        assert [rate for rate, _ in results["grid"]] == list(schedules_experiment.GRID)
        assert results["names"][:2] == ["dense/kernel", "dense/bias"]
        for key, start in (("learning_rates", np.exp(-1)), ("momenta", 0.5)):
            values = np.array(results["schedules"][key])
            assert values.shape == (12, 8)
            assert np.all(values != pytest.approx(start, rel=1e-4))
        assert len(results["schedules"]["scales"]) == 8
        assert len(results["history"]["outer_value"]) == 5
        assert f"{mean['learned']['train_loss']:.4f}" in output
        assert "5/5" in output

    def test_pictures(self, small_schedules):
        assert_pictures(small_schedules[0], "schedules.png", "curves.png")

    def test_the_start_by_hand(self):
        """v ← γ v − (1−γ) g, w ← w + α v, from noise times the scale."""
        random = np.random.RandomState(0)
        images = random.rand(40, 784).astype("float32")
        labels = random.randint(0, 10, 40)
        settings = SETTINGS._replace(
            hidden_units=4, batch_size=40, num_steps=7, num_draws=1, start_scale=0.3
        )
        training = schedules_experiment.Training(
            (images, labels), (images, labels), settings
        )
        training.begin(0.7)
        outcome = training.evaluate()
        shapes = [(784, 4), (4,), (4, 4), (4,), (4, 4), (4,), (4, 10), (10,)]
        noise = far.scaled_noise(
            [(keras.Variable(tf.zeros(shape)), 1.0) for shape in shapes], fresh=True
        )
        weights = [
            0.3 * draw(tf.constant(schedules_experiment.UNSEEN)) for _, draw in noise
        ]
        velocities = [tf.zeros(shape) for shape in shapes]

        def loss(weights):
            x = images
            for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
                x = tf.tanh(x @ kernel + bias)
            logits = x @ weights[-2] + weights[-1]
            return tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            )

        curve = []
        for _ in range(7):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                curve.append(loss(weights))
            gradients = tape.gradient(curve[-1], weights)
            velocities = [
                0.5 * v - 0.5 * g for v, g in zip(velocities, gradients, strict=True)
            ]
            weights = [w + 0.7 * v for w, v in zip(weights, velocities, strict=True)]
        np.testing.assert_allclose(outcome.curve, curve, rtol=1e-5)
        np.testing.assert_allclose(outcome.train_loss, [loss(weights)], rtol=1e-5)
        assert outcome.test_loss == pytest.approx(outcome.train_loss)

    def test_half_the_loss_of_the_best_constant_rate(self):
        """All of it, for one seed."""
        data = schedules_experiment.center(mnist.load("embedded", None, 10_000, 0))
        assert np.abs(data.train[0].mean(axis=0)).max() < 1e-5
        training = schedules_experiment.Training(data.train, data.test, SETTINGS)
        outcomes, _ = schedules_experiment.compare(training, SETTINGS, verbose=0)
        loss = {name: np.mean(one.train_loss) for name, one in outcomes.items()}
        assert loss["start"] > 0.45
        assert loss["constant"] < 0.23
        assert loss["learned"] <= 0.5 * loss["constant"]
        assert np.mean(outcomes["learned"].test_accuracy) > 93


@pytest.fixture(scope="module")
def small_penalties(tmp_path_factory):
    flags = {
        "num_seeds": 2,
        "num_train": 200,
        "num_validation": 400,
        "num_steps": 30,
        "hyper_iterations": 8,
    }
    folder = tmp_path_factory.mktemp("penalties") / "made"
    return finished(folder, "per_weight_l2.py", flags)


class TestPenalties:
    def test_results(self, small_penalties):
        _, output, results = small_penalties
        mean = results["mean"]
        assert set(mean) == {"none", "global", "both", "per_weight"}
        assert mean["per_weight"]["test"] < mean["global"]["test"]
        assert mean["global"]["validation"] <= mean["none"]["validation"]
        assert mean["none"]["train"] < mean["global"]["train"]
        tests = [seed["losses"]["per_weight"]["test"] for seed in results["seeds"]]
        assert mean["per_weight"]["test"] == pytest.approx(np.mean(tests))
        assert tests[0] != tests[1]
        assert {len(seed["outer_value"]) for seed in results["seeds"]} == {8}
        assert f"{mean['per_weight']['test']:.4f}" in output

    def test_pictures(self, small_penalties):
        assert_pictures(small_penalties[0], "penalties.png", "curves.png")

    def test_below_the_best_global_penalty(self):
        """The mean over three seeds, with fewer hyper-iterations."""
        settings = penalties_experiment.Settings(
            num_train=1000,
            num_validation=5000,
            num_steps=100,
            learning_rate=0.5,
            momentum=0.9,
            hyper_iterations=15,
            hyper_learning_rate=0.3,
            start_log_penalty=-6.0,
        )
        data = mnist.load("embedded", None, 6000, 0)
        losses = [
            penalties_experiment.compare(*data.train, data.test, seed, settings, 0)
            for seed in range(3)
        ]
        test = {
            name: np.mean([one["losses"][name].test for one in losses])
            for name in ("none", "global", "per_weight")
        }
        assert test["global"] < 0.85 * test["none"]
        assert test["per_weight"] < 0.88 * test["global"]


@pytest.mark.parametrize("script", ["training_schedules.py", "per_weight_l2.py"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=mnist"], "--data_dir"),
        (["--num_train=20000"], "training images"),
        (["--num_steps=0"], "num_steps"),
        (["--output_dir=/proc/version/results"], "/proc/version"),
        (["surplus"], "Unexpected arguments: surplus"),
    ],
)
def test_errors(script, flags, message):
    done = run_example(script, *flags)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_batch_larger_than_the_set(tmp_path):
    done = run_example(
        "training_schedules.py", "--num_train=100", f"--output_dir={tmp_path}"
    )
    assert done.returncode != 0
    assert "--batch_size 200" in done.stderr
    assert "Traceback" not in done.stderr
