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
