"""What is forward mode's own; its values are compared in whole/test_modes.py too."""

import keras
import pytest
import tensorflow as tf
from tensorflow.python.eager.polymorphic_function import compiler_ir

import far_ho_tf as far
from tests.helpers import Classification, assert_close, hyper, traces_seen


def test_initial_values_have_tangents():
    """w_0 = λ² , w_T = (1 − 2η)^T w_0 in closed form."""
    w = keras.Variable(0.0, dtype="float64", name="w")
    root, rate = hyper(1.5, "root"), hyper(0.1, "rate")
    problem = far.BilevelProblem(
        lambda: w * w,
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(rate),
        [root, rate],
        initial_values=[(w, lambda: tf.square(root.value))],
    )
    result = far.ForwardHG().compute(problem, 4)
    assert_close(result.hypergradients, [3 * 0.8**4, -8 * 0.8**3 * 2.25], 1e-12)
    assert_close(
        [result.tangents.variables[0]], [[3 * 0.8**4, -8 * 0.8**3 * 2.25]], 1e-12
    )


def test_what_only_the_outer_objective_reads():
    w = keras.Variable(1.0, dtype="float64", name="w")
    rate, scale = hyper(0.1, "rate"), hyper(3.0, "scale")
    problem = far.BilevelProblem(
        lambda: w * w,
        lambda: scale * w,
        [w],
        far.GradientDescent(rate),
        [rate, scale],
    )
    for mode in (far.ForwardHG(), far.ForwardHG(chunk_size=1)):
        result = mode.compute(problem, 4)
        assert_close(result.hypergradients, [3 * -8 * 0.8**3, 0.8**4], 1e-12)


def test_state_of_another_precision():
    """A float32 average of float64 weights, which the outer objective reads."""
    w = keras.Variable(1.0, dtype="float64", name="w")
    mean = keras.Variable(0.0, dtype="float32", name="mean", trainable=False)
    rate = hyper(0.25, "rate")

    def inner():
        mean.assign(0.5 * mean + tf.cast(0.5 * w, "float32"))
        return 0.5 * w * w

    problem = far.BilevelProblem(
        inner,
        lambda: w + tf.cast(mean, "float64"),
        [w],
        far.GradientDescent(rate),
        [rate],
    )
    found = [
        mode.compute(problem, 3).hypergradients
        for mode in (far.ReverseHG(), far.ForwardHG())
    ]
    # w_3 = (1 − η)³, mean_3 = ⅛ + ¼ (1 − η) + ½ (1 − η)²
    expected = -3 * 0.75**2 - 0.25 - 0.75
    assert_close(found[0] + found[1], [expected, expected], 1e-7)


def test_tangents_of_slots_and_statistics_are_kept():
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    bilevel = problem.bilevel(far.Adam(rate), [rate])
    result = far.ForwardHG(jit_compile=False).compute(bilevel, 3)
    m = 1 + 12 + 1
    assert [z.shape for z in result.tangents.variables] == [
        (m, *w.shape) for w in problem.model.trainable_variables
    ]
    assert [len(z) for z in result.tangents.slots] == [2, 2, 2, 2]
    assert far.ReverseHG(jit_compile=False).compute(bilevel, 3).tangents is None
    chunked = far.ForwardHG(jit_compile=False, chunk_size=4)
    assert chunked.compute(bilevel, 3).tangents is None


def test_directions_are_no_constants(monkeypatch):
    """Else compilers write out what they multiply, as large as all tangents."""
    seen = traces_seen(monkeypatch)
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    bilevel = problem.bilevel(far.Momentum(rate, 0.9), [rate])
    far.ForwardHG(jit_compile=True).compute(bilevel, 3)
    text = compiler_ir.from_concrete_function(seen[0]._concrete)(stage="hlo")
    shape = f"f64[{1 + problem.num_examples + 1},5,4]"  # Of tangents of a kernel.
    lines = [line for line in text.splitlines() if f"= {shape}" in line]
    assert lines and not [line for line in lines if "constant(" in line]


class TestErrors:
    @pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
    def test_chunk_size(self, value):
        with pytest.raises(ValueError, match="`chunk_size` must be an integer"):
            far.ForwardHG(chunk_size=value)

    def test_tangents_of_something_else(self):
        problem = Classification()
        rate = problem.hyper(0.1, "rate")
        small = problem.bilevel(far.Momentum(0.1))
        large = problem.bilevel(far.Momentum(rate), [rate])
        adam = problem.bilevel(far.Adam(rate), [rate])
        mode = far.ForwardHG(jit_compile=False)
        results = [mode.compute(p, 2) for p in (small, large, adam)]
        for wrong in (results[0].tangents, results[2].tangents, [1]):
            with pytest.raises(ValueError, match="`tangents` must be those"):
                mode.compute(large, 2, start=results[1].end._replace(tangents=wrong))
        with pytest.raises(ValueError, match="`state` must be that"):
            mode.compute(large, 2, start=results[2].end)
        tangents = results[1].tangents
        with pytest.raises(ValueError, match="go with a `state`"):
            mode.compute(large, 2, start=far.Position(tangents=tangents))
        with pytest.raises(ValueError, match="in forward mode only"):
            far.ReverseHG().compute(large, 2, start=results[1].end)

    @pytest.mark.parametrize("chunk_size", [None, 1])
    def test_where_the_tangents_became_infinite(self, chunk_size):
        """|w − 3|^1.5 has no second derivative at w_2 = 3."""
        w = keras.Variable(1.0, dtype="float64", name="w")
        rate, other = hyper(1.0, "rate"), hyper(0.0, "other")
        problem = far.BilevelProblem(
            lambda: 0.0 * tf.pow(tf.abs(w - 3.0), 1.5) - 1.0 * w + other * w,
            lambda: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [rate, other],
        )
        mode = far.ForwardHG(jit_compile=False, chunk_size=chunk_size)
        with pytest.raises(far.NonFiniteError, match="is not finite") as error:
            mode.compute(problem, 5)
        assert error.value.step == 2
        assert "`" not in str(error.value)

    def test_what_is_not_finite_in_the_first_chunk_alone(self):
        """√scale has an infinite derivative at 0; the last chunk is of the rate."""
        w = keras.Variable(1.0, dtype="float64", name="w")
        scale, rate = hyper(0.0, "scale"), hyper(0.1, "rate")
        problem = far.BilevelProblem(
            lambda: w * tf.sqrt(tf.convert_to_tensor(scale)) + w * w,
            lambda: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [scale, rate],
        )
        mode = far.ForwardHG(jit_compile=False, chunk_size=1)
        with pytest.raises(far.NonFiniteError, match="in step 0 ") as error:
            mode.compute(problem, 5)
        assert error.value.step == 0

    def test_a_hyperparameter_without_effect(self):
        w = keras.Variable(1.0, dtype="float64", name="w")
        rate, unread = hyper(0.1, "rate"), hyper(1.0, "unread")
        problem = far.BilevelProblem(
            lambda: w * w + unread,
            lambda: w * w,
            [w],
            far.GradientDescent(rate),
            [rate, unread],
        )
        with pytest.raises(ValueError, match=r"Nothing depends on.*`unread`"):
            far.ForwardHG().compute(problem, 2)
