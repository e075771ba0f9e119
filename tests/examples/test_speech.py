"""The spoken digits of the examples, on synthetic recordings."""

import os
import subprocess
import sys

import numpy as np
import pytest

from examples.real_time import speech
from tests.helpers import ROOT


def tone(frequency, num_samples, amplitude=10000.0):
    time = np.arange(num_samples) / 8000
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype("int16")


def of_frames(count):
    """The number of samples of so many frames."""
    return 200 + 80 * (count - 1)


def noise(num_samples, seed=0):
    random = np.random.RandomState(seed)
    return random.randint(-8000, 8000, num_samples).astype("int16")


@pytest.mark.parametrize("frequency", [250, 440, 1000, 1800, 2600, 3500])
def test_a_tone_peaks_in_the_band_that_contains_it(frequency):
    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(4000), 42)
    expected = np.abs(edges[1:-1] - mel(frequency)).argmin()
    assert edges[expected] < mel(frequency) < edges[expected + 2]
    rows = speech.log_mel(speech.cut(tone(frequency, 1000)))
    assert rows.shape == (11, 40)
    assert rows.dtype == np.float32
    assert rows.argmax(1).tolist() == [expected] * 11


def test_energies_are_logarithms_of_the_power():
    quiet, loud = (speech.log_mel(speech.cut(tone(1000, 200, a))) for a in (4e3, 8e3))
    band = loud[0].argmax()
    assert loud[0, band] - quiet[0, band] == pytest.approx(np.log(4), abs=1e-3)
    nothing = speech.log_mel(np.zeros((1, 200), "float32"))
    np.testing.assert_allclose(nothing, np.full((1, 40), np.log(1e-6)), rtol=1e-6)


def test_frames_of_25_ms_begin_every_10_ms():
    recording = noise(of_frames(3) + 79)
    frames = speech.cut(recording)
    samples = (recording - recording.mean()) / 32768
    assert frames.shape == (3, 200)
    for i in range(3):
        np.testing.assert_allclose(frames[i], samples[80 * i :][:200], atol=1e-6)


def test_a_recording_shorter_than_a_frame_is_filled_up():
    frames = speech.cut(np.array([3277, -3277], "int16"))
    expected = np.zeros((1, 200))
    expected[0, :2] = [0.1, -0.1]
    np.testing.assert_allclose(frames, expected, atol=1e-5)
    assert speech.features([noise(50)])[0].shape == (1, 440)


