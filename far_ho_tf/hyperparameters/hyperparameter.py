"""Hyperparameters: the variables that the outer problem tunes."""

import numbers
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import constraints as keras_constraints
from tensorflow.python.framework.ops import SymbolicTensor

from far_ho_tf._types import TensorLike, Variable
from far_ho_tf.checks import require
from far_ho_tf.variables.identity import find, is_composite, path_of

# By their ids: variables cannot be keys.
_made = weakref.WeakValueDictionary()


class Hyperparameter(keras.Variable):
    """A variable that is tuned by the outer problem (λ in the papers).

    It is a `keras.Variable` in every respect: objectives read it, Keras
    optimizers update it and apply its constraint after each update.

    It may take the place of a number of a Keras layer or loss, such as the `stddev` of
    GaussianNoise or a `label_smoothing`. Where these ask by a Python `if` for its sign,
    or whether it equals a number, it is positive and equals none, whatever its value:
    the graph that is being traced serves all values.

    Args:
        initializer: The initial value (a number, an array or a tensor), or a
            Keras initializer, its name, or a callable `(shape, dtype) ->
            tensor`; the last three need `shape`.
        shape: Tuple of integers. Taken from the value where one is given.
        dtype: A floating dtype. The default is that of the array or tensor
            given, and `keras.config.floatx()` for numbers, Python's and NumPy's
            (`np.log(1e-3)`).
        name: String, used in messages, logs and progress bars.
        constraint: A `keras.constraints.Constraint`, such as those of
            `far_ho_tf.constraints`, or its Keras name (`"non_neg"`). It is a
            projection applied after each outer update, not to the initial
            value.

    Raises:
        ValueError: If the dtype is not a floating one: nothing can be
            differentiated with respect to it.

    Example:

    >>> import far_ho_tf as far
    >>> rate = far.Hyperparameter(0.1, name="rate", constraint="non_neg")
    >>> float(rate)
    0.10000000149011612
    """

    # So that an array on the left leaves the operation to it, as to TensorFlow's own.
    __array_priority__ = 100

    def __init__(
        self,
        initializer: TensorLike | keras.initializers.Initializer | Callable[..., Any],
        shape: Sequence[int] | None = None,
        dtype: tf.DType | str | None = None,
        name: str | None = None,
        constraint: keras.constraints.Constraint | str | None = None,
    ) -> None:
        _check_initializer(initializer)
        if dtype is None and _are_numbers(initializer):
            dtype = keras.config.floatx()
        super().__init__(
            initializer, shape=shape, dtype=dtype, trainable=True, name=name
        )
        if not keras.backend.is_float_dtype(self.dtype):
            raise ValueError(
                "A hyperparameter must have a floating dtype, to be "
                "differentiated. Received: "
                f"name={self.name}, dtype={self.dtype} (write 1.0 for 1, or "
                "give dtype='float32')"
            )
        if 0 in self.shape:
            raise ValueError(
                "A hyperparameter must have elements. Received: "
                f"name={self.name}, shape={tuple(self.shape)}"
            )
        self.constraint = _constraint(constraint)
        _made[id(self)] = self

    def get_shape(self) -> tf.TensorShape:
        """What functions of TensorFlow ask its own variables for."""
        return tf.TensorShape(self.shape)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __float__(self) -> float:
        # Of a value that is mirrored over devices, Keras cannot make one.
        return float(tf.convert_to_tensor(self))


class _Comparison(SymbolicTensor):
    """A tensor like others, of which Python may ask whether it is true."""

    def __bool__(self) -> bool:
        if self.answer is None:
            raise TypeError(self.question)
        return self.answer


def _comparison(
    operator: str, with_zero: bool | None, with_others: bool | None
) -> Callable[[Hyperparameter, Any], tf.Tensor]:
    """A comparison of a `Hyperparameter`, and what Python takes it for in a graph.

    Args:
        operator: Name of the method.
        with_zero, with_others: That of one with zero, and with other numbers; `None`
            where that depends on the value.
    """
    compare = getattr(keras.Variable, operator)

    def method(self: Hyperparameter, other: Any) -> tf.Tensor:
        result = compare(self, other)
        if tf.is_symbolic_tensor(result) and isinstance(other, numbers.Real):
            result.__class__ = _Comparison
            result.answer = with_others if other else with_zero
            result.question = (
                f"Python compares the hyperparameter `{path_of(self)}` with {other}, "
                "once for all of its values. Remedy: tf.where or keras.ops.where; a "
                "rate of dropout, whose masks jump, has no derivative"
            )
        return result

    return method


for _name, *_answers in (
    ("__eq__", False, False),
    ("__ne__", True, True),
    ("__gt__", True, None),
    ("__ge__", True, None),
    ("__lt__", False, None),
    ("__le__", False, None),
):
    setattr(Hyperparameter, _name, _comparison(_name, *_answers))


def scalar_names(
    hyperparameters: Iterable[Variable], taken: Iterable[str]
) -> list[tuple[str, Variable]]:
    """Names under which scalar hyperparameters appear in logs.

    Args:
        hyperparameters: List of variables.
        taken: Names that are in use already.

    Returns:
        List of pairs (name, variable), for scalars only.
    """
    hyperparameters = list(hyperparameters)
    named = zip(names_of(hyperparameters, taken), hyperparameters, strict=True)
    return [(name, one) for name, one in named if not one.shape.rank]


def names_of(
    hyperparameters: Iterable[Variable], taken: Iterable[str] = ()
) -> list[str]:
    """A name for each of them; of one that is there already a number tells it apart."""
    names = []
    for variable in hyperparameters:
        name, count = path_of(variable), 0
        while name in taken or name in names:  # Names need not be unique.
            count += 1
            name = f"{path_of(variable)}_{count}"
        names.append(name)
    return names


def unlisted(
    handles: Sequence[tf.Tensor], listed: Sequence[Variable]
) -> list[Hyperparameter]:
    """The `Hyperparameter`s that something reads without a problem's tuning them.

    Args:
        handles: List of the tensors that it reads; those of variables are handles.
        listed: List of the problem's hyperparameters.
    """
    found = []
    for one in list(_made.values()):
        # A variable that is mirrored over devices has one on each.
        copies = getattr(one._value, "values", [one._value])
        own = [copy.handle for copy in copies if copy is not None]
        reads = any(handle is other for handle in own for other in handles)
        if reads and find(one, listed) is None:
            found.append(one)
    return found


def _are_numbers(value: Any) -> bool:
    """Whether it is a floating number, or a list of lists of them; not an array."""
    leaves = tf.nest.flatten(value)
    return bool(leaves) and all(
        isinstance(leaf, (float, np.floating)) for leaf in leaves
    )


def _check_initializer(value: Any) -> None:
    if is_composite(value):
        raise ValueError(
            "A hyperparameter must be a dense number, array or tensor. Received: "
            f"initializer={value!r}"
        )
    try:
        known = value is not None and keras.initializers.get(value) is not None
    except ValueError:  # What names none may be a number, an array or a tensor.
        known = not isinstance(value, str)
    require(
        known,
        "`initializer` must be a number, an array, a tensor or a Keras initializer.",
        initializer=value,
    )


def _constraint(value: Any) -> keras.constraints.Constraint | None:
    try:
        return keras_constraints.get(value)  # pyright: ignore[reportReturnType]
    except (ValueError, TypeError) as error:
        raise ValueError(
            "`constraint` must be a `keras.constraints.Constraint`, such as "
            "far.constraints.Interval(low, high) for bounds, or the name of one of "
            f"Keras', such as 'non_neg'. Received: constraint={value!r}"
        ) from error
