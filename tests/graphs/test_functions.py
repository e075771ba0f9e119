"""Concrete functions by the kind of their arguments, calls within graphs, threads."""

import threading

import keras
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.graphs.functions import TRACING, ConcreteFunctions, as_one_call
from far_ho_tf.problem import bilevel_problem


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


def test_problems_are_made_by_one_thread_at_a_time(monkeypatch):
    """Parts of TensorFlow, and of a whole process' settings, are others meanwhile."""
    traced, at_the_lock = threading.Event(), threading.Event()
    w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(0.1, name="rate")

    class Told:
        """The lock; it tells when it is asked for."""

        def __enter__(self):
            at_the_lock.set()
            return TRACING.__enter__()

        def __exit__(self, *error):
            return TRACING.__exit__(*error)

    def inner():
        traced.set()
        return w * w

    def make():
        far.BilevelProblem(inner, inner, [w], far.GradientDescent(rate), [rate])
        at_the_lock.set()  # Behind it, if it was not asked for.

    make()
    assert traced.is_set()
    traced.clear()
    at_the_lock.clear()
    assert bilevel_problem.TRACING is TRACING
    monkeypatch.setattr(bilevel_problem, "TRACING", Told())
    thread = threading.Thread(target=make)
    with TRACING:
        thread.start()
        at_the_lock.wait()
        assert not traced.is_set()
    thread.join()
    assert traced.is_set()
