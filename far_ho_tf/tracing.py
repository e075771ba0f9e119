"""How functions become graphs."""

import functools

import tensorflow as tf


def once_traced(function, **options):
    """A `tf.function` for inputs of one kind.

    Many of them, each made for one problem, would together set off TensorFlow's alarm
    of functions that are traced again and again.
    """
    compiled = tf.function(function, autograph=False, **options)
    compiled._omit_frequent_tracing_warning = True
    return compiled


def as_one_call(method):
    """A method whose calls stay calls in a graph, not to become a part of it.

    Of a loop that is not compiled TensorFlow makes one graph with what is around it,
    which has cycles. Some of oneDNN's kernels, such as the derivative of max pooling,
    are then not found, which takes the operation before them to be seen first.

    Its object says by `is_inline` where this is not wanted.
    """

    @functools.wraps(method)
    def call(self, *arguments):
        if self.is_inline:
            return method(self, *arguments)
        return tf.function(
            functools.partial(method, self),
            autograph=False,
            experimental_attributes={"_noinline": True},
        )(*arguments)

    return call


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
