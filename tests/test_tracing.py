"""Concrete functions by the kind of their arguments, and calls within graphs."""

import pytest
import tensorflow as tf

from far_ho_tf.tracing import ConcreteFunctions, as_one_call


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


@pytest.mark.parametrize("is_inline", [False, True])
def test_as_one_call(is_inline):
    class Doubling:
        def __init__(self):
            self.is_inline = is_inline

        @as_one_call
        def double(self, pair, times):
            first, second = pair
            return {"first": None if first is None else first * times, "other": second}

    @tf.function
    def compute(x, y):
        return Doubling().double((x, None), y), Doubling().double((None, x), y)["other"]

    x, y = tf.ones([2]), tf.constant(2.0)
    (made, other), graph = compute(x, y), compute.get_concrete_function(x, y).graph
    assert list(made["first"].numpy()) == [2.0, 2.0] and made["other"] is None
    assert list(other.numpy()) == [1.0, 1.0]
    calls = [op for op in graph.get_operations() if op.type == "PartitionedCall"]
    assert len(calls) == (0 if is_inline else 2)
    functions = graph.as_graph_def().library.function
    assert all(function.attr["_noinline"].b for function in functions)
