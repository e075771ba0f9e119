"""Keras optimizers whose update is a function of tensors.

On the TensorFlow backend Keras' optimizers write to `tf.Variable`s, by way of
tf.distribute, and their `stateless_apply` raises. Within `functional` the same
object uses Keras' backend-agnostic methods instead, which a
`keras.StatelessScope` can follow.
"""

import contextlib

import keras
import tensorflow as tf

from far_ho_tf.autodiff import safe_roots, safe_sqrt

# keras.optimizers.Optimizer is the agnostic class with TensorFlow's ways added.
_TensorFlowOptimizer, _AgnosticOptimizer = keras.optimizers.Optimizer.__bases__
_classes = {}


@contextlib.contextmanager
def functional(optimizer, names, numbers):
    """Lets an optimizer's `_backend_apply_gradients` work on substitutes.

    Args:
        optimizer: A Keras optimizer; it is put back in the end.
        names: Names of the numbers that `numbers` gives.
        numbers: Callable(index) -> mapping from them to the tensors that take the
            place of the optimizer's own numbers for the variable of that index.
    """
    own_class, attributes = type(optimizer), vars(optimizer)
    kept = {name: attributes[name] for name in names if name in attributes}
    if own_class not in _classes:
        _classes[own_class] = type(own_class)(
            own_class.__name__, (own_class, _Functional), {}
        )
    object.__setattr__(optimizer, "__class__", _classes[own_class])
    attributes["_numbers_for"] = numbers
    try:
        with safe_roots():
            yield
    finally:
        object.__setattr__(optimizer, "__class__", own_class)
        for name in (*names, "_numbers_for"):
            attributes.pop(name, None)
        attributes.update(kept)


class Number:
    """A tensor in the place of a Python number that an optimizer tests by `if`.

    To such tests (`if self.momentum != 0`) it is a number like any other that is
    positive, whatever its value: a hyperparameter may come to have any.
    """

    def __init__(self, tensor):
        self.tensor = tensor

    def __getattr__(self, name):
        return getattr(self.tensor, name)

    def __bool__(self):
        return True

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other

    def __gt__(self, other):
        return True

    def __lt__(self, other):
        return False

    __ge__, __le__ = __gt__, __lt__


def _forward(name):
    def method(self, *others):
        others = [o.tensor if isinstance(o, Number) else o for o in others]
        return getattr(self.tensor, name)(*others)

    return method


for _name in ("add", "sub", "mul", "truediv", "pow"):
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


class _Functional(_TensorFlowOptimizer):
    """Comes after an optimizer's own class and before TensorFlow's."""

    assign = _AgnosticOptimizer.assign
    assign_add = _AgnosticOptimizer.assign_add
    assign_sub = _AgnosticOptimizer.assign_sub
    _apply_weight_decay = _AgnosticOptimizer._apply_weight_decay

    # Both look at the tf.Variable, which a substituted one hides.
    def _var_key(self, variable):
        return super()._var_key(_underlying(variable))

    def _use_weight_decay(self, variable):
        return super()._use_weight_decay(_underlying(variable))

    def _use_numbers(self, index):
        vars(self).update(self._numbers_for(index))

    def _get_current_learning_rate(self):
        given = vars(self).get("learning_rate")
        return super()._get_current_learning_rate() if given is None else given.tensor

    def _backend_apply_gradients(self, gradients, variables):
        """As Keras', without branches on tensors; numbers differ by variable."""
        self._use_numbers(0)
        gradients = self._clip_gradients(gradients)
        for index, variable in enumerate(variables):
            self._use_numbers(index)
            self._apply_weight_decay([variable])
        self._use_numbers(0)
        self._backend_update_step(gradients, variables, self.learning_rate)
        if self.use_ema:
            self._update_model_variables_moving_average(variables)
            due = (self.iterations + 1) % self.ema_overwrite_frequency == 0
            averages = self._model_variables_moving_average
            for variable, average in zip(variables, averages, strict=True):
                variable.assign(tf.where(due, average.value, variable.value))

    def _backend_update_step(self, gradients, variables, learning_rate):
        del learning_rate  # That of the first variable.
        pairs = zip(gradients, variables, strict=True)
        for index, (gradient, variable) in enumerate(pairs):
            self._use_numbers(index)
            self.update_step(gradient, variable, self.learning_rate)

    def _clip_gradients(self, gradients):
        """As Keras', but with a derivative where all gradients are zero."""
        if self.clipnorm or not self.global_clipnorm:
            return super()._clip_gradients(gradients)
        squares = [tf.reduce_sum(tf.square(gradient)) for gradient in gradients]
        limit = tf.convert_to_tensor(self.global_clipnorm, squares[0].dtype)
        scale = limit / tf.maximum(safe_sqrt(tf.add_n(squares)), limit)
        return [scale * gradient for gradient in gradients]


def shares_state(optimizer):
    """Whether an optimizer does more than to update one variable after another."""
    own = type(optimizer)._backend_update_step
    return own is not _TensorFlowOptimizer._backend_update_step


def _underlying(variable):
    return variable._value if isinstance(variable, keras.Variable) else variable
