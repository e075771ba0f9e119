"""Keras optimizers whose update is a function of tensors.

On the TensorFlow backend Keras' optimizers write to `tf.Variable`s, by way of
tf.distribute, and their `stateless_apply` raises. Within `functional` the same
object uses Keras' backend-agnostic methods instead, which a
`keras.StatelessScope` can follow.
"""

import contextlib
import numbers
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import numpy as keras_numpy  # Which keras.ops calls.

from far_ho_tf._types import Gradient, Variable
from far_ho_tf.checks import require
from far_ho_tf.patches.safe_roots import safe_roots, safe_sqrt
from far_ho_tf.variables.derivatives import dense
from far_ho_tf.variables.identity import path_of

# keras.optimizers.Optimizer is the agnostic class with TensorFlow's ways added.
_TensorFlowOptimizer, _AgnosticOptimizer = keras.optimizers.Optimizer.__bases__
_classes = {}
_keras_divide: Callable[..., Any] = keras_numpy.divide


@contextlib.contextmanager
def functional(
    optimizer: keras.optimizers.Optimizer,
    names: list[str],
    by_variable: list[dict[str, Any]],
) -> Iterator[None]:
    """Lets an optimizer's `_backend_apply_gradients` work on substitutes.

    Args:
        optimizer: A Keras optimizer; it is put back in the end.
        names: Names of the numbers that `by_variable` gives.
        by_variable: List, for each variable, of mappings from them to what takes the
            place of the optimizer's own numbers. Made before: within, `tf.sqrt`
            is another.
    """
    own_class, attributes = type(optimizer), optimizer.__dict__
    kept = {name: attributes[name] for name in names if name in attributes}
    if own_class not in _classes:
        _classes[own_class] = type(own_class)(
            own_class.__name__, (own_class, _Functional), {}
        )
    object.__setattr__(optimizer, "__class__", _classes[own_class])
    attributes["_numbers"] = by_variable
    try:
        with safe_roots(), _plain_division():
            yield
    finally:
        object.__setattr__(optimizer, "__class__", own_class)
        for name in (*names, "_numbers", "_indices"):
            attributes.pop(name, None)
        attributes.update(kept)


@contextlib.contextmanager
def _plain_division() -> Iterator[None]:
    """Within, Keras divides `IndexedSlices` without a branch, as it does elsewhere."""
    keras_numpy.divide = _divide
    try:
        yield
    finally:
        keras_numpy.divide = _keras_divide


def _divide(
    x1: Gradient,
    x2: Gradient | Variable | float,
) -> Gradient:
    """Keras' quotient of a gradient by rows and what is dense.

    Keras asks, by `tf.cond`, whether it divides 0 by 0 where no row was read, as
    without an epsilon, and gives NaN there; here all is NaN then.
    """
    is_dense = not isinstance(x2, tf.IndexedSlices) and len(getattr(x2, "shape", ()))
    if not (isinstance(x1, tf.IndexedSlices) and is_dense):
        return _keras_divide(x1, x2)
    x2 = tf.convert_to_tensor(x2)
    defined = tf.reduce_all(tf.not_equal(x2, 0) & ~tf.math.is_nan(x2))  # pyright: ignore[reportOperatorIssue]
    values = _keras_divide(x1.values, tf.gather(x2, x1.indices))
    nan = tf.constant(float("nan"), values.dtype)
    return tf.IndexedSlices(tf.where(defined, values, nan), x1.indices, x1.dense_shape)


