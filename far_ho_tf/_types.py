"""Types that several modules name."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

# A Keras variable or a bare one, as users have them.
Variable: TypeAlias = keras.Variable | tf.Variable
# A nested structure of tensors, as of `tf.nest`: which, the docstring tells.
Structure: TypeAlias = Any
# What stands for one number, and may be tuned or scheduled.
Number: TypeAlias = float | int | np.ndarray | tf.Tensor | Variable | Callable[..., Any]
# A user's objective: of a batch, or of nothing.
ObjectiveFunction: TypeAlias = Callable[..., tf.Tensor]
# What `tf.convert_to_tensor` takes: numbers, arrays and tensors, and lists of these.
TensorLike: TypeAlias = tf.types.experimental.TensorLike
# What a tape gives, where it gives something.
Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
# An optimizer of hyperparameters, or one for each group of them.
OuterOptimizer: TypeAlias = (
    keras.optimizers.Optimizer
    | str
    | Sequence[tuple[Variable | Sequence[Variable], keras.optimizers.Optimizer | str]]
    | None
)


class ConcreteFunction(Protocol):
    """A traced function; TensorFlow's public type has less than it has."""

    graph: FuncGraph
    captured_inputs: list[tf.Tensor]
    structured_outputs: Structure
    inference_fn: Any

    def __call__(self, *arguments: Structure, **options: Structure) -> Structure: ...


class PolymorphicFunction(Protocol):
    """What `tf.function` makes."""

    def __call__(self, *arguments: Structure, **options: Structure) -> Structure: ...

    def get_concrete_function(
        self, *arguments: Structure, **options: Structure
    ) -> ConcreteFunction: ...
