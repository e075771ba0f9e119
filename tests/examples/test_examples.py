"""The examples, shortened by their flags and run as a user runs them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from examples.common import mnist
from examples.data_hyper_cleaning import experiment, report
from tests.helpers import ROOT, run_example

NAMES = sorted(path.parent.name for path in ROOT.glob("examples/*/run.py"))
REAL_TIME = "real_time"


def run(*flags, name="data_hyper_cleaning", **options):
    return run_example(name, *flags, **options)


def test_examples_are_found():
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_help_from_any_folder(name, tmp_path):
    """At once, which is without TensorFlow."""
    script = ROOT / "examples" / name / "run.py"
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--output_dir" in done.stdout
    assert f"(default: 'results/{name}')" in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "examples.common.steps" in imported
    assert not imported & {"tensorflow", "keras", "matplotlib", "far_ho_tf"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "made" / "when missing"
    small = {
        "seed": 3,
        "num_train": 400,
        "num_validation": 400,
        "num_steps": 40,
        "hyper_iterations": 25,
        "radius": 20,
        "final_steps": 60,
        "output_dir": folder,
    }
    cache = folder.parent.parent / "cache"
    done = run(*(f"--{name}={value}" for name, value in small.items()), cache=cache)
    assert done.returncode == 0, done.stderr
    # What XLA compiled is kept, though `absl.app.run` has begun by then.
    assert "is not used" not in done.stderr
    assert list(cache.glob("*/xla_compile_cache__*"))
    return folder, done.stdout, json.loads((folder / "results.json").read_text())


def test_results(demo):
    _, _, results = demo
    ours = results["ours"]
    assert ours["f1"] > 0.85
    baseline, oracle = (results[k]["test_accuracy"] for k in ("baseline", "oracle"))
    assert baseline + 5 < ours["test_accuracy"] < oracle + 1 <= 101
    harmonic = 2 / (1 / ours["precision"] + 1 / ours["recall"])
    assert ours["f1"] == pytest.approx(harmonic)
    assert ours["flagged"] * ours["precision"] == pytest.approx(ours["recall"] * 200)
    assert results["seconds"] > 0
    assert results["flags"]["seed"] == 3
    assert {len(values) for values in results["history"].values()} == {26}
    assert results["history"]["f1"][0] == 0
    assert results["history"]["f1"][-1] == ours["f1"]
    assert results["history"]["outer_value"][-1] < results["history"]["outer_value"][0]


def test_table_and_progress(demo):
    _, output, results = demo
    rows = {line[:28].strip(): line[28:].split() for line in output.splitlines()}
    ours = results["ours"]
    assert rows["ours"][:4] == [
        f"{ours['test_accuracy']:.2f}",
        *(f"{ours[name]:.4f}" for name in ("precision", "recall", "f1")),
    ]
    assert rows["oracle (clean data only)"][0] == (
        f"{results['oracle']['test_accuracy']:.2f}"
    )
    assert "reported for the paper (unverified):" in output
    assert "25/25" in output


def test_pictures(demo):
    folder, _, _ = demo
    for name in ("images.png", "curves.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 20_000


def test_half_of_the_labels_become_wrong():
    true = np.random.RandomState(0).randint(0, 10, 5000)
    given, wrong = experiment.corrupt(true, seed=1)
    assert wrong.sum() == 2500
    assert np.array_equal(given != true, wrong)
    assert (given.min(), given.max()) == (0, 9)
    # Every other class is as likely as any: 2,500 shifts over nine values.
    shifts = np.bincount((given - true)[wrong] % 10, minlength=10)
    assert shifts[0] == 0
    assert shifts[1:].min() > 200
    other, _ = experiment.corrupt(true, seed=2)
    assert not np.array_equal(given, other)


@pytest.mark.thorough
def test_without_the_compile_cache_that_was_asked_for(tmp_path):
    """Its folder cannot be made: a warning says so, and the run is as any other."""
    (tmp_path / "file").touch()
    few = "--num_train=100", "--num_validation=100", "--num_steps=2", "--final_steps=2"
    few += "--hyper_iterations=1", "--output_dir", tmp_path / "out"
    done = run(*few, cache=tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert "Nothing is kept of what XLA compiles" in done.stderr
    assert (tmp_path / "out" / "results.json").exists()


def test_score():
    weights = np.array([0.0, 0.0, 9e-4, 1e-3, 0.5])
    wrong = np.array([True, False, True, True, False])
    assert experiment.score(weights, wrong) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "flagged": 3}
    )


def test_extremes():
    weights = np.array([0.0, 0.5, 0.0, 0.9, 0.0])
    hypergradient = np.array([0.1, 0.0, 0.3, 0.0, 0.2])
    most, least = report.extremes(weights, hypergradient, 3)
    assert most.tolist() == [3, 1, 0]
    assert least.tolist() == [2, 4, 0]


@pytest.mark.thorough
def test_targets():
    """The whole experiment: mean F1 and accuracies over the seeds 0, 1 and 2."""
    data = mnist.load("embedded", None, 5000, 5000)
    settings = experiment.Settings(
        seed=0,
        num_steps=100,
        learning_rate=0.5,
        momentum=0.9,
        hyper_iterations=30,
        hyper_learning_rate=0.02,
        radius=200.0,
        final_steps=200,
    )
    rows = []
    for seed in range(3):
        outcome = experiment.compare(data, settings._replace(seed=seed), verbose=0)
        ours = report.summarize(outcome, {})["ours"]
        rows.append([ours["f1"], *outcome.accuracies.values()])
    f1, baseline, oracle, ours = np.mean(rows, axis=0)
    assert f1 >= 0.94
    assert ours >= baseline + 4
    assert ours >= oracle - 0.5


def test_data_dir_without_the_data_set_is_refused():
    done = run("--data_dir=/somewhere")
    assert done.returncode != 0
    assert "--dataset mnist" in done.stderr + done.stdout


@pytest.mark.parametrize("flags", [[], ["--data_dir=/nowhere"]])
def test_a_missing_data_set_is_said_with_what_to_do(flags):
    done = run("--dataset=mnist", *flags)
    assert done.returncode != 0
    assert "tensorflow-datasets" in done.stderr + done.stdout
    assert "tfds.load('mnist'" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_it_is_said_before_tensorflow_is_imported():
    code = (
        "import sys\n"
        "from examples.common import mnist\n"
        "try:\n    mnist.load('mnist', '/nowhere', 1, 1)\n"
        "except ValueError:\n    sys.exit('tensorflow' in sys.modules)\n"
    )
    path = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | path)


@pytest.mark.parametrize(
    "flags", [["--num_steps=0"], ["--momentum=2"], ["--dataset=cifar"], ["surplus"]]
)
def test_wrong_flags(flags):
    done = run(*flags)
    assert done.returncode != 0
    assert flags[0].split("=")[0].strip("-") in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written():
    done = run("--output_dir=/proc/version/results")
    assert done.returncode != 0
    assert "/proc/version" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_many_images_are_asked_for():
    with pytest.raises(ValueError, match=r"10000 training images; --num_train .*11000"):
        mnist.load("embedded", None, 9000, 2000)


def test_embedded_images():
    images = mnist.load("embedded", None, 5000, 5000)
    assert [len(part[0]) for part in images] == [5000, 5000, 10000]
    assert images.train[0].dtype == np.float32
    assert (images.train[0].min(), images.train[0].max()) == (0, 1)
    assert images.train[1][:5].tolist() == [5, 0, 4, 1, 9]  # MNIST begins so.
    assert images.test[1][:5].tolist() == [7, 2, 1, 0, 4]


def test_a_prepared_data_set(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (7, 28, 28, 1)).astype("uint8")
    labels = random.randint(0, 10, 7)
    examples = tf.data.Dataset.from_tensor_slices({"image": pixels, "label": labels})
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={"train": examples.take(5), "test": examples.skip(5).take(2)},
        data_dir=tmp_path,
        disable_shuffling=True,
    )
    images = mnist.load("mnist", tmp_path, 3, 2)
    assert [len(part[0]) for part in images] == [3, 2, 2]
    rows = np.concatenate([part[0] for part in images])
    np.testing.assert_array_equal(rows, pixels.reshape(7, 784).astype("float32") / 255)
    assert np.concatenate([part[1] for part in images]).tolist() == labels.tolist()


@pytest.fixture(scope="module")
def real_time(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real_time") / "made"
    small = {
        "num_seeds": 1,
        "num_train": 600,
        "num_validation": 500,
        "hidden_units": 16,
        "batch_size": 20,
        "epochs": 2,
        "rtho_epochs": 6,
        "hyper_learning_rate": 0.4,
        "output_dir": folder,
    }
    done = run(*(f"--{k}={v}" for k, v in small.items()), name=REAL_TIME)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, json.loads((folder / "results.json").read_text())


class TestRealTime:
    @pytest.mark.thorough
    def test_results(self, real_time):
        _, _, results = real_time
        (seed,) = results["seeds"]
        assert set(seed) == {"rtho", "grid", "random", "defaults", "start"}
        rtho = seed["rtho"]["history"]
        assert {len(values) for values in rtho.values()} == {6}
        assert rtho["seconds"] == sorted(rtho["seconds"])
        # It leaves the poor start behind, whose values stay as they are.
        assert rtho["values"][-1]["learning_rate"] > 0.02
        assert rtho["values"][-1]["momentum"] > 0.3
        assert rtho["values"][-1]["l2"] < 8e-3
        start = seed["start"]["history"]["values"][-1]
        assert start["learning_rate"] == pytest.approx(1e-3)
        assert start["momentum"] == pytest.approx(0.1)
        mean = results["mean"]
        assert mean["rtho"]["accuracy"] > mean["start"]["accuracy"] + 20
        assert mean["grid"]["runs"] == 12
        best = mean["grid"]["accuracy"] - mean["rtho"]["accuracy"]
        assert results["gap"] == pytest.approx(best)
        plain = min(results["seconds_of_one_plain_run"].values())
        assert results["ratio"] == pytest.approx(mean["rtho"]["seconds"] / plain)
        assert results["flags"]["epochs"] == 2

    @pytest.mark.thorough
    def test_table_and_picture(self, real_time):
        folder, output, results = real_time
        assert f"{results['mean']['rtho']['accuracy']:.2f}" in output
        assert f"{abs(results['gap']):.2f} points" in output
        assert (folder / "real_time.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "real_time.png").stat().st_size > 20_000

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--dataset=spoken_digit"], "--data_dir"),
            (["--dataset=mnist"], "--data_dir"),
            (["--num_train=20000"], "training images"),
            (["--num_train=50", "--batch_size=51"], "--batch_size 51"),
            (["surplus"], "Unexpected arguments: surplus"),
        ],
    )
    def test_errors(self, flags, message, tmp_path):
        done = run(*flags, f"--output_dir={tmp_path}", name=REAL_TIME)
        assert done.returncode != 0
        assert message in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