class Number:
    """A tensor in the place of a Python number that an optimizer tests by `if`.

    In a comparison with zero (`if self.momentum != 0`) it is a positive number,
    whatever its value: a hyperparameter may come to have any. One with another
    number is refused, since it would be decided once for all values; one with a
    tensor is a tensor.

    Args:
        name: Of the number.
        tensor: Its value; `None` while an optimizer is built, when nothing that is
            made from it would be differentiated.
        compared: Set that gets the name if it is asked for its sign.
    """

    def __init__(
        self, name: str, tensor: tf.Tensor | None, compared: set[str] | None = None
    ) -> None:
        self.name = name
        self._tensor = tensor
        self._compared = set() if compared is None else compared

    @property
    def tensor(self) -> tf.Tensor:
        if self._tensor is None:
            raise TypeError(
                f"{self!r} is read while the optimizer is built, and what is made from "
                "it then would not be differentiated. Remedy: read it in `update_step`"
            )
        return self._tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    def __bool__(self) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"the hyperparameter in the place of `{self.name}`"


def _compare(name: str, with_zero: bool) -> Callable[..., Any]:
    def method(self, other: Any) -> Any:
        other = other.tensor if isinstance(other, Number) else other
        if tf.is_tensor(other) or isinstance(other, (keras.Variable, np.ndarray)):
            return getattr(self.tensor, name)(other)
        if not isinstance(other, numbers.Real):
            return NotImplemented
        if other != 0:
            raise TypeError(
                f"Python compares {self!r} with {other}, once for all of its values. "
                "Remedy: keras.ops.where and keras.ops.greater in the optimizer"
            )
        if name not in ("__eq__", "__ne__"):
            self._compared.add(self.name)
        return with_zero

    return method


for _name, _with_zero in (
    *(("eq", False), ("ne", True)),
    *(("gt", True), ("ge", True), ("lt", False), ("le", False)),
):
    setattr(Number, f"__{_name}__", _compare(f"__{_name}__", _with_zero))


def _forward(name: str) -> Callable[..., tf.Tensor]:
    def method(self, *others: Any) -> tf.Tensor:
        values = [o.tensor if isinstance(o, Number) else o for o in others]
        return getattr(self.tensor, name)(*values)

    return method


def _refuse(self) -> NoReturn:
    raise TypeError(f"{self!r} is a tensor, of which Python knows no value")


for _name in ("__int__", "__index__", "__float__", "__round__"):
    setattr(Number, _name, _refuse)
Number.__pos__ = lambda self: self.tensor  # pyright: ignore[reportAttributeAccessIssue]
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Number, f"__{_name}__", _forward(f"__{_name}__"))
    setattr(Number, f"__r{_name}__", _forward(f"__r{_name}__"))
for _name in ("__neg__", "__abs__"):
    setattr(Number, _name, _forward(_name))
tf.register_tensor_conversion_function(
    Number,
    lambda number, dtype=None, name=None, as_ref=False: tf.convert_to_tensor(
        number.tensor, dtype, name=name
    ),
)


def _written_over(variable: tf.Tensor, slices: tf.IndexedSlices) -> tf.Tensor:
    """What a variable holds after some rows were assigned, the last of each.

    By none of TensorFlow's scatters: their gradients go to all of a row's.
    """
    count = tf.shape(slices.indices)[0]
    last = tf.math.unsorted_segment_max(
        tf.range(count), slices.indices, variable.shape[0]
    )
    assigned = tf.reshape(last >= 0, [-1] + [1] * (len(variable.shape) - 1))
    values = tf.gather(slices.values, tf.maximum(last, 0))
    return tf.where(assigned, tf.cast(values, variable.dtype), variable)


