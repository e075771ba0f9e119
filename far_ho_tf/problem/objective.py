"""A user's objective with its checks."""

import inspect
from typing import Any

import tensorflow as tf

from far_ho_tf._types import ObjectiveFunction, Structure
from far_ho_tf.checks import argument_names, shown
from far_ho_tf.data.source import Source
from far_ho_tf.graphs.failures import NOT_EXPLAINED, told
from far_ho_tf.graphs.frames import know_origins
from far_ho_tf.patches.custom_gradients import keeping
from far_ho_tf.patches.indices import checked


class Objective:
    """A callable that is known to return a scalar of the right dtype.

    Args:
        role: "inner_objective" or "outer_objective", for messages.
        function: The user's callable.
        source: The `data.Source` that its batches come from.
        dtype: The dtype of the variables.

    Attributes:
        kept_rules: Frozen set: the functions, told by their code, whose custom
            gradients stand for derivatives too.

    Raises:
        ValueError: If `function` is not callable; when called, if it does not
            return such a scalar.
    """

    def __init__(
        self, role: str, function: ObjectiveFunction, source: Source, dtype: tf.DType
    ) -> None:
        if not callable(function):
            raise ValueError(
                f"`{role}` must be a callable that returns a scalar. "
                f"Received: {shown(function)}"
            )
        self.kept_rules = frozenset()
        self._role = role
        self._source = source
        self._dtype = dtype
        self._given = function
        self._function = _converted(function)
        self._name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, batch: Structure) -> tf.Tensor:
        value = self._call(batch)
        if value is None:
            raise ValueError(
                f"{self.label} must return a scalar. Received: None (is a `return` "
                "forgotten?)"
            )
        try:
            value = tf.convert_to_tensor(value)
        except (TypeError, ValueError) as error:
            kind = type(value).__name__
            raise ValueError(
                f"{self.label} must return a scalar. Received: a {kind}"
            ) from error
        if value.shape.rank is None:
            raise ValueError(
                f"{self.label} must return a scalar. Received: a tensor of unknown "
                "shape, such as of tf.py_function or tf.numpy_function, which cannot "
                "be differentiated twice: write them with TensorFlow's operations"
            )
        if value.shape.rank != 0:
            raise ValueError(
                f"{self.label} must return a scalar. Received: a tensor of "
                f"shape {value.shape} (reduce it, e.g. by tf.reduce_mean)"
            )
        if value.dtype != self._dtype:
            name = self._dtype.name
            remedy = (
                "Keras losses compute in `keras.config.floatx()` unless given "
                f"dtype='{name}'"
            )
            if value.dtype in (tf.float16, tf.bfloat16):
                remedy = f"with mixed precision: tf.cast(model(x), tf.{name})"
            raise ValueError(
                f"{self.label} must return the dtype of the variables, {name}. "
                f"Received: {value.dtype.name} ({remedy})"
            )
        return value

    def _call(self, batch: Structure) -> Any:
        arguments = () if self._source.is_empty else (batch,)
        try:
            with keeping(self.kept_rules), checked():
                return self._function(*arguments)
        except NOT_EXPLAINED:
            raise
        except Exception as error:
            misfit = self._misfit(arguments)
            if misfit:
                raise ValueError(f"{self.label} {misfit}") from error
            received = f"batch={_outline(batch)}" if arguments else "no argument"
            raise ValueError(
                f"{self.label} failed: {told(error)}. It is called with the batch, or "
                "with nothing where there are no data; variables are "
                f"{self._dtype.name}. Received: {received}"
            ) from error

    def _misfit(self, arguments: tuple[Structure, ...]) -> str:
        """What is wrong with the arguments that it takes; an empty string if nothing.

        Args:
            arguments: Those that it is called with: the batch, or none.
        """
        try:
            inspect.signature(self._given).bind(*arguments)
        except TypeError:
            pass
        except ValueError:  # As of some built-in functions.
            return ""
        else:
            return ""
        taken = f"Received: a callable of {inspect.signature(self._given)}"
        if not arguments:
            data = self._role.replace("objective", "data")
            return (
                f"is called without arguments, as `{data}` is None: give it, or let "
                f"the objective take no argument. {taken}"
            )
        (batch,) = arguments
        names = argument_names(self._given)
        begin = f"is called with one argument, the batch, {_outline(batch)}: "
        if names[:2] == ["y_true", "y_pred"]:
            remedy = "write lambda batch: loss(batch[1], model(batch[0]))"
        elif not isinstance(batch, (tuple, list)) or len(batch) != len(names):
            remedy = "let the objective take this one"
        else:
            parts = ", ".join(f"batch[{index}]" for index in range(len(batch)))
            begin = f"is called with one argument, the batch, a tuple of {len(batch)}: "
            remedy = f"write lambda batch: f({parts})"
        return f"{begin}{remedy}. {taken}"

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"`{self._role}` ({self._name})"


def _outline(batch: Structure) -> str:
    """Its structure, with dtypes and shapes in the place of tensors."""
    return str(tf.nest.map_structure(_spec, batch)).replace("'", "")


def _spec(leaf: Any) -> str:
    if not tf.is_tensor(leaf):
        return type(leaf).__name__
    return f"{leaf.dtype.name}{tuple(leaf.shape)}"


def _converted(function: ObjectiveFunction) -> ObjectiveFunction:
    """A tf.function's Python function, as AutoGraph writes it.

    Within `substituted` a tf.function runs inline, without AutoGraph.
    """
    python_function = getattr(function, "python_function", None)
    if python_function is None:
        return function
    try:
        converted = tf.autograph.to_graph(python_function)
    except Exception:  # It has no source, so AutoGraph never converted it either.
        return python_function
    know_origins(converted)
    return converted
