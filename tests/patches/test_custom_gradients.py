"""The derivative of a run that goes by custom gradients is that of the run itself.

Compared are differences of plain runs: a loop in Python, eager tapes, no far_ho_tf.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.patches import surrogates
from tests.helpers import assert_close, in_tiers

NUM_STEPS = 3
WIDTH = 1e-6


def ruled(rule, function=lambda x: x):
    """The function under a rule of (x, cotangent)."""

    @tf.custom_gradient
    def under_rule(x):
        return function(x), lambda cotangent: rule(x, cotangent)

    return under_rule


def closed_over(w, strength):
    """A reversal whose strength is no argument."""
    reversal = ruled(lambda x, cotangent: -strength * cotangent, lambda x: strength * x)
    return tf.reduce_sum(reversal(w) ** 2)


def with_strength(w, strength):
    @tf.custom_gradient
    def reversal(x, strength):
        def rule(cotangent):
            return -strength * cotangent, tf.reduce_sum(cotangent * x) / 3

        return tf.identity(x), rule

    return tf.reduce_sum(reversal(w, strength) ** 2 * strength)


def in_a_loop(rule):
    sine = ruled(rule, tf.sin)

    def objective(w, strength):
        def body(turn, x):
            return [turn + 1, sine(x) * strength + w]

        _, x = tf.while_loop(
            *(lambda turn, x: turn < 3, body, [0, w]), maximum_iterations=3
        )
        return tf.reduce_sum(x**2)

    return objective


def in_a_branch(rule):
    sine = ruled(rule, tf.sin)

    def objective(w, strength):
        def branch():  # In which TensorFlow wants what the rule reads to be made.
            return sine(strength * w) ** 2

        return tf.reduce_sum(tf.cond(tf.reduce_sum(w) > 0, branch, lambda: w**3))

    return objective


def nested(w, strength):
    """A rule around a rule."""
    inner = ruled(lambda x, cotangent: 0.5 * cotangent, tf.sin)
    outer = ruled(lambda x, cotangent: -2.0 * cotangent * x, lambda x: inner(x) * x)
    return tf.reduce_sum(outer(strength * w) ** 2)


def by_keras(w, strength):
    @keras.ops.custom_gradient
    def third(x):
        def rule(*arguments, upstream=None):
            return (arguments[0] if upstream is None else upstream) / 3.0

        return x * x, rule

    return tf.reduce_sum(third(strength * w) ** 2)


def quantized(x, low, high, **options):
    """To 4 bits."""
    return tf.quantization.quantize_and_dequantize_v2(
        x, low, high, num_bits=4, **options
    )


def squares(function):
    return lambda w, strength: tf.reduce_sum((function(w) - strength) ** 2)


OBJECTIVES = {
    "reversed": squares(ruled(lambda x, cotangent: -0.5 * cotangent)),
    "scaled": squares(ruled(lambda x, cotangent: 0.5 * cotangent, tf.sin)),
    "straight-through sign": squares(ruled(lambda x, cotangent: cotangent, tf.sign)),
    "straight-through rounding": lambda w, strength: tf.reduce_sum(
        (ruled(lambda x, cotangent: cotangent, tf.round)(w) * w - strength) ** 2
    ),
    "passed through": lambda w, strength: tf.reduce_sum(
        (tf.grad_pass_through(tf.sin)(w) * w - strength) ** 2
    ),
    "clipped": squares(
        ruled(lambda x, cotangent: tf.clip_by_value(cotangent, -0.3, 0.3) * x, tf.sin)
    ),
    "strength that is closed over": closed_over,
    "strength that is an argument": with_strength,
    "by Keras": by_keras,
    "nested": nested,
    "quantized": lambda w, strength: tf.reduce_sum(
        (tf.quantization.quantize_and_dequantize(w, -2.0, 1.5, num_bits=3) * strength)
        ** 2
    ),
    "quantized, of a range": lambda w, strength: tf.reduce_sum(
        (
            quantized(w, -0.45 * strength, 1.1 * strength, range_given=True)
            - w * strength
        )
        ** 2
    ),
    "quantized, of a long range": lambda w, strength: tf.reduce_sum(
        (quantized(w, -strength, 0.2 * strength, range_given=True) - w * strength) ** 2
    ),
    "quantized, of its own range": lambda w, strength: tf.reduce_sum(
        (quantized(w * strength, 0.0, 0.9) - strength) ** 2
    ),
    "quantized, without a sign": lambda w, strength: tf.reduce_sum(
        quantized(tf.exp(w), 0.0, 2 * strength, range_given=True, signed_input=False)
        ** 2
    ),
    "quantized by slices": lambda w, strength: tf.reduce_sum(
        quantized(
            tf.stack([w, strength * w**2]),
            *(tf.stack([-strength, -0.3]), tf.stack([0.6, 0.4])),
            axis=0,
        )
        ** 2
    ),
    # Rules that are the derivative.
    "logarithm": squares(
        ruled(
            lambda x, cotangent: cotangent * (1 - 1 / (1 + tf.exp(x))),
            lambda x: tf.math.log(1 + tf.exp(x)),
        )
    ),
    "silu": squares(tf.nn.silu),
    "in a loop": in_a_loop(lambda x, cotangent: cotangent * tf.cos(x)),
    "in a branch": in_a_branch(lambda x, cotangent: cotangent * tf.cos(x)),
}
MODES = {
    "reverse": far.ReverseHG(jit_compile=False),
    "forward": far.ForwardHG(jit_compile=False),
    "reverse, XLA": far.ReverseHG(jit_compile=True),
    "forward, XLA": far.ForwardHG(jit_compile=True),
    "checkpoints": far.ReverseHG(jit_compile=False, checkpointing="sqrt"),
}
START = np.array([0.7, -0.4, 0.3])
AT = {"rate": 0.1, "strength": 0.8}


def outer(w):
    """Under a rule, too."""
    return tf.reduce_sum(ruled(lambda x, cotangent: 2.0 * cotangent, tf.exp)(w))


def plain_run(objective, rate, strength, outer=outer):
    """E(w_T) of gradient descent, step by step."""
    w, strength = tf.constant(START), tf.constant(strength, tf.float64)
    for _ in range(NUM_STEPS):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = objective(w, strength)
        w -= rate * tf.convert_to_tensor(tape.gradient(value, w))
    return float(outer(w))


def differences(objective, outer=outer):
    found = []
    for name, value in AT.items():
        up, down = (AT | {name: value + step} for step in (WIDTH, -WIDTH))
        values = [plain_run(objective, **at, outer=outer) for at in (up, down)]
        found.append((values[0] - values[1]) / (2 * WIDTH))
    return found


def bilevel(objective, outer_objective=outer):
    w = keras.Variable(START, dtype="float64", name="w")
    rate, strength = (
        far.Hyperparameter(value, name=name, dtype="float64")
        for name, value in AT.items()
    )
    return far.BilevelProblem(
        inner_objective=lambda: objective(w.value, strength.value),
        outer_objective=lambda: outer_objective(w.value),
        variables=[w],
        dynamics=far.GradientDescent(rate),
        hyperparameters=[rate, strength],
    )


@pytest.mark.filterwarnings("ignore:TensorFlow cannot vectorize:UserWarning")
@pytest.mark.parametrize("mode", in_tiers(MODES, ["reverse", "forward"]))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_equals_differences(name, mode):
    objective = OBJECTIVES[name]
    result = MODES[mode].compute(bilevel(objective), NUM_STEPS)
    assert_close([result.outer_value], [plain_run(objective, **AT)], 1e-12)
    assert_close(result.hypergradients, differences(objective), 1e-7)


@pytest.mark.parametrize("mode", ["reverse, XLA", "forward, XLA"])
def test_a_reversal_in_closed_form(mode):
    """w_T = w_0 (1 + r)^T for −½ as the derivative of w², whose true one is 2 w."""
    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    reversal = ruled(lambda x, cotangent: -0.5 * cotangent)
    problem = far.BilevelProblem(
        *(lambda: reversal(w.value) ** 2, lambda: w.value),
        *([w], far.GradientDescent(rate), [rate]),
    )
    result = MODES[mode].compute(problem, 2)
    assert_close(result.hypergradients, [2 * (1 + 0.1)], 1e-6)


def test_a_rule_where_there_is_no_derivative():
    """Σ|w − c| as a root, which has none where w = c, as w is at first."""
    center = np.array([1.0, -2.0])
    distance = ruled(
        lambda x, cotangent: cotangent * tf.sign(x),
        lambda x: tf.sqrt(x**2),
    )
    w = keras.Variable(center, dtype="float64", name="w")
    rate = far.Hyperparameter(0.1, name="rate", dtype="float64")
    scale = far.Hyperparameter(2.0, name="scale", dtype="float64")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(
            (distance(w.value - center) + 0.5) ** 2 + scale * w.value**2
        ),
        lambda: tf.reduce_sum(w.value**3),
        *([w], far.GradientDescent(rate), [rate, scale]),
    )

    def run(rate, scale):
        w = center
        for _ in range(3):
            x = w - center
            w = w - rate * (2 * (np.abs(x) + 0.5) * np.sign(x) + 2 * scale * w)
        return (w**3).sum()

    expected = [
        (run(0.1 + WIDTH, 2.0) - run(0.1 - WIDTH, 2.0)) / (2 * WIDTH),
        (run(0.1, 2.0 + WIDTH) - run(0.1, 2.0 - WIDTH)) / (2 * WIDTH),
    ]
    for mode in (MODES["reverse"], MODES["forward"]):
        result = mode.compute(problem, 3)
        assert_close([result.outer_value], [run(0.1, 2.0)], 1e-12)
        assert_close(result.hypergradients, expected, 1e-7)


@pytest.mark.parametrize("make", [in_a_loop, in_a_branch])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_rule_in_a_loop_or_branch(make, mode):
    """One derivative serves all tapes there: what would be wrong is refused."""
    objective = make(lambda x, cotangent: 0.5 * cotangent)
    with pytest.raises(
        ValueError, match=r"`inner_objective` calls ruled.*in a loop or"
    ):
        MODES[mode].compute(bilevel(objective), 2)
    problem = bilevel(squares(tf.sin), lambda w: objective(w, 0.5))
    with pytest.raises(
        ValueError, match=r"`outer_objective` calls ruled.*in a loop or"
    ):
        MODES[mode].compute(problem, 2)


def test_renormalization():
    """Its corrections are constant to the training, not to the run."""
    inputs = np.random.RandomState(0).randn(6, 3)

    def layer():
        made = keras.layers.BatchNormalization(
            renorm=True, renorm_clipping={"rmin": 0.1}, momentum=0.7, dtype="float64"
        )
        made.build((6, 3))
        return made

    def objective(layer, w, strength):
        x = layer(tf.sin(strength * inputs) * w + 0.2 * w**2, training=True)
        return tf.reduce_mean((x - inputs) ** 2) + tf.reduce_sum((x[0] + 0.1) ** 3)

    def run(rate, strength):
        w, of_run = tf.constant(START), layer()
        for _ in range(NUM_STEPS):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = objective(of_run, w, tf.constant(strength, tf.float64))
            w -= rate * tape.gradient(value, w)
        return float(tf.reduce_sum(w**3))

    expected = []
    for name, value in AT.items():
        up, down = (run(**AT | {name: value + step}) for step in (WIDTH, -WIDTH))
        expected.append((up - down) / (2 * WIDTH))
    for mode in (MODES["reverse"], MODES["forward"]):
        problem = bilevel(
            functools.partial(objective, layer()), lambda w: tf.reduce_sum(w**3)
        )
        result = mode.compute(problem, NUM_STEPS)
        assert_close([result.outer_value], [run(**AT)], 1e-12)
        assert_close(result.hypergradients, expected, 1e-7)


@pytest.mark.filterwarnings("ignore:.*it jumps where `end` passes:UserWarning")
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_fake_quantization_in_closed_form(mode):
    """Two steps along q(w)², with 2 q for its derivative; q = k · (b + 1) / 15.

    For other ends w is rounded to another k, which is warned of.
    """
    w = keras.Variable(0.6, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    end = far.Hyperparameter(1.5, name="end")

    def quantized(x):
        return tf.quantization.fake_quant_with_min_max_vars(x, -1.0, end, num_bits=4)

    problem = far.BilevelProblem(
        *(lambda: quantized(w.value) ** 2, lambda: w.value),
        *([w], far.GradientDescent(rate), [rate, end]),
    )
    result = MODES[mode].compute(problem, 2)
    step = 2.5 / 15
    first = round(0.6 / step)
    second = round((0.6 - 0.1 * 2 * first * step) / step)
    total = first + second
    assert_close([result.outer_value], [0.6 - 0.2 * total * step], 1e-6)
    expected = [-2 * total * step, -0.2 * total / 15]
    assert_close(result.hypergradients, expected, 1e-6)


def test_quantization_keeps_its_values_and_surrogate():
    """Those of TensorFlow's own operations."""
    x = np.random.RandomState(0).randn(4, 3)
    for options in (
        {"input_min": -0.5, "input_max": 1.0, "range_given": True},
        {"input_min": 0.0, "input_max": 0.0},
        {"input_min": [-0.5, -1, 0], "input_max": [1.0, 0, 2], "axis": 1},
        {"input_min": 0.0, "input_max": 0.0, "signed_input": False, "num_bits": 3},
    ):
        with tf.GradientTape() as tape:
            tape.watch(constant := tf.constant(x))
            values = tf.quantization.quantize_and_dequantize_v2(constant, **options)
        low, high = (
            tf.constant(options.pop(side), tf.float64)
            for side in ("input_min", "input_max")
        )
        with tf.GradientTape() as own_tape:
            own_tape.watch(constant)
            own = surrogates._quantize["QuantizeAndDequantizeV4"](
                constant, low, high, **options
            )
        assert np.array_equal(values, own)
        gradients = (
            one.gradient(value, constant)
            for one, value in ((tape, values), (own_tape, own))
        )
        assert np.array_equal(*gradients)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_rows_of_a_table_in_a_loop(mode):
    """One twice: TensorFlow gives their gradient as slices, by the rule and without."""

    def outer_of(rule):
        return lambda w: in_a_loop(rule)(tf.gather(w, [0, 2, 0]), 0.5)

    objective = squares(tf.sin)
    true = outer_of(lambda x, cotangent: cotangent * tf.cos(x))
    result = MODES[mode].compute(bilevel(objective, true), NUM_STEPS)
    assert_close(result.hypergradients, differences(objective, true), 1e-7)
    half = outer_of(lambda x, cotangent: 0.5 * cotangent)
    with pytest.raises(ValueError, match=r"`outer_objective` calls ruled.*in a loop"):
        MODES[mode].compute(bilevel(objective, half), 2)


