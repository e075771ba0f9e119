"""The example of few-shot learning: its data, its hypergradient, and short runs."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from examples.common import mnist
from examples.hyper_representation import characters, experiment
from examples.hyper_representation.episodes import Episodes
from tests.helpers import assert_close, in_tiers, run_example

NAME = "hyper_representation"
SETTINGS = experiment.Settings(
    seed=0,
    ways=3,
    shots=2,
    queries=4,
    hyper_iterations=2,
    num_steps=3,
    episodes=2,
    learning_rate=4.0,
    outer_rate=2e-3,
    filters=2,
    features=5,
    test_episodes=10,
    test_every=1,
    replicas=1,
)


def numbered(num_classes=7, num_examples=9):
    """Images whose first two pixels are their class and their place in it."""
    images = np.random.RandomState(0).randint(
        0, 256, (num_classes, num_examples, 28, 28), dtype="uint8"
    )
    images[:, :, 0, 0] = np.arange(num_classes)[:, None]
    images[:, :, 0, 1] = np.arange(num_examples)
    return images


def drawn(settings, seed=0, stream=0, images=None):
    images = numbered() if images is None else images
    return Episodes(
        images, settings.ways, settings.shots, settings.queries, seed, stream
    )


class TestEpisodes:
    def test_support_and_query_are_disjoint_and_balanced(self):
        episodes = drawn(SETTINGS)
        seen = set()
        for number in range(30):
            support, query = episodes(tf.constant(number))
            owners, all_places = {}, []
            for (images, labels), count in ((support, 2), (query, 4)):
                assert images.dtype == tf.float32
                assert images.shape == (3 * count, 784)
                assert np.bincount(labels).tolist() == [count] * 3
                places = np.rint(255 * images.numpy()[:, :2]).astype(int)
                all_places += [tuple(place) for place in places]
                for (owner, _), label in zip(places, labels.numpy(), strict=True):
                    owners.setdefault(label, set()).add(owner)
            assert len(set(all_places)) == 3 * (2 + 4)
            assert [len(one) for one in owners.values()] == [1] * 3
            assert len(set.union(*owners.values())) == 3
            seen |= set(all_places)
        assert len(seen) == 7 * 9  # Every example takes part.

    def test_the_number_says_all(self):
        episodes, again = drawn(SETTINGS), drawn(SETTINGS)
        compiled = tf.function(again.places, jit_compile=True)
        classes, examples = episodes.places(tf.constant(5))
        for same in (again.places(tf.constant(5)), compiled(tf.constant(5))):
            np.testing.assert_array_equal(classes, same[0])
            np.testing.assert_array_equal(examples, same[1])
        for other in (
            episodes.places(tf.constant(6)),
            drawn(SETTINGS, seed=1).places(tf.constant(5)),
            drawn(SETTINGS, stream=1).places(tf.constant(5)),
        ):
            assert not np.array_equal(examples, other[1])

    def test_images_are_those_of_the_places(self):
        images = numbered()
        classes, examples = drawn(SETTINGS).places(tf.constant(3))
        rows = images[classes.numpy()[:, None], examples.numpy()].reshape(3, 6, 784)
        support, query = drawn(SETTINGS)(tf.constant(3))
        np.testing.assert_allclose(255 * support[0], rows[:, :2].reshape(-1, 784))
        np.testing.assert_allclose(255 * query[0], rows[:, 2:].reshape(-1, 784))


class TestClasses:
    def test_digits(self):
        classes = characters.load()
        assert (len(classes.train), len(classes.test)) == (28, 12)
        assert classes.train.dtype == np.uint8
        with np.load(mnist.EMBEDDED) as arrays:
            sets = [
                (arrays["train_images"], arrays["train_labels"], classes.train),
                (arrays["test_images"], arrays["test_labels"], classes.test),
            ]
        digits = []
        for images, labels, found in sets:
            known = {
                i.tobytes(): label for i, label in zip(images, labels, strict=True)
            }
            for turns in range(4):
                turned_back = np.rot90(found[turns::4], -turns, axes=(2, 3))
                kinds = [
                    {known[np.ascontiguousarray(image).tobytes()] for image in one}
                    for one in turned_back[:, :50]
                ]
                assert all(len(one) == 1 for one in kinds)
            digits.append([min(one) for one in kinds])
        assert digits == [[0, 1, 2, 5, 6, 8, 9], [3, 4, 7]]

    def test_omniglot(self, tmp_path):
        arrays = omniglot()
        np.savez(tmp_path / characters.OMNIGLOT, **arrays)
        classes = characters.load(tmp_path)
        assert classes.name == "Omniglot"
        # Greek's two characters; one of each other alphabet but Tagalog, not there.
        assert classes.train.shape == (4 * 2, 3, 28, 28)
        assert classes.test.shape == (4 * 2, 3, 28, 28)
        np.testing.assert_array_equal(classes.train[0], arrays["images"][:3])
        np.testing.assert_array_equal(
            classes.train[4 + 1], np.rot90(arrays["images"][6:9], axes=(1, 2))
        )
        np.testing.assert_array_equal(classes.test[0], arrays["images"][9:12])
        np.testing.assert_array_equal(classes.test[4], arrays["images"][12:15])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a: a.pop("subset"), "subset"),
            (lambda a: a.update(images=a["images"][:, :20]), r"\[15, 20, 28\]"),
            (lambda a: a.update(images=a["images"] / 255), "float64"),
            (lambda a: a.update(character=a["character"][1:]), r"character.*\[14\]"),
            (lambda a: a.update(alphabet=a["alphabet"] + 3), "alphabet_names"),
            (lambda a: a.update(alphabet_names=np.array(list("abcd"))), "Balinese"),
        ],
    )
    def test_an_omniglot_that_is_none(self, change, message, tmp_path):
        arrays = omniglot()
        change(arrays)
        np.savez(tmp_path / characters.OMNIGLOT, **arrays)
        with pytest.raises(ValueError, match=message):
            characters.load(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
    def test_a_file_that_is_no_archive(self, content, tmp_path):
        (tmp_path / characters.OMNIGLOT).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            characters.load(tmp_path)


def omniglot():
    """Greek with two characters, the first of them twice; two held-out alphabets."""
    images = numbered(5, 3).reshape(15, 28, 28)
    images[3:6] = images[:3]  # As in Omniglot's two small background sets.
    return {
        "images": images,
        "alphabet": np.repeat([2, 2, 2, 0, 1], 3).astype("uint8"),
        "character": np.repeat([1, 1, 2, 1, 1], 3).astype("uint8"),
        "subset": np.repeat([1, 2, 1, 1, 1], 3).astype("uint8"),
        "alphabet_names": np.array(["Balinese", "Early_Aramaic", "Greek", "Latin"]),
    }


class TestHypergradient:
    @pytest.mark.parametrize("jit_compile", in_tiers([False, True], [False]))
    def test_against_an_unrolled_tape(self, jit_compile):
        keras.config.set_floatx("float64")
        network = experiment.make_network(SETTINGS)
        episodes = drawn(SETTINGS)
        problem = experiment.make_problem(network, episodes, SETTINGS)
        result = far.ReverseHG(jit_compile=jit_compile).compute(
            problem, SETTINGS.num_steps, episodes=[4, 7]
        )
        naive = [unrolled(network, episodes(tf.constant(n))) for n in (4, 7)]
        values, gradients = zip(*naive, strict=True)
        assert_close(result.outer_values, values, 1e-9)
        means = [(one + other) / 2 for one, other in zip(*gradients, strict=True)]
        assert all(np.linalg.norm(mean) > 1e-6 for mean in means)
        assert_close(result.hypergradients, means, 1e-9)

    def test_the_evaluation_trains_the_same_classifier(self):
        network = experiment.make_network(SETTINGS)
        episodes = drawn(SETTINGS)
        problem = experiment.make_problem(network, episodes, SETTINGS)
        evaluation = experiment.Evaluation(network, episodes, SETTINGS)
        rates = tf.constant([0.01, SETTINGS.learning_rate])
        right = evaluation.right(range(8), rates)
        for number in range(8):
            far.ReverseHG(jit_compile=False).compute(
                problem, SETTINGS.num_steps, episodes=[number]
            )
            kernel, bias = problem.variables
            images, labels = episodes(tf.constant(number)).query
            guess = np.argmax(network(images) @ kernel + bias, axis=1)
            np.testing.assert_array_equal(right[1, number], guess == labels.numpy())
        shares = evaluation.shares(8, [0.01, SETTINGS.learning_rate])
        np.testing.assert_allclose(shares, right.mean(axis=-1))


def unrolled(network, episode):
    """Outer value and hypergradient of one episode, all of it under one tape."""
    weights = [tf.convert_to_tensor(w) for w in network.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)

        def features(images):
            x = tf.reshape(images, [-1, 28, 28, 1])
            for kernel, bias in zip(weights[:6:2], weights[1:6:2], strict=True):
                x = tf.nn.relu(tf.nn.conv2d(x, kernel, 2, "SAME") + bias)
            return tf.reshape(x, [len(x), -1]) @ weights[6] + weights[7]

        def log_probabilities(images):
            return tf.nn.log_softmax(features(images) @ kernel + bias)

        (images, labels), (queries, truth) = episode
        kernel = tf.zeros([SETTINGS.features, SETTINGS.ways], tf.float64)
        bias = tf.zeros([SETTINGS.ways], tf.float64)
        targets = np.eye(SETTINGS.ways)[labels.numpy()]
        for _ in range(SETTINGS.num_steps):
            error = (tf.exp(log_probabilities(images)) - targets) / len(targets)
            slope = tf.transpose(features(images)) @ error
            kernel, bias = (
                kernel - SETTINGS.learning_rate * slope,
                bias - SETTINGS.learning_rate * tf.reduce_sum(error, axis=0),
            )
        chosen = np.eye(SETTINGS.ways)[truth.numpy()] * log_probabilities(queries)
        value = -tf.reduce_sum(chosen) / len(chosen)
    return value, tape.gradient(value, weights)


def short_run(tmp_path_factory, replicas):
    """The folder, the output and the results of one on so many devices."""
    flags = {
        "ways": 3,
        "queries": 4,
        "hyper_iterations": 5,
        "num_steps": 3,
        "episodes": 4,
        "filters": 4,
        "features": 8,
        "test_episodes": 20,
        "test_every": 2,
        "learning_rate": 0.3,
        "outer_rate": 0.01,
    }
    folder = tmp_path_factory.mktemp("representation") / "made"
    done = run_example(
        NAME,
        *(f"--{k}={v}" for k, v in flags.items()),
        f"--replicas={replicas}",
        f"--output_dir={folder}",
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return short_run(tmp_path_factory, 1)


class TestRun:
    def test_results(self, small):
        _, output, results = small
        assert len(results["outer_value"]) == 5
        assert [updates for updates, _ in results["curve"]] == [0, 2, 4, 5]
        for name in ("pixels", "initial", "learned"):
            assert 20 < results[name]["mean"] <= 100
            assert results[name]["standard_error"] > 0
            assert f"{results[name]['mean']:.2f}" in output
        assert results["learned"]["learning_rate"] == 0.3
        assert results["pixels"]["learning_rate"] in experiment.GRID
        assert results["flags"]["ways"] == 3
        assert "28 classes for training, 12 held out" in output
        assert "5/5" in output

    def test_pictures(self, small):
        folder, *_ = small
        for name in ("curve.png", "episodes.png"):
            content = (folder / name).read_bytes()
            assert content.startswith(b"\x89PNG")
            assert len(content) > 20_000

    @pytest.mark.thorough
    def test_two_replicas_give_the_same(self, small, tmp_path_factory):
        one, two = small[2], short_run(tmp_path_factory, 2)[2]
        assert two["flags"]["replicas"] == 2
        np.testing.assert_allclose(two["outer_value"], one["outer_value"], rtol=1e-5)
        for name in ("pixels", "initial", "learned"):
            # A query may lie on the border between two classes.
            assert two[name]["mean"] == pytest.approx(one[name]["mean"], abs=0.5)

    @pytest.mark.thorough
    def test_it_beats_both_baselines(self):
        """On the embedded digits, with fewer hyper-iterations."""
        settings = experiment.Settings(
            seed=0,
            ways=5,
            shots=1,
            queries=5,
            hyper_iterations=100,
            num_steps=5,
            episodes=8,
            learning_rate=0.2,
            outer_rate=2e-3,
            filters=16,
            features=64,
            test_episodes=300,
            test_every=1000,
            replicas=1,
        )
        outcome = experiment.compare(characters.load(), settings, verbose=0)
        learned, *others = (
            outcome[name].mean for name in ("learned", "pixels", "initial")
        )
        assert min(others) > 45
        assert learned > max(others) + 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data_dir=/nowhere"], "/nowhere/omniglot_small.npz"),
        (["--ways=13"], "held-out classes of MNIST, 12"),
        (["--shots=800", "--queries=100"], "--shots 800 --queries 100"),
        (["--num_steps=0"], "num_steps"),
        (["--replicas=0"], "replicas"),
        (["--outer_rate=nan"], "--outer_rate must be finite"),
        (["--output_dir=/proc/version/results"], "/proc/version"),
        (["surplus"], "Unexpected arguments: surplus"),
    ],
)
def test_errors(flags, message):
    done = run_example(NAME, *flags)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
