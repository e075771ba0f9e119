"""A hyperparameter that makes its objective jump is warned of; one with kinks is not.

Each objective is a function of the weights and of a hyperparameter.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.problem import jumps
from far_ho_tf.problem.parts import parts_of
from tests.helpers import assert_close, hyper

DTYPE = tf.float64
DRAWN = tf.random.stateless_uniform([1000], (1, 2), dtype=DTYPE)
X = tf.random.stateless_normal([1000, 3], (1, 3), dtype=DTYPE)
IMAGE = tf.random.stateless_normal([4, 4], (1, 4), dtype=DTYPE)
START = np.array([0.7, -0.4, 0.3])


def near(target):
    """Weights close to a number that is made of the hyperparameter."""

    def objective(w, h):
        made = tf.cast(target(h), DTYPE)
        return tf.reduce_sum((w - made) ** 2) + tf.reduce_sum(h * w)

    return objective


def masked(w, h):
    """Dropout that is made at home."""
    kept = tf.cast(h <= DRAWN, DTYPE) / (1 - h)
    return tf.reduce_mean((tf.linalg.matvec(X, w) * kept - 1) ** 2)


def in_a_loop(choose):
    def objective(w, h):
        def body(turn, x):
            return turn + 1, choose(x, h) + w

        _, x = tf.while_loop(
            *(lambda turn, x: turn < 3, body, [0, w]), maximum_iterations=3
        )
        return tf.reduce_sum(x**2)

    return objective


def between_pixels(w, h):
    """Interpolation at a place that the hyperparameter moves."""
    places = h + tf.range(3, dtype=DTYPE) / 3
    found = keras.ops.image.map_coordinates(
        IMAGE, [places, tf.fill([3], tf.constant(1.3, DTYPE))], order=1
    )
    return tf.reduce_sum((w - found) ** 2)


JUMPS = {
    "LessEqual": masked,
    "Round": near(lambda h: tf.round(3 * h)),
    "Cast": near(lambda h: tf.cast(h, tf.int32)),
    "Sign": near(tf.sign),
    "ArgMax": near(lambda h: tf.argmax(tf.stack([h, 0.5]))),
    "Floor": near(tf.floor),
    "FloorDiv": near(lambda h: tf.math.floordiv(h, 0.2)),
    "FloorMod": near(lambda h: tf.math.floormod(h, 0.2)),
    "TopKV2": near(lambda h: tf.math.top_k(tf.stack([0.5, h]), 1).indices[0]),
    "LowerBound": near(lambda h: tf.searchsorted(tf.range(4, dtype=DTYPE), [h])[0]),
    "Bucketize": near(lambda h: tf.raw_ops.Bucketize(input=h, boundaries=[0.5, 0.9])),
    "Greater": lambda w, h: tf.reduce_sum(tf.where(w > h, w**2, w)),
    "Less": lambda w, h: tf.cond(
        h < 0.5, lambda: tf.reduce_sum(w**2), lambda: tf.reduce_sum(h * w**3)
    ),
    "while/GreaterEqual": in_a_loop(lambda x, h: x * tf.cast(DRAWN[:3] >= h, DTYPE)),
    "stateless_random_poisson/StatelessRandomPoisson": near(
        lambda h: tf.random.stateless_poisson([3], (1, 2), 5 * h, DTYPE)
    ),
}
KINKS = {
    "where": lambda w, h: tf.reduce_sum((tf.where(w > h, w, h) - w * h) ** 2),
    "a mask": lambda w, h: tf.reduce_sum((w - h) * tf.cast(w > h, DTYPE) * w),
    "maximum": lambda w, h: tf.reduce_sum(tf.maximum(w, h) ** 2 * w),
    "reduce_max": lambda w, h: tf.reduce_max(tf.stack([*tf.unstack(w), h])) * w[0],
    "abs": lambda w, h: tf.reduce_sum(tf.abs(w - h) * w),
    "sign": lambda w, h: tf.reduce_sum(tf.sign(w - h) * (w - h) * w),
    "clip": lambda w, h: tf.reduce_sum(keras.ops.clip(w, -h, h) ** 2 * w),
    "relu": lambda w, h: tf.reduce_sum(tf.nn.relu(w - h) ** 2 + tf.nn.relu(w - h)),
    "safe division": lambda w, h: tf.reduce_sum(
        w / tf.where(tf.equal(h, 0), tf.ones_like(h), h)
    ),
    "huber": lambda w, h: keras.losses.Huber(dtype="float64")(
        tf.linalg.matvec(X, w)[:, None], h * tf.ones([1000, 1], DTYPE)
    ),
    "delta of huber": lambda w, h: tf.reduce_mean(
        keras.losses.huber(tf.linalg.matvec(X, w), tf.ones([1000], DTYPE), delta=h)
    ),
    "sort": lambda w, h: tf.reduce_sum(
        tf.sort(tf.stack([w[0], h, w[1]])) * tf.range(3, dtype=DTYPE)
    ),
    "an angle": lambda w, h: tf.reduce_sum(
        w * tf.cos(tf.math.floormod(20 * h, 2 * np.pi))
    ),
    "between pixels": between_pixels,
    "many": lambda w, h: tf.reduce_mean(
        tf.where(h < DRAWN, DRAWN, h) * (tf.linalg.matvec(X, w) - 1) ** 2
    ),
    "in a loop": in_a_loop(lambda x, h: tf.where(x > h, x, h)),
    "beside a pole": lambda w, h: KINKS["in a loop"](w, h) / (1 - h),
    "of the weights": lambda w, h: tf.reduce_sum(tf.cast(w > 0.1, DTYPE) * w * h),
}
LABELS = tf.sign(X[:, 0] + 0.3 * X[:, 1])


def errors(w):
    return tf.linalg.matvec(X, w) - LABELS


# Whose gradient in the weights moves with the hyperparameter by jumps alone; and what
# moves it in other ways, too.
ALONE = {
    "Relu": lambda w, h: tf.reduce_mean(
        tf.nn.relu(h - LABELS * tf.linalg.matvec(X, w))
    ),
    "Maximum": lambda w, h: tf.reduce_sum(tf.maximum(tf.abs(errors(w)) - h, 0)),
    "Minimum": lambda w, h: tf.reduce_mean(keras.ops.clip(errors(w), -h, h) ** 2),
    "Relu/squares": lambda w, h: tf.reduce_mean(tf.nn.relu(errors(w) ** 2 - h)),
    "SelectV2": lambda w, h: tf.reduce_sum((tf.where(w > h, w, h) - 2) ** 2),
}
BESIDES = {
    "squared hinge": lambda w, h: tf.reduce_mean(
        tf.nn.relu(h - LABELS * tf.linalg.matvec(X, w)) ** 2
    ),
    "a penalty": lambda w, h: ALONE["Relu"](w, h) + h * tf.reduce_sum(w**2),
    "layers": lambda w, h: tf.reduce_mean(tf.nn.relu(X * h + w) ** 2),
    "no influence": lambda w, h: tf.reduce_sum(w**2) + tf.nn.relu(h),
}


def squares(w, h):
    return tf.reduce_sum(w**2) + h * tf.reduce_sum(w)


def bilevel(inner, outer=squares, start=START, at=0.3, **options):
    w = keras.Variable(start, dtype="float64", name="w")
    h = far.Hyperparameter(at, dtype="float64", name="h", **options)
    return far.BilevelProblem(
        lambda: inner(w.value, h.value),
        lambda: outer(w.value, h.value),
        *([w], far.GradientDescent(0.1), [h]),
    )


def warned(make):
    """What is warned of as something is made, as strings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("name", JUMPS)
