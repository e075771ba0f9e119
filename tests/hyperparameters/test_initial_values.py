"""Learned scales of the initial weights; and values that cannot be initial ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, hyper, in_tiers, slope
from tests.misuse import compute, fails


class Line:
    """w_T = (1 − 2η)^T w_0, E = Σ c w_T: everything in closed form."""

    def __init__(self, fresh=False):
        self.w = keras.Variable(np.zeros(3), dtype="float64", name="w")
        self.scale = hyper(0.5, "scale")
        self.problem = far.BilevelProblem(
            lambda: tf.reduce_sum(tf.square(self.w)),
            lambda: tf.reduce_sum(self.w * np.array([1.0, 2.0, 3.0])),
            [self.w],
            far.GradientDescent(0.25),
            [self.scale],
            initial_values=far.scaled_noise([(self.w, self.scale)], 3, fresh),
        )


@pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])
@pytest.mark.parametrize("jit_compile", in_tiers([False, True], [False]))
def test_closed_form(method, jit_compile):
    case = Line()
    ((_, draw),) = far.scaled_noise([(case.w, 1.0)], seed=3)
    noise = draw().numpy()
    result = method(jit_compile=jit_compile).compute(case.problem, 2)
    assert_close([case.w], [0.25 * 0.5 * noise], 1e-12)
    assert_close(result.hypergradients, [0.25 * noise @ [1.0, 2.0, 3.0]], 1e-12)


@pytest.mark.parametrize("method", [far.ReverseHG, far.ForwardHG])
def test_noise_is_the_same_or_fresh(method):
    for fresh in (False, True):
        case = Line(fresh)
        tuner = far.HyperOptimizer(case.problem, method(), keras.optimizers.SGD(0.0))
        found = [float(tuner.run(2).hypergradients[0]) for _ in range(3)]
        assert len(set(found)) == (3 if fresh else 1)
        # The number of the hyper-iteration draws it again.
        again = method().compute(case.problem, 2, start=far.Position(outer_step=1))
        assert float(again.hypergradients[0]) == found[1]


@pytest.mark.parametrize("fresh", [False, True])
def test_noise_is_that_of_a_graph_under_xla(fresh):
    def value(xla):
        result = far.ReverseHG(jit_compile=xla).compute(Line(fresh).problem, 2)
        return float(result.outer_value)

    values = [value(False), value(True)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
    assert far.ReverseHG().compute(Line(fresh).problem, 2).status.compiler == "xla"


def test_each_variable_and_each_seed_has_noise_of_its_own():
    variables = [keras.Variable(np.zeros(5), dtype="float32") for _ in range(2)]

    def draw(seed):
        pairs = far.scaled_noise([(variable, 1.0) for variable in variables], seed)
        return [value().numpy() for _, value in pairs]

    found = np.array(draw(0) + draw(1))
    assert len(np.unique(found.round(6))) == 20


def test_fresh_noise_has_the_moments_of_a_normal():
    w = keras.Variable(np.zeros((100, 100)), dtype="float64", name="w")
    ((_, draw),) = far.scaled_noise([(w, 2.0)], fresh=True)
    one, other = draw(tf.constant(0)).numpy(), draw(tf.constant(1)).numpy()
    assert abs(one.mean()) < 0.06 and abs(one.std() - 2.0) < 0.06
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03


def test_a_scale_for_each_layer():
    """On a logarithmic scale, through seven steps, by finite differences."""
    problem = Classification()
    logs = [problem.hyper(value, name) for value, name in ((-1.0, "a"), (-2.0, "b"))]
    scales = [
        (layer, lambda log=log: tf.exp(log.value))
        for layer, log in zip(problem.model.layers, logs, strict=True)
    ]
    bilevel = problem.bilevel(
        far.Momentum(0.2, 0.5), logs, initial_values=far.scaled_noise(scales)
    )
    mode = far.ReverseHG(jit_compile=False)
    result = mode.compute(bilevel, 7)
    for log, gradient in zip(logs, result.hypergradients, strict=False):
        found = slope(mode, bilevel, 7, 1e-6, (log, 1.0))
        np.testing.assert_allclose(found, gradient, rtol=1e-7)
    forward = far.ForwardHG(jit_compile=False).compute(bilevel, 7)
    assert_close(forward.hypergradients, result.hypergradients, 1e-9)


W = keras.Variable([1.0, 2.0], name="w")


def test_fresh_must_be_a_boolean():
    with pytest.raises(ValueError, match="`fresh` must be a boolean"):
        far.scaled_noise([(W, 0.1)], fresh="no")


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (["w"], "`scales` must be a list of pairs"),
        ([(keras.layers.Dense(1), 0.1)], "names nothing that is trained"),
        (3, "`scales` must be a list of pairs"),
        ([(W, 0.1), (W, 0.2)], "`scales` must name each variable once"),
        ([(W, None)], "The scale of `w` must be finite"),
        ([(W, "x")], "The scale of `w` must be finite"),
        ([(W, lambda: None)], "The scale of `w` must .* which fails with"),
        ([(W, hyper(1.0, "s"))], "The scale of `w` must have its dtype, float32"),
        (
            [(W, tf.ones(3))],
            r"The scale of `w` must be a scalar",
        ),
    ],
)
def test_errors(scales, message):
    with pytest.raises(ValueError, match=message):
        for _, value in far.scaled_noise(scales):
            value()


class TestInitialValues:
    def test_twice_of_one_variable(self, parts):
        (w,) = parts["variables"]
        with fails("`initial_values`", "`w` twice"):
            compute(parts, initial_values=[(w, tf.ones(2)), (w, tf.ones(2))])

    def test_of_a_foreign_variable(self, parts):
        foreign = keras.Variable(1.0, name="foreign")
        with fails("`initial_values`", "'foreign'"):
            compute(parts, initial_values=[(foreign, 1.0)])

    def test_of_a_wrong_shape(self, parts):
        (w,) = parts["variables"]
        with fails("`w`", r"\(2,\)", r"shape=.*\[3\]"):
            compute(parts, initial_values=[(w, tf.ones(3))])

    def test_from_a_callable_of_a_wrong_dtype(self, parts):
        (w,) = parts["variables"]
        with fails("`w`", "float32", "float64"):
            compute(parts, initial_values=[(w, lambda: tf.ones(2, tf.float64))])

    @pytest.mark.parametrize(
        "value", ["ones", None, lambda: None, keras.initializers.Ones()], ids=range(4)
    )
    def test_of_a_wrong_kind(self, parts, value):
        (w,) = parts["variables"]
        with fails("The initial value of `w` must", "Received: "):
            compute(parts, initial_values=[(w, value)])