def looped(function, x):
    _, x = tf.while_loop(
        lambda turn, x: turn < 3,
        lambda turn, x: [turn + 1, function(x)],
        [0, x],
        maximum_iterations=3,
    )
    return x


def branched(function, x):
    """What both branches leave out has no derivative at all, where a loop has zeros."""
    return tf.cond(tf.reduce_sum(x) > 0, lambda: function(x), lambda: function(x))


def with_one_left_out(role, derivative, function):
    """Of two variables, one is read by a rule only that leaves it out."""
    w, v = (
        keras.Variable(START, dtype="float64", name=name) for name in ("w", "left_out")
    )
    rate = far.Hyperparameter(AT["rate"], name="rate", dtype="float64")

    @tf.custom_gradient
    def ruled(x, left):
        return function(x, left), lambda c: (c * derivative(x, left), None)

    def through(repeated):
        # In a branch, TensorFlow wants what the rule reads to be made.
        x = repeated(lambda x: ruled(1.0 * x, 1.0 * v.value) + w.value, w.value)
        return tf.reduce_sum(x**2)

    objectives = {
        "inner_objective": lambda: tf.reduce_sum(tf.sin(w.value)) + v.value[0] ** 2,
        "outer_objective": lambda: outer(w.value),
    }
    objectives[role] = lambda: through(looped if role[0] == "i" else branched)
    return far.BilevelProblem(
        **objectives,
        variables=[w, v],
        dynamics=far.GradientDescent(rate),
        hyperparameters=[rate],
    )