def test_what_jumps_is_warned_of(name):
    (message,) = warned(lambda: bilevel(JUMPS[name]))
    kind = name.split("/")[-1]
    assert message.startswith(f"`inner_objective` holds {kind} (`")
    assert "test_jumps.py:" in message
    assert "jumps where `h` passes " in message


@pytest.mark.parametrize("name", ALONE)
def test_a_gradient_that_moves_by_jumps_alone_is_warned_of(name):
    def made():
        # Of which some are nothing but that, and an error later.
        return bilevel(ALONE[name], start=np.array([0.7, -0.4, 0.35]))

    (message,) = warned(made)
    assert message.startswith("`inner_objective` depends on `h` by ")
    assert f"{name.split('/')[0]} (`" in message and "test_jumps.py:" in message
    assert "by jumps alone" in message


def test_and_its_hypergradient_is_that_between_jumps():
    """Where differences are larger by far: 0 for a hinge's margin."""
    with pytest.warns(UserWarning, match="by jumps alone"):
        problem = bilevel(
            ALONE["Relu"], lambda w, h: tf.reduce_mean(errors(w) ** 2), START
        )
    result = far.ReverseHG().compute(problem, 5)
    values = []
    for sign in (1, -1):
        problem.hyperparameters[0].assign(0.3 + 0.1 * sign)
        values.append(far.ReverseHG().compute(problem, 5).outer_value)
    assert float(result.hypergradients[0]) == 0.0
    assert abs(float(values[0] - values[1]) / 0.2) > 0.01


