"""Concrete functions by the kind of their arguments."""

import tensorflow as tf

from far_ho_tf.tracing import ConcreteFunctions


def test_one_for_each_kind():
    traced = []

    def function(pair):
        traced.append(pair)
        return [None if tensor is None else tensor + 1 for tensor in pair]

    functions = ConcreteFunctions(tf.function(function, autograph=False))
    ones, two = tf.ones([2]), tf.constant(2)
    first = functions([ones, two])
    assert functions([tf.zeros([2]), tf.TensorSpec([], tf.int32)]) is first
    others = ([tf.ones([3]), two], [ones, tf.constant(2.0)], [ones, None])
    found = {id(functions(other)) for other in others} | {id(first)}
    assert len(found) == len(traced) == 4
    assert float(first([ones, two])[0][0]) == 2.0
