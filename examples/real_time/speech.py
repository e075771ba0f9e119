"""Spoken digits for the examples, frame by frame, by tensorflow-datasets.

They stand in for the phones (TIMIT) of Franceschi et al. 2017, section 5.3: a
frame of speech is classified with its neighbours; its class is the digit spoken.

This module imports TensorFlow late, so that missing data are reported at once.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from examples.common.mnist import Part

SAMPLE_RATE = 8000
WINDOW = 200  # Samples: 25 ms,
HOP = 80  # and 10 ms.
FFT = 256
BANDS = 40
LOWEST, HIGHEST = 20.0, 4000.0  # Hz.
CONTEXT = 5  # Frames on each side.
MOST_FRAMES = 16  # Of one recording.
SILENCE = 1e-3  # Of the energy of the loudest frame: 30 dB below it.

PREPARE = (
    "Where there are a network and pydub, prepare it by\n"
    '  python -c "import tensorflow_datasets as tfds;'
    " tfds.load('spoken_digit', data_dir='DIR')\"\nand give --data_dir DIR."
)


class Frames(NamedTuple):
    """Frames with context as float32 rows of 440 features, labels as int32.

    Attributes:
        train, validation, test: Pairs (features, labels).
    """

    train: Part
    validation: Part
    test: Part


def load(data_dir: str | os.PathLike | None, seed: int) -> Frames:
    """Loads and splits the Free Spoken Digit Dataset; see `prepare`.

    Args:
        data_dir: Folder in which tensorflow-datasets has prepared it.
        seed: Of the split.

    Returns:
        `Frames`; the labels are the digits.

    Raises:
        ValueError: If the set is not there, with what to do.
    """
    return prepare(*_prepared(data_dir), seed)


def prepare(recordings: list[np.ndarray], labels: np.ndarray, seed: int) -> Frames:
    """Turns recordings into normalized examples, one per frame.

    Recordings, not frames, are split 60 : 20 : 20 at random, so that all frames
    of a recording are in the same part. (The speakers are in all parts.)

    Args:
        recordings: Arrays of 16-bit samples at 8 kHz, of any lengths.
        labels: One integer per recording.
        seed: Of the split.

    Returns:
        `Frames`; every feature has mean 0 and standard deviation 1 over the
        training part.
    """
    examples = features(recordings)
    counts = np.array([len(of_one) for of_one in examples])
    order = np.random.RandomState(seed).permutation(len(examples))
    bounds = [len(order) * 3 // 5, len(order) * 4 // 5]
    parts = np.split(order, bounds)
    rows = [np.concatenate([examples[i] for i in part]) for part in parts]
    classes = [np.repeat(labels[part], counts[part]).astype("int32") for part in parts]
    mean = rows[0].mean(0, dtype="float64")
    deviation = np.maximum(rows[0].std(0, dtype="float64"), 1e-3)
    normalized = [((part - mean) / deviation).astype("float32") for part in rows]
    return Frames(*zip(normalized, classes, strict=True))


def features(recordings: list[np.ndarray]) -> list[np.ndarray]:
    """Log-mel energies of the spoken frames and of their neighbours.

    A frame is 25 ms long, and one begins every 10 ms. It is silent, and dropped,
    if its energy is 30 dB or more below that of the recording's loudest frame.
    Of the others at most 16 are kept, evenly spaced.

    Args:
        recordings: Arrays of 16-bit samples at 8 kHz, of any lengths.

    Returns:
        An array per recording, with a row per kept frame: 40 energies each of the
        5 frames before it, of itself, and of the 5 after it, whether or not
        these are silent. Beyond the ends of the recording its first and its last
        frame are repeated.
    """
    frames = [cut(recording) for recording in recordings]
    ends = np.cumsum([len(of_one) for of_one in frames])[:-1]
    energies = np.split(log_mel(np.concatenate(frames)), ends)
    return [
        with_context(rows, spoken(of_one))
        for rows, of_one in zip(energies, frames, strict=True)
    ]


def cut(recording: np.ndarray) -> np.ndarray:
    """The frames of a recording, without its offset; a short one is filled up."""
    samples = np.asarray(recording, "float32") / 2**15
    samples = np.pad(samples - samples.mean(), (0, max(0, WINDOW - len(samples))))
    return np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]


def log_mel(frames: np.ndarray) -> np.ndarray:
    """Logarithms of the energies in 40 mel bands; one row per frame."""
    import tensorflow as tf

    spectra = tf.signal.stft(frames, WINDOW, HOP, FFT)[:, 0]
    bands = tf.signal.linear_to_mel_weight_matrix(
        BANDS, FFT // 2 + 1, SAMPLE_RATE, LOWEST, HIGHEST
    )
    return tf.math.log(tf.abs(spectra) ** 2 @ bands + 1e-6).numpy()


def spoken(frames: np.ndarray) -> np.ndarray:
    """Positions of the frames to keep: not silent, at most 16, evenly spaced."""
    energy = (frames**2).sum(1)
    loud = np.flatnonzero(energy > SILENCE * energy.max())
    count = min(len(loud), MOST_FRAMES)
    return loud[np.linspace(0, len(loud) - 1, count).round().astype(int)]


def with_context(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Joins the rows at some positions with their neighbours, earliest first."""
    neighbours = positions[:, None] + np.arange(-CONTEXT, CONTEXT + 1)
    return rows[neighbours.clip(0, len(rows) - 1)].reshape(len(positions), -1)


def _prepared(
    data_dir: str | os.PathLike | None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The recordings and labels of a folder; nothing is downloaded unasked."""
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if folder is None or not list(folder.glob("spoken_digit/*/dataset_info.json")):
        raise ValueError(
            "--dataset spoken_digit needs the folder in which tensorflow-datasets has "
            "prepared the Free Spoken Digit Dataset. Received: --data_dir "
            f"{data_dir}. {PREPARE}"
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder("spoken_digit", data_dir=folder)
    if not builder.is_prepared():
        raise ValueError(
            "The Free Spoken Digit Dataset is not completely prepared in --data_dir "
            f"{folder}. {PREPARE}"
        )
    examples = list(tfds.as_numpy(builder.as_dataset(split="train")))
    return (
        [example["audio"] for example in examples],
        np.array([example["label"] for example in examples]),
    )