class _Functional(_TensorFlowOptimizer):
    """Comes after an optimizer's own class and before TensorFlow's."""

    # What TensorFlow's scatters to a tf.Variable.
    def assign(self, variable: Variable, value: Gradient) -> None:
        if isinstance(value, tf.IndexedSlices):
            value = _written_over(variable, value)
        super(_TensorFlowOptimizer, self).assign(variable, value)

    def assign_add(self, variable: Variable, value: Gradient) -> None:
        super(_TensorFlowOptimizer, self).assign_add(variable, dense(value))

    def assign_sub(self, variable: Variable, value: Gradient) -> None:
        super(_TensorFlowOptimizer, self).assign_sub(variable, dense(value))

    _apply_weight_decay = _AgnosticOptimizer._apply_weight_decay

    # Both look at the tf.Variable, which a substituted one hides.
    def _var_key(self, variable: Variable) -> Hashable:
        return super()._var_key(underlying(variable))

    def _use_weight_decay(self, variable: Variable) -> bool:
        return super()._use_weight_decay(underlying(variable))

    def _use_numbers(self, index: int) -> None:
        self.__dict__.update(self._numbers[index])

    def _get_current_learning_rate(self) -> tf.Tensor:
        given = self.__dict__.get("learning_rate")
        return super()._get_current_learning_rate() if given is None else given.tensor

    def _backend_apply_gradients(
        self, gradients: list[Gradient | None], variables: list[keras.Variable]
    ) -> None:
        """As Keras', without branches on tensors; numbers differ by variable.

        What has no gradient, `None`, stays where it is.
        """
        self.__dict__["_indices"] = {
            self._var_key(v): i for i, v in enumerate(variables)
        }
        moved = [i for i, gradient in enumerate(gradients) if gradient is not None]
        gradients = self._clip_gradients(gradients)
        for index in moved:
            self._use_numbers(index)
            self._apply_weight_decay([variables[index]])
        self._use_numbers(moved[0])
        self._backend_update_step(
            [gradients[index] for index in moved],
            [variables[index] for index in moved],
            self.learning_rate,
        )
        if self.use_ema:
            for index in moved:
                self._use_numbers(index)
                self._move_average(variables[index])

    def _move_average(self, variable: keras.Variable) -> None:
        average = self._model_variables_moving_average[
            self._get_variable_index(variable)
        ]
        kept = tf.convert_to_tensor(self.ema_momentum, variable.dtype)
        kept = tf.where(self.iterations == 0, tf.zeros_like(kept), kept)
        average.assign(kept * average + (1 - kept) * variable)
        due = (self.iterations + 1) % self.ema_overwrite_frequency == 0
        variable.assign(tf.where(due, average.value, variable.value))

    def _backend_update_step(
        self,
        gradients: list[Gradient | None],
        variables: list[keras.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        del learning_rate  # That of the first variable.
        for gradient, variable in zip(gradients, variables, strict=True):
            self._use_numbers(self._indices[self._var_key(variable)])
            self.update_step(gradient, variable, self.learning_rate)

    def _clip_gradients(
        self, gradients: list[Gradient | None]
    ) -> list[Gradient | None]:
        """As Keras', by variable, and with a derivative where all are zero."""
        self._use_numbers(0)
        if self.clipnorm or not (self.global_clipnorm and self.global_clipnorm > 0):
            clipped = []
            for index, gradient in enumerate(gradients):
                self._use_numbers(index)
                clipped.extend(super()._clip_gradients([gradient]))
            return clipped
        given = [
            gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
            for gradient in gradients
            if gradient is not None
        ]
        squares = [tf.reduce_sum(tf.square(gradient)) for gradient in given]
        limit = tf.convert_to_tensor(self.global_clipnorm, squares[0].dtype)
        require(
            limit.shape.rank == 0,
            "`global_clipnorm` must be a scalar.",
            shape=tuple(limit.shape),
        )
        scale = limit / tf.maximum(safe_sqrt(tf.add_n(squares)), limit)
        return [None if g is None else scale * dense(g) for g in gradients]


def shares_state(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer does more than to update one variable after another."""
    own = type(optimizer)._backend_update_step
    return own is not _TensorFlowOptimizer._backend_update_step


def stand_in(variable: tf.Variable) -> keras.Variable:
    """A Keras variable in the place of a tf.Variable: only such are substituted."""
    made = keras.Variable(
        tf.zeros_like(variable),
        dtype=variable.dtype.name,
        name=path_of(variable).replace("/", "_"),
    )
    made.stands_for = variable
    return made


def underlying(variable: Variable) -> tf.Variable:
    """The tf.Variable by which an optimizer knows a variable."""
    if not isinstance(variable, keras.Variable):
        return variable
    return getattr(variable, "stands_for", variable._value)