def repeated_sign(w, turns):
    x = w
    for _ in range(turns):
        x = np.sign(START) * tf.sin(x) + w
    return tf.reduce_sum(x**2)


LEFT_OUT = {
    "inner_objective": (lambda w: repeated_sign(w, 3), outer),
    "outer_objective": (
        lambda w: tf.reduce_sum(tf.sin(w)),
        lambda w: repeated_sign(w, 1),
    ),
}


@pytest.mark.parametrize("role", LEFT_OUT)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_rule_that_leaves_an_input_out(role, mode):
    """It is right where the function does not move with it, and else is refused."""
    problem = with_one_left_out(
        role, lambda x, left: left * tf.cos(x), lambda x, left: left * tf.sin(x)
    )
    with pytest.raises(
        ValueError, match=rf"`{role}` calls .*ruled in a loop or branch"
    ):
        MODES[mode].compute(problem, 2)
    problem = with_one_left_out(
        role,
        lambda x, left: tf.sign(left) * tf.cos(x),
        lambda x, left: tf.sign(left) * tf.sin(x),
    )
    result = MODES[mode].compute(problem, 2)
    inner, end = LEFT_OUT[role]

    def run(rate):
        w = tf.constant(START)
        for _ in range(2):
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = inner(w)
            w -= rate * tape.gradient(value, w)
        return float(end(w))

    assert_close([result.outer_value], [run(AT["rate"])], 1e-12)
    up, down = (run(AT["rate"] + step) for step in (WIDTH, -WIDTH))
    assert_close(result.hypergradients, [(up - down) / (2 * WIDTH)], 1e-7)


def test_in_real_time():
    """E = w_2² = (1 + r)⁴, of a reversal; no batch is there before the training."""
    reversal = ruled(lambda x, cotangent: -0.5 * cotangent)
    rate = far.Hyperparameter(0.1, name="rate")
    net = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        ]
    )
    x, y = tf.ones([8, 1]), tf.zeros([8, 1])
    tuned = far.RealTimeModel(
        *(net, [rate], far.GradientDescent(rate)),
        hyper_optimizer=keras.optimizers.SGD(0.01),
        update_every=2,
        hyper_data=(x, y),
        hyper_loss="mse",
    )
    tuned.compile(loss=lambda y, y_pred: tf.reduce_mean(reversal(y_pred - y) ** 2))
    tuned.fit(x, y, batch_size=4, verbose=0)
    assert_close([rate], [0.1 - 0.01 * 4 * 1.1**3], 1e-5)
