"""Classes of characters for few-shot learning: MNIST's digits, or Omniglot.

Each character gives four classes, by turns of 90°. Those of the held-out characters
are for meta-testing. This module does not import TensorFlow, so that missing data are
reported at once.
"""

import os
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from examples.common import mnist

# Not 6 and 9, which turn into each other, nor 0, 1 and 8, which turn into themselves.
HELD_OUT_DIGITS = (3, 4, 7)
# Not Greek and Latin, which share letters.
HELD_OUT_ALPHABETS = ("Balinese", "Early_Aramaic", "Tagalog")
OMNIGLOT = "omniglot_small.npz"
_KEYS = ("images", "alphabet", "character", "subset", "alphabet_names")


class Classes(NamedTuple):
    """Images by class: uint8 arrays of the shape [classes, examples, 28, 28].

    The classes of one character follow each other, four of them.

    Attributes:
        train, test: Of the characters for meta-training, and of those held out.
        name: Of the data.
    """

    train: np.ndarray
    test: np.ndarray
    name: str


def load(data_dir: str | os.PathLike | None = None) -> Classes:
    """Loads the classes.

    Args:
        data_dir: Folder that holds omniglot_small.npz; `None` for the embedded digits.

    Returns:
        `Classes`.

    Raises:
        ValueError, OSError: If the file is not there, or not what it should be.
    """
    if data_dir is None:
        return _digits()
    return _omniglot(pathlib.Path(data_dir).expanduser() / OMNIGLOT)


def turned(characters: list[np.ndarray]) -> np.ndarray:
    """Four classes of each character, by turns of 90°.

    Args:
        characters: List of arrays [examples, 28, 28], one for each character.

    Returns:
        An array [4 · characters, examples, 28, 28], of as many examples as all have.
    """
    count = min(len(images) for images in characters)
    classes = [
        np.rot90(images[:count], turns, axes=(1, 2))
        for images in characters
        for turns in range(4)
    ]
    return np.stack(classes)


def check(classes: Classes, ways: int, shots: int, queries: int) -> None:
    """Raises a `ValueError` if there are too few classes or examples for an episode."""
    for name, images in (("meta-training", classes.train), ("held-out", classes.test)):
        if ways > len(images):
            raise ValueError(
                f"--ways must not exceed the {name} classes of {classes.name}, "
                f"{len(images)}. Received: --ways {ways}"
            )
        if shots + queries > images.shape[1]:
            raise ValueError(
                f"--shots and --queries together must not exceed the {name} examples "
                f"of a class of {classes.name}, {images.shape[1]}. Received: --shots "
                f"{shots} --queries {queries}"
            )


def _digits() -> Classes:
    """Meta-training has MNIST's training images only, meta-testing its test images."""
    with np.load(mnist.EMBEDDED) as arrays:
        train = arrays["train_images"], arrays["train_labels"]
        test = arrays["test_images"], arrays["test_labels"]
    kept = [digit for digit in range(10) if digit not in HELD_OUT_DIGITS]
    return Classes(
        turned([train[0][train[1] == digit] for digit in kept]),
        turned([test[0][test[1] == digit] for digit in HELD_OUT_DIGITS]),
        "MNIST",
    )


def _omniglot(path: pathlib.Path) -> Classes:
    arrays = _read(path)
    names = [str(name) for name in arrays["alphabet_names"]]
    characters: dict[bool, list[np.ndarray]] = {True: [], False: []}
    alphabets = np.unique(arrays["alphabet"])
    for alphabet in alphabets:
        mine = arrays["alphabet"] == alphabet
        for character in np.unique(arrays["character"][mine]):
            images = arrays["images"][mine & (arrays["character"] == character)]
            held_out = names[alphabet] in HELD_OUT_ALPHABETS
            characters[held_out].append(distinct(images))
    if not all(characters.values()):
        raise ValueError(
            f"{path} must hold the alphabets {', '.join(HELD_OUT_ALPHABETS)}, which "
            "are held out, and others. Received: "
            + ", ".join(names[alphabet] for alphabet in alphabets)
        )
    return Classes(turned(characters[False]), turned(characters[True]), "Omniglot")


def distinct(images: np.ndarray) -> np.ndarray:
    """Images without repetitions, in order.

    Omniglot's two small background sets share alphabets. An image twice in a class
    could be in the support and in the query set of an episode.
    """
    rows = images.reshape(len(images), -1)
    _, first = np.unique(rows, axis=0, return_index=True)
    return images[np.sort(first)]


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of the file, checked."""
    if not path.is_file():
        raise ValueError(
            f"--data_dir must be a folder that holds {OMNIGLOT}; leave it out to use "
            f"the embedded MNIST digits. There is no file {path}"
        )
    wanted = f"{path} must hold arrays {', '.join(_KEYS)}."
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wanted} It cannot be read: {error}") from error
    if set(_KEYS) - set(arrays):
        raise ValueError(f"{wanted} Received: {', '.join(sorted(arrays))}")
    images = arrays["images"]
    if images.ndim != 3 or images.shape[1:] != (28, 28) or images.dtype != np.uint8:
        raise ValueError(
            f"{wanted} images must be uint8 of the shape [n, 28, 28]. Received: "
            f"{images.dtype} of the shape {list(images.shape)}"
        )
    for key in ("alphabet", "character"):
        values = arrays[key]
        if values.shape != images.shape[:1] or values.dtype.kind not in "iu":
            raise ValueError(
                f"{wanted} {key} must be an integer for each image. Received: "
                f"{values.dtype} of the shape {list(values.shape)}"
            )
    if not np.all(np.isin(arrays["alphabet"], range(len(arrays["alphabet_names"])))):
        raise ValueError(f"{wanted} alphabet must count alphabet_names from 0.")
    return arrays