@pytest.mark.parametrize("name", BESIDES)
def test_a_gradient_that_moves_in_other_ways_is_not(name):
    assert warned(lambda: bilevel(BESIDES[name])) == []


def test_a_jump_beside_a_change_of_slope():
    def objective(w, h):
        return tf.reduce_sum((w - tf.math.floormod(3 * h, 1.0)) ** 2)

    start = np.array([0.37, -0.52, 0.81, 1.3])
    (message,) = warned(lambda: bilevel(objective, start=start, at=0.6))
    assert "jumps where `h` passes 0.6667 and other values" in message


def test_the_nearest_jump_is_named():
    objective = near(lambda h: tf.cast(h, tf.int32))
    (message,) = warned(lambda: bilevel(objective, at=2.3))
    assert "jumps where `h` passes 3 and other values" in message


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_rounding_is_no_jump(policy):
    """A soft threshold, in the dtype that a layer computes in."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, dtype=policy), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    threshold = far.Hyperparameter(0.1, name="threshold")
    x = tf.cast(X[:32], tf.float32)

    def loss():
        z = layers[0](x)
        h = tf.cast(threshold, z.dtype)
        z = tf.where(z > h, z - h, tf.zeros_like(z))
        return tf.reduce_mean((layers[1](tf.cast(z, tf.float32)) - 1) ** 2)

    def made():
        return far.BilevelProblem(
            loss, loss, model, far.GradientDescent(0.1), [threshold]
        )

    assert warned(made) == []


def test_what_derivatives_choose_by_is_not_looked_into():
    """Which would take time for nothing."""
    parts, *_ = parts_of(bilevel(KINKS["maximum"]).pure)
    assert not jumps.may_jump(parts[0])
    with pytest.warns(UserWarning, match="jumps"):
        problem = bilevel(JUMPS["Floor"])
    parts, *_ = parts_of(problem.pure)
    assert jumps.may_jump(parts[0])


@pytest.mark.parametrize("name", KINKS)
def test_what_has_kinks_only_is_not(name):
    assert warned(lambda: bilevel(KINKS[name])) == []


def test_the_derivative_leaves_jumps_out():
    """What has kinks only has a right one."""
    mode = far.ReverseHG(jit_compile=False)
    for objective, is_right in ((masked, False), (KINKS["many"], True)):
        problem = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem = bilevel(objective, outer=lambda w, h: tf.reduce_sum(w**2))
            result = mode.compute(problem, 3)
        (h,) = problem.hyperparameters
        values = []
        for value in (0.35, 0.25):  # Over many steps at once.
            h.assign(value)
            values.append(float(mode.compute(problem, 3).outer_value))
        h.assign(0.3)
        difference = (values[0] - values[1]) / 0.1
        error = abs(float(result.hypergradients[0]) - difference) / abs(difference)
        assert (error < 0.05) == is_right


def test_the_place_of_a_jump_is_named():
    (message,) = warned(lambda: bilevel(near(lambda h: h > 0.4)))
    assert "passes 0.4," in message


def test_where_the_weights_start_from_zero():
    """There nothing that is multiplied with them has an influence."""
    assert warned(lambda: bilevel(masked, start=np.zeros(3)))


def test_in_other_parts():
    def step(w, h):
        return tf.reduce_sum(tf.cast(w > h, DTYPE))

    (message,) = warned(lambda: bilevel(squares, outer=step))
    assert message.startswith("`outer_objective` holds Greater")

    def scheduled(number):
        w = keras.Variable(START, dtype="float64", name="w")
        h = hyper(5.0, "h")
        return far.BilevelProblem(
            lambda: tf.reduce_sum(w.value**2),
            lambda: squares(w.value, h.value),
            [w],
            far.GradientDescent(lambda t: number(tf.cast(t, DTYPE), h.value)),
            [h],
        )

    (message,) = warned(
        lambda: scheduled(lambda t, h: tf.where(t < h, 0.1 * h, 0.01 * h))
    )
    assert message.startswith("`dynamics` holds Less")
    assert not warned(
        lambda: scheduled(lambda t, h: tf.where(t < h, t / h, tf.ones([], DTYPE)))
    )

    def started(value):
        w = keras.Variable(START, dtype="float64", name="w")
        h = hyper(0.3, "h")
        return far.BilevelProblem(
            *(lambda: tf.reduce_sum(w.value**2), lambda: tf.reduce_sum(w.value**2)),
            *([w], far.GradientDescent(0.1), [h]),
            initial_values=[(w, lambda: value(w.value, h.value))],
        )

    (message,) = warned(lambda: started(lambda w, h: h * w + tf.round(h * w)))
    assert message.startswith("`initial_values` holds Round")
    assert not warned(lambda: started(tf.maximum))


def test_no_value_that_a_constraint_excludes_counts():
    def rounded(constraint):
        return warned(lambda: bilevel(near(tf.round), constraint=constraint))

    assert not rounded(far.constraints.Interval(0.1, 0.4))
    assert rounded(far.constraints.Interval(0.1, 0.6))


def test_of_vectors():
    def problem():
        w = keras.Variable(START, dtype="float64", name="w")
        weights = far.Hyperparameter(
            np.array([0.3, 0.3, 0.4]),
            name="weights",
            constraint=far.constraints.UnitSimplex(),
        )
        return far.BilevelProblem(
            lambda: (
                tf.reduce_sum(w.value**2 * weights.value[tf.argmax(weights.value)])
                + tf.reduce_sum(w.value * tf.cast(weights.value > 0.35, DTYPE))
            ),
            lambda: tf.reduce_sum(w.value**2),
            *([w], far.GradientDescent(0.1), [weights]),
        )

    (message,) = warned(problem)
    assert "holds Greater" in message
    assert "ArgMax" not in message  # Which chooses between equal values.
    assert "jumps where elements of `weights` move" in message


def test_in_real_time():
    """Where the data are not there before the training: others take their place."""
    rate = far.Hyperparameter(0.3, name="rate")

    class Mask(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(1)

        def call(self, x, training=None):
            if not training:
                return x
            drawn = keras.random.uniform(tf.shape(x), seed=self.seeds)
            kept = tf.cast(drawn >= rate.value, x.dtype)
            return x * kept / (1.0 - rate.value)

    net = keras.Sequential([keras.Input((3,)), Mask(), keras.layers.Dense(1)])
    x = tf.cast(X[:32], tf.float32)
    tuned = far.RealTimeModel(
        *(net, [rate], far.GradientDescent(0.1)),
        update_every=1,
        hyper_data=(x, x[:, :1]),
    )
    tuned.compile(loss="mse")
    with pytest.warns(
        UserWarning, match="`inner_objective` holds GreaterEqual"
    ) as seen:
        tuned.fit(x, x[:, :1], verbose=0)
    assert "test_jumps.py" in str(seen[0].message)


def test_of_a_bare_variable_with_batches_in_float32():
    """Whose value is put back, and that of trained ones."""
    w = tf.Variable([0.7, -0.4, 0.3], name="w")
    h = tf.Variable(0.3, name="h")
    x, drawn = tf.cast(X, tf.float32), tf.cast(DRAWN, tf.float32)

    def loss(batch):
        kept = tf.cast(batch[1] >= h, tf.float32)
        return tf.reduce_mean((tf.linalg.matvec(batch[0], w) * kept - 1) ** 2)

    def problem():
        return far.BilevelProblem(
            *(loss, loss, [w], far.GradientDescent(0.1), [h]),
            inner_data=tf.data.Dataset.from_tensors((x, drawn)),
            outer_data=far.Batches((x, drawn), batch_size=100, seed=0),
        )

    inner, outer = warned(problem)
    assert inner.startswith("`inner_objective` holds GreaterEqual")
    assert outer.startswith("`outer_objective` holds GreaterEqual")
    assert_close([w, h], [[0.7, -0.4, 0.3], 0.3], 1e-7)
