"""Types that several modules name."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

# A Keras variable or a bare one, as users have them.
Variable: TypeAlias = keras.Variable | tf.Variable
# A nested structure of tensors, as of `tf.nest`: which, the docstring tells.
Structure: TypeAlias = Any
# What stands for one number, and may be tuned or scheduled.
Number: TypeAlias = float | int | np.ndarray | tf.Tensor | Variable | Callable[..., Any]
# A user's objective: of a batch, or of nothing.
ObjectiveFunction: TypeAlias = Callable[..., tf.Tensor]
