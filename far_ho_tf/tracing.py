"""How functions become graphs."""

import tensorflow as tf


def once_traced(function, **options):
    """A `tf.function` for inputs of one kind.

    Many of them, each made for one problem, would together set off TensorFlow's alarm
    of functions that are traced again and again.
    """
    compiled = tf.function(function, autograph=False, **options)
    compiled._omit_frequent_tracing_warning = True
    return compiled


def specs(structure):
    """A structure of tensors and `None` as one of `tf.TensorSpec`s."""
    return tf.nest.map_structure(
        lambda t: None if t is None else tf.TensorSpec(t.shape, t.dtype), structure
    )


class ConcreteFunctions:
    """The concrete functions of a `tf.function`, by the kind of their arguments.

    TensorFlow's own search for one takes half a millisecond.

    Args:
        function: The `tf.function`.
    """

    def __init__(self, function):
        self._function = function
        self._made = {}

    def __call__(self, *arguments):
        """The one for such arguments: structures, always alike, of tensors or specs."""
        kind = tuple(
            other if other is None else (other.shape, other.dtype)
            for other in tf.nest.flatten(arguments)
        )
        if kind not in self._made:
            self._made[kind] = self._function.get_concrete_function(*arguments)
        return self._made[kind]
