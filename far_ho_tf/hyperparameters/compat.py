"""Hyperparameters as the authors' packages make them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from far_ho_tf._types import TensorLike
from far_ho_tf.hyperparameters.hyperparameter import Hyperparameter


def get_hyperparameter(
    name: str,
    initializer: TensorLike
    | keras.initializers.Initializer
    | Callable[..., Any]
    | None = None,
    shape: Sequence[int] | None = None,
    dtype: tf.DType | str | None = None,
    collections: None = None,
    scalar: bool = False,
    constraint: keras.constraints.Constraint | str | None = None,
) -> Hyperparameter:
    """Makes a `Hyperparameter` with the signature that FAR-HO had.

    Args:
        name: String.
        initializer: See `Hyperparameter`; `None` with a `shape` is
            `"glorot_uniform"`, TensorFlow 1's default.
        shape: Tuple of integers, or `None` where the initializer is a value.
        dtype: See `Hyperparameter`.
        collections: Must be `None`: TensorFlow 2 has no graph collections.
        scalar: Accepted and without effect. In FAR-HO it split a tensor into
            scalars because forward mode worked on scalars only; here every
            mode takes tensors.
        constraint: See `Hyperparameter`.

    Returns:
        A `Hyperparameter`.

    Raises:
        ValueError: If `collections` is given, or neither `initializer` nor
            `shape`.
    """
    del scalar
    if collections is not None:
        raise ValueError(
            "`collections` must be None: TensorFlow 2 has no graph "
            "collections; list the variable in "
            "`BilevelProblem(hyperparameters=[...])` instead. Received: "
            f"collections={collections}"
        )
    if initializer is None:
        if shape is None:
            raise ValueError(
                "`get_hyperparameter` needs an `initializer` or a `shape`. "
                f"Received: name={name}, initializer=None, shape=None"
            )
        initializer = "glorot_uniform"
    return Hyperparameter(
        initializer, shape=shape, dtype=dtype, name=name, constraint=constraint
    )
