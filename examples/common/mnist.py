"""MNIST for the examples: embedded, or the whole set by tensorflow-datasets.

This module does not import TensorFlow, so that missing data are reported at
once.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

# Images and labels.
Part = tuple[np.ndarray, np.ndarray]

EMBEDDED = pathlib.Path(__file__).parent / "data" / "mnist_20k.npz"


class Images(NamedTuple):
    """Images as float32 rows of 784 pixels in [0, 1], labels as int32.

    Attributes:
        train, validation, test: Pairs (images, labels).
    """

    train: Part
    validation: Part
    test: Part


def load(
    dataset: str,
    data_dir: str | os.PathLike | None,
    num_train: int,
    num_validation: int,
) -> Images:
    """Loads and splits the images.

    Args:
        dataset: "embedded" for the 20,000 images in this folder, "mnist" for
            the whole set, prepared by tensorflow-datasets.
        data_dir: Folder of the prepared set; `None` for the embedded one.
        num_train, num_validation: Numbers of images, taken in this order from
            the beginning of MNIST's training images.

    Returns:
        `Images`; the test images are MNIST's 10,000.

    Raises:
        ValueError: If the set is not there, with what to do, or too small.
    """
    if dataset == "embedded":
        if data_dir is not None:
            raise ValueError(
                "--data_dir is for --dataset mnist; the embedded images need none. "
                f"Received: --dataset embedded --data_dir {data_dir}"
            )
        with np.load(EMBEDDED) as arrays:
            train = arrays["train_images"], arrays["train_labels"]
            test = arrays["test_images"], arrays["test_labels"]
    else:
        train, test = _prepared(data_dir)
    needed = num_train + num_validation
    if needed > len(train[0]):
        raise ValueError(
            f"--dataset {dataset} has {len(train[0])} training images; --num_train "
            "and, where there is one, --num_validation must not exceed them together. "
            f"Received: {needed}"
        )
    images, labels = _flatten(train)
    return Images(
        (images[:num_train], labels[:num_train]),
        (images[num_train:needed], labels[num_train:needed]),
        _flatten(test),
    )


def _prepared(data_dir: str | os.PathLike | None) -> list[Part]:
    """The whole set from a folder; nothing is downloaded unasked."""
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser()
    if folder is None or not list(folder.glob("mnist/*/dataset_info.json")):
        raise ValueError(
            "--dataset mnist needs the folder in which tensorflow-datasets has "
            f"prepared MNIST. Received: --data_dir {data_dir}. Where there is a "
            'network, prepare it by\n  python -c "import tensorflow_datasets as tfds;'
            " tfds.load('mnist', data_dir='DIR')\"\nand give --data_dir DIR; or leave "
            "out --dataset to use the embedded images."
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder("mnist", data_dir=folder)
    if not builder.is_prepared():
        raise ValueError(f"MNIST is not completely prepared in {folder}")
    splits = builder.as_dataset(split=["train", "test"], batch_size=-1)
    return [
        (images["image"][..., 0], images["label"]) for images in tfds.as_numpy(splits)
    ]


def _flatten(part: Part) -> Part:
    images, labels = part
    rows = images.reshape(len(images), -1).astype("float32") / 255
    return rows, labels.astype("int32")
