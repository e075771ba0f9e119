"""What Grappler is asked to rewrite."""

import threading

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context

import far_ho_tf as far
from far_ho_tf.graphs.functions import called_with
from far_ho_tf.graphs.grappler import light_grappler, no_grappler
from tests.helpers import traces_seen


def rewrites_of(serialized):
    return config_pb2.ConfigProto.FromString(serialized).graph_options.rewrite_options


def compute(mode, dynamics=far.GradientDescent):
    w = keras.Variable(3.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        *(lambda: (w - 1.0) ** 2, lambda: (w - 0.5) ** 2),
        *([w], dynamics(rate), [rate]),
    )
    return float(mode.compute(problem, 3).hypergradients[0])


# w_3 = 1 + 2 (1 − 2η)³, so that dE/dη = 2 (w_3 − 0.5) · (−12) (1 − 2η)².
EXPECTED = 2 * (0.5 + 2 * 0.8**3) * -12 * 0.8**2


@pytest.fixture
def told():
    """`tf.config.optimizer` was told which passes to use."""
    tf.config.optimizer.set_experimental_options({"remapping": False})
    yield
    context.context()._optimizer_experimental_options.clear()
    context.context().function_call_options = None
    assert "remapping" not in tf.config.optimizer.get_experimental_options()


@pytest.mark.parametrize(
    "mode", [far.ReverseHG, far.ForwardHG], ids=lambda m: m.__name__
)
def test_parts_are_rewritten_once_and_what_calls_them_is_not(mode, monkeypatch):
    seen = traces_seen(monkeypatch)
    gradient = compute(mode(jit_compile=False))
    assert gradient == pytest.approx(EXPECTED, rel=1e-6)
    (made,) = seen
    around = rewrites_of(made._call_options.config_proto_serialized)
    assert around.disable_meta_optimizer
    called = [
        node
        for part in made._concrete.graph.as_graph_def().library.function
        for node in part.node_def
        if "config_proto" in node.attr
    ]
    assert called
    for node in called:
        within = rewrites_of(node.attr["config_proto"].s)
        assert list(within.optimizers) == [
            *("pruning", "function", "constfold", "arithmetic", "dependency")
        ]
        assert within.meta_optimizer_iterations == 1


def test_loops_with_parts_of_their_own_are_rewritten(monkeypatch):
    seen = traces_seen(monkeypatch)
    compute(far.ReversibleHG(jit_compile=False), lambda rate: far.Momentum(rate, 0.9))
    (made,) = seen
    around = rewrites_of(made._call_options.config_proto_serialized)
    assert not around.disable_meta_optimizer
    assert "constfold" in around.optimizers


def test_what_tensorflow_was_told_counts(told, monkeypatch):
    seen = traces_seen(monkeypatch)
    gradient = compute(far.ReverseHG(jit_compile=False))
    assert gradient == pytest.approx(EXPECTED, rel=1e-6)
    (made,) = seen
    for options in (made._call_options, light_grappler(), no_grappler()):
        around = rewrites_of(options.config_proto_serialized)
        assert around.remapping == around.OFF
        assert not around.optimizers
        assert not around.disable_meta_optimizer


def test_options_are_those_of_one_thread_for_a_while():
    own = no_grappler()
    before = context.context().function_call_options
    others = []

    def look():
        others.append(context.context().function_call_options)

    with pytest.raises(ZeroDivisionError), called_with(own):
        assert context.context().function_call_options is own
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        1 / 0  # noqa: B018
    assert context.context().function_call_options is before
    assert others[0] is not own
