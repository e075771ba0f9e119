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


TARGET = 0.9753  # As in no other test: whether it was compiled is asked for.


def quadratic():
    w = keras.Variable(3.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    return far.BilevelProblem(
        *(lambda: (w - TARGET) ** 2, lambda: w**2),
        *([w], far.GradientDescent(rate), [rate]),
    )


def test_a_later_hyper_iteration_that_traces_again(capsys):
    """The second of online tuning, which has tangents to go on from."""
    tuner = far.HyperOptimizer(quadratic(), far.ForwardHG(jit_compile=False))
    tuner.fit(3, num_steps=2, mode="online", verbose=1)
    assert capsys.readouterr().out.count("tracing …") == 2


def test_what_was_compiled_is_not_announced():
    def told(problem):
        texts = []
        with told_to(texts.append):
            result = far.ReverseHG(jit_compile=True).compute(problem, 3)
        # w − c shrinks by a = 0.8 in each step: dE/dη = 2 w · 3 a² (−2) (w_0 − c).
        far_off = 3.0 - TARGET
        expected = 2 * (TARGET + far_off * 0.8**3) * 3 * 0.8**2 * -2 * far_off
        assert float(result.hypergradients[0]) == pytest.approx(expected, rel=1e-6)
        return {text.split()[0] for text in texts}

    problems = [quadratic() for _ in range(2)]  # Programs live with them.
    assert told(problems[0]) == {"tracing", "compiling"}
    assert told(problems[1]) == {"tracing"}


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
    assert float(tuner.inner_runs.positions[0].state.variables[0]) == 1.0
