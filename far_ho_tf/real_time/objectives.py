"""The two objectives that a compiled Keras model stands for."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from far_ho_tf._types import Structure
from far_ho_tf.checks import require
from far_ho_tf.hyperparameters.hyperparameter import Hyperparameter

# As `keras.Model.compile` takes them.
Loss: TypeAlias = str | Callable[..., Any] | Sequence[Any] | Mapping[str, Any] | None
LossWeights: TypeAlias = float | Sequence[Any] | Mapping[str, Any] | None


class Objectives:
    """Inner and outer objective on batches as Keras passes them.

    Args:
        model: A compiled `keras.Model`: what is trained, by its loss with all
            regularizers.
        hyper_loss: The outer loss, as `keras.Model.compile` takes it; `None` for
            the loss of the model.

    Attributes:
        hyper_loss: As given.
        predictions: What the model predicted when the inner objective was first
            traced since they were last `None`: later traces of a step are those
            of a line search.
    """

    def __init__(self, model: keras.Model, hyper_loss: Loss) -> None:
        self._model = model
        self.hyper_loss = hyper_loss
        # A model without layers: Keras' own way from losses, weights of losses
        # and sample weights to a scalar, without the regularizers.
        self._judge = _Judge(model.output_names)
        self.predictions = None

    @functools.cached_property
    def idle(self) -> Hyperparameter:
        """The one of a model that has none, since a problem must; it is 0."""
        return Hyperparameter(0.0, dtype=self._model.variable_dtype, name="idle")

    def compile(self, loss: Loss, loss_weights: LossWeights) -> None:
        """Sets the outer objective; takes what the model is compiled with."""
        if self.hyper_loss is not None:
            loss, loss_weights = self.hyper_loss, None
        self._judge.compile(loss=loss, loss_weights=loss_weights)

    def inner(self, batch: Structure) -> tf.Tensor:
        """The loss on training data, with regularizers, in training mode."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        predictions = self._model(x, training=True)
        if self.predictions is None:
            self.predictions = predictions
        return self._model.compute_loss(  # pyright: ignore[reportReturnType]
            x=x, y=y, y_pred=predictions, sample_weight=sample_weight
        )

    def outer(self, batch: Structure = None) -> tf.Tensor:
        """The outer loss, in inference mode."""
        if batch is None:
            return tf.convert_to_tensor(self.idle)
        check_batch(batch)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        predictions = self._model(x, training=False)
        return self._judge.compute_loss(  # pyright: ignore[reportReturnType]
            y=y, y_pred=predictions, sample_weight=sample_weight
        )


def check_batch(batch: Structure) -> None:
    """Refuses data that are not as Keras has them."""
    pair = isinstance(batch, (tuple, list)) and len(batch) in (2, 3)
    leaves = tf.nest.flatten(batch)
    require(
        pair and all(leaf is None or hasattr(leaf, "shape") for leaf in leaves),
        "`hyper_data` must be arrays (x, y) or (x, y, sample_weight), or far.Batches, "
        "a tf.data.Dataset or a callable(step) of such tuples.",
        hyper_data=_outline(batch),
    )
    require(
        all(0 not in leaf.shape for leaf in leaves if leaf is not None),
        "`hyper_data` must not be empty.",
        hyper_data=_outline(batch),
    )
    shapes = [tf.TensorShape(leaf.shape) for leaf in leaves if leaf is not None]
    numbers = {shape[0] for shape in shapes if shape.rank} - {None}
    require(
        len(numbers) < 2,
        "`hyper_data` must have one first dimension, the number of examples.",
        hyper_data=_outline(batch),
    )


class _Judge(keras.Model):
    def __init__(self, output_names: list[str] | None) -> None:
        super().__init__()
        if output_names is not None:
            self.output_names = output_names


def _outline(batch: Structure) -> Structure:
    """Shapes in the place of arrays."""
    return tf.nest.map_structure(
        lambda leaf: (
            f"{type(leaf).__name__}{tuple(leaf.shape)}"
            if hasattr(leaf, "shape")
            else leaf
        ),
        batch,
    )
