"""The examples after Maclaurin et al. 2015, shortened and in full."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from examples.common import mnist
from examples.learned_data import experiment as learned_data
from examples.per_weight_l2 import experiment as per_weight_l2
from examples.training_schedules import experiment as training_schedules
from tests.helpers import in_tiers, run_example

NAMES = ["training_schedules", "per_weight_l2", "learned_data"]
SETTINGS = training_schedules.Settings(
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


def finished(folder, name, flags):
    done = run_example(
        name, *(f"--{k}={v}" for k, v in flags.items()), f"--output_dir={folder}"
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
    return finished(folder, "training_schedules", flags)


class TestSchedules:
    @pytest.mark.thorough
    def test_results(self, small_schedules):
        _, output, results = small_schedules
        mean = results["mean"]
        assert mean["learned"]["train_loss"] < mean["start"]["train_loss"] - 0.05
        ratio = mean["learned"]["train_loss"] / mean["constant"]["train_loss"]
        assert results["ratio"] == pytest.approx(ratio)
        assert dict(results["grid"])[results["best_constant_rate"]] == pytest.approx(
            mean["constant"]["train_loss"]
        )
        assert [rate for rate, _ in results["grid"]] == list(training_schedules.GRID)
        assert results["names"][:2] == ["dense/kernel", "dense/bias"]
        for key, start in (("learning_rates", np.exp(-1)), ("momenta", 0.5)):
            values = np.array(results["schedules"][key])
            assert values.shape == (12, 8)
            assert np.all(values != pytest.approx(start, rel=1e-4))
        assert len(results["schedules"]["scales"]) == 8
        assert len(results["history"]["outer_value"]) == 5
        assert f"{mean['learned']['train_loss']:.4f}" in output
        assert "5/5" in output

    @pytest.mark.thorough
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
        training = training_schedules.Training(
            (images, labels), (images, labels), settings
        )
        training.begin(0.7)
        outcome = training.evaluate()
        shapes = [(784, 4), (4,), (4, 4), (4,), (4, 4), (4,), (4, 10), (10,)]
        noise = far.scaled_noise(
            [(keras.Variable(tf.zeros(shape)), 1.0) for shape in shapes], fresh=True
        )
        weights = [
            0.3 * draw(tf.constant(training_schedules.UNSEEN)) for _, draw in noise
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

    @pytest.mark.thorough
    def test_half_the_loss_of_the_best_constant_rate(self):
        """All of it, for one seed."""
        data = mnist.load("embedded", None, 10_000, 0)
        centered = training_schedules.center(data)
        assert np.abs(centered.train[0].mean(axis=0)).max() < 1e-5
        outcomes, _ = training_schedules.compare(data, SETTINGS, verbose=0)
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
    return finished(folder, "per_weight_l2", flags)


class TestPenalties:
    @pytest.mark.thorough
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

    @pytest.mark.thorough
    def test_pictures(self, small_penalties):
        assert_pictures(small_penalties[0], "penalties.png", "curves.png")

    @pytest.mark.thorough
    def test_below_the_best_global_penalty(self):
        """The mean over three seeds, with fewer hyper-iterations."""
        settings = per_weight_l2.Settings(
            num_seeds=3,
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
        losses = per_weight_l2.compare(data, settings, verbose=0)
        test = {
            name: np.mean([one["losses"][name].test for one in losses])
            for name in ("none", "global", "per_weight")
        }
        assert test["global"] < 0.85 * test["none"]
        assert test["per_weight"] < 0.88 * test["global"]


@pytest.fixture(scope="module")
def small_pixels(tmp_path_factory):
    flags = {"num_train": 200, "num_steps": 8, "hyper_iterations": 6, "num_draws": 2}
    folder = tmp_path_factory.mktemp("pixels") / "made"
    return finished(folder, "learned_data", flags)


class TestLearnedData:
    def test_results(self, small_pixels):
        _, output, results = small_pixels
        assert len(results["real"]) == 2 and len(results["outer_value"]) == 6
        assert results["real"][0] != results["real"][1]
        losses = [one["test_loss"] for one in results["real"]]
        assert results["real_mean"]["test_loss"] == pytest.approx(np.mean(losses))
        # Ten blank images teach nothing but the classes' frequencies.
        assert results["outer_value"][0] == pytest.approx(np.log(10), rel=1e-3)
        assert results["learned"]["train_loss"] < results["outer_value"][0]
        assert f"{results['learned']['test_accuracy']:.2f}" in output
        assert results["buffer_bits"] > 0.15

    def test_pictures(self, small_pixels):
        assert_pictures(small_pixels[0], "images.png", "curve.png")

    def test_draws_have_one_image_of_each_class(self):
        images = np.arange(40.0)[:, None]
        labels = np.arange(40) % 10
        drawn = learned_data.draw((images, labels), np.random.RandomState(0))
        assert (drawn[:, 0] % 10).tolist() == list(range(10))

    def test_the_training_by_hand(self):
        """Two steps of momentum descent from zero, on ten given images."""
        random = np.random.RandomState(0)
        train = (random.rand(30, 6).astype("float32"), np.arange(30) % 10)
        settings = learned_data.Settings(
            seed=0,
            num_steps=2,
            learning_rate=0.5,
            momentum=0.75,
            hyper_iterations=1,
            hyper_learning_rate=0.1,
            num_draws=1,
        )
        training = learned_data.Training(train, train, settings)
        x = random.rand(10, 6).astype("float32")
        outcome = training.on(x)
        w, b, penalty = np.zeros((6, 10)), np.zeros(10), np.exp(-5.0)
        mw, mb = np.zeros_like(w), np.zeros_like(b)
        for _ in range(2):
            p = np.exp(x @ w + b)
            error = (p / p.sum(axis=1, keepdims=True) - np.eye(10)) / 10
            mw = 0.75 * mw + x.T @ error + 2 * penalty * w
            mb = 0.75 * mb + error.sum(axis=0)
            w, b = w - 0.5 * mw, b - 0.5 * mb
        logits = train[0] @ w + b
        logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = -np.mean(logp[np.arange(30), train[1]])
        assert outcome.train_loss == pytest.approx(expected, rel=1e-5)
        assert outcome.test_loss == pytest.approx(expected, rel=1e-5)

    @pytest.mark.thorough
    def test_learned_images_teach_more_than_real_ones(self):
        """With fewer hyper-iterations, on the embedded images."""
        data = mnist.load("embedded", None, 10_000, 0)
        settings = learned_data.Settings(
            seed=0,
            num_steps=20,
            learning_rate=0.1,
            momentum=0.9,
            hyper_iterations=30,
            hyper_learning_rate=0.03,
            num_draws=5,
        )
        outcome = learned_data.compare(data, settings, verbose=0)
        real = np.mean([one.test_accuracy for one in outcome["real"]])
        assert 30 < real < 60
        assert outcome["learned"].test_accuracy > 88


@pytest.mark.parametrize("name", in_tiers(NAMES, ["per_weight_l2"]))
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
def test_errors(name, flags, message):
    done = run_example(name, *flags)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_batch_larger_than_the_set(tmp_path):
    done = run_example(
        "training_schedules", "--num_train=100", f"--output_dir={tmp_path}"
    )
    assert done.returncode != 0
    assert "--batch_size 200" in done.stderr
    assert "Traceback" not in done.stderr