def test_context():
    """Oldest neighbour first; beyond the ends the end frames are repeated."""
    rows = np.arange(20, dtype="float32")[:, None] + np.array([0.0, 0.5])
    got = speech.with_context(rows, np.array([0, 8, 17])).reshape(3, 11, 2)
    assert got[:, :, 0].tolist() == [
        [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5],
        [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
        [12, 13, 14, 15, 16, 17, 18, 19, 19, 19, 19],
    ]
    np.testing.assert_array_equal(got[:, :, 1], got[:, :, 0] + 0.5)


def test_silent_frames_are_dropped():
    recording = noise(of_frames(16)).astype(float)
    recording[400:1000] = 0  # The frames 5, …, 10 begin at 400, …, 800.
    for offset in (0, 5000):
        spoken = speech.spoken(speech.cut(recording + offset))
        assert spoken.tolist() == [0, 1, 2, 3, 4, 11, 12, 13, 14, 15]
    assert not speech.spoken(speech.cut(np.zeros(1000))).size


def test_a_frame_is_silent_from_30_db_below_the_loudest():
    frames = np.ones((3, 200), "float32")
    frames[1:] *= 10 ** (-np.array([[29.9], [30.1]]) / 20)
    assert speech.spoken(frames).tolist() == [0, 1]


def test_at_most_16_frames_evenly_spaced():
    spoken = speech.spoken(np.ones((61, 200), "float32"))
    assert spoken.tolist() == list(range(0, 61, 4))
    assert speech.spoken(np.ones((16, 200))).tolist() == list(range(16))
    assert len(set(speech.spoken(np.ones((17, 200))))) == 16


def test_features_of_recordings_do_not_mix():
    recordings = [noise(of_frames(count), count) for count in (7, 1, 12)]
    together = speech.features(recordings)
    assert [len(rows) for rows in together] == [7, 1, 12]
    for rows, recording in zip(together, recordings, strict=True):
        energies = speech.log_mel(speech.cut(recording))
        np.testing.assert_allclose(rows[:, 200:240], energies, rtol=1e-4)
        alone = speech.features([recording])[0]
        np.testing.assert_allclose(rows, alone, rtol=1e-4)


@pytest.fixture(scope="module")
def twenty():
    """Twenty recordings of 1, …, 10 frames; the label is the recording's number."""
    recordings = [noise(of_frames(1 + i % 10), i) for i in range(20)]
    return recordings, np.arange(20)


def test_no_recording_is_in_two_parts(twenty):
    frames = speech.prepare(*twenty, seed=0)
    parts = [set(labels.tolist()) for _, labels in frames]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert set.union(*parts) == set(range(20))
    every = np.concatenate([labels for _, labels in frames])
    assert np.bincount(every).tolist() == [1 + i % 10 for i in range(20)]


def test_rows_keep_their_labels_and_are_normalized_by_the_training_part(twenty):
    rows, labels = (list(x) for x in zip(*speech.prepare(*twenty, seed=1), strict=True))
    assert [x.dtype for x in rows + labels] == [np.float32] * 3 + [np.int32] * 3
    np.testing.assert_allclose(rows[0].mean(0), np.zeros(440), atol=1e-4)
    np.testing.assert_allclose(rows[0].std(0), np.ones(440), atol=1e-4)
    raw = speech.features(twenty[0])
    train = np.concatenate([raw[i] for i in dict.fromkeys(labels[0].tolist())])
    for part, numbers in zip(rows, labels, strict=True):
        for i in set(numbers.tolist()):
            expected = (raw[i] - train.mean(0)) / train.std(0)
            np.testing.assert_allclose(part[numbers == i], expected, atol=1e-3)


def test_a_constant_feature_stays_finite():
    frames = speech.prepare([tone(500, 1000)] * 5, np.zeros(5, int), seed=0)
    assert all(np.isfinite(rows).all() for rows, _ in frames)


def test_the_seed_chooses_the_split(twenty):
    first, again, other = (speech.prepare(*twenty, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.train[0], again.train[0])
    assert set(first.test[1].tolist()) == set(again.test[1].tolist())
    assert set(first.test[1].tolist()) != set(other.test[1].tolist())


@pytest.mark.parametrize("folder", [None, "/nowhere"])
def test_a_missing_data_set_is_said_with_what_to_do(folder):
    with pytest.raises(ValueError, match=f"Received: --data_dir {folder}") as caught:
        speech.load(folder, 0)
    for text in ("--dataset spoken_digit", "tfds.load('spoken_digit'"):
        assert text in str(caught.value)


def test_it_is_said_before_tensorflow_is_imported():
    code = (
        "import sys\n"
        "from examples.real_time import speech\n"
        "try:\n    speech.load('/nowhere', 0)\n"
        "except ValueError:\n    sys.exit('tensorflow' in sys.modules)\n"
        "sys.exit('nothing was said')\n"
    )
    path = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | path)


def test_an_incomplete_data_set_is_said(tmp_path):
    folder = tmp_path / "spoken_digit" / "incomplete.1.0.9"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not completely prepared in --data_dir") as e:
        speech.load(tmp_path, 0)
    assert "tfds.load('spoken_digit'" in str(e.value)


def test_a_prepared_data_set(tmp_path, twenty):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    recordings, _ = twenty
    digits = [i % 10 for i in range(20)]

    def given():
        for recording, digit in zip(recordings, digits, strict=True):
            audio = recording.astype("int64")
            yield {"audio": audio, "audio/filename": f"{digit}.wav", "label": digit}

    signature = {
        "audio": tf.TensorSpec([None], tf.int64),
        "audio/filename": tf.TensorSpec([], tf.string),
        "label": tf.TensorSpec([], tf.int64),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="spoken_digit",
        version="1.0.9",
        features=tfds.features.FeaturesDict(
            {
                "audio": tfds.features.Audio(file_format="wav", sample_rate=8000),
                "audio/filename": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={
            "train": tf.data.Dataset.from_generator(given, output_signature=signature)
        },
        data_dir=tmp_path,
        disable_shuffling=True,
    )
    expected = speech.prepare(recordings, np.array(digits), seed=2)
    for got, part in zip(speech.load(tmp_path, 2), expected, strict=True):
        np.testing.assert_array_equal(got[0], part[0])
        np.testing.assert_array_equal(got[1], part[1])
