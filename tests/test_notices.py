"""What is said while a run yields nothing yet."""

import io
import sys
import threading

import keras
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.notices import once, show, tell, told_to


def test_the_innermost_listens():
    outer, inner = [], []
    tell("before")
    with told_to(outer.append):
        tell("one")
        with told_to(inner.append):
            tell("two")
        with told_to(None):
            tell("three")
        tell("four")
    tell("after")
    assert outer == ["one", "four"]
    assert inner == ["two"]


def test_threads_do_not_hear_each_other():
    heard, begun, done = {}, threading.Barrier(2), threading.Barrier(2)

    def work(name):
        heard[name] = []
        with told_to(heard[name].append):
            begun.wait(timeout=60)
            tell(name)
            done.wait(timeout=60)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {"a": ["a"], "b": ["b"]}


def test_once():
    heard = []
    listen = once(heard.append)
    for text in ("a", "a", "b", "a"):
        listen(text)
    assert heard == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", "\ntracing …;"), ("ascii", "\ntracing ...;")]
)
def test_in_what_the_output_can_encode(encoding, expected, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", output)
    show("tracing …", begin="\n", end=";")
    assert output.buffer.getvalue().decode(encoding) == expected


def test_nothing_where_keras_shows_no_bar(capsys):
    keras.config.disable_interactive_logging()
    try:
        show("tracing …")
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["in a scope", "problems over replicas"])
def test_the_bar_hears_of_what_other_threads_trace(kind, capsys):
    """Those in which the package itself runs a hyper-iteration."""
    target = far.Hyperparameter(1.0, name="target")
    w = keras.Variable(0.0, name="w")

    def problem(_):
        return far.BilevelProblem(
            *(lambda: (w - target) ** 2, lambda: (w - 0.5) ** 2),
            *([w], far.GradientDescent(0.5), [target]),
        )

    devices = tf.config.list_logical_devices("CPU")[:2]
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    if kind == "in a scope":
        tuner = far.HyperOptimizer(problem(0))
        with strategy.scope():
            tuner.fit(hyper_iterations=1, num_steps=2, verbose=1)
    else:
        problems = [problem(place) for place in range(2)]
        tuner = far.HyperOptimizer(problems, strategy=strategy)
        tuner.fit(hyper_iterations=1, num_steps=2, verbose=1)
    assert "tracing …" in capsys.readouterr().out
    # w_2 = λ after any step of rate ½, so that dE/dλ = 2 (1 − ½).
    assert float(tuner.inner_runs.position.states[0].variables[0]) == 1.0
