"""What TensorFlow and Keras raise: one error that names part, operation and line."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import assert_close, hyper, in_tiers, slope

MODES = {"reverse": far.ReverseHG, "forward": far.ForwardHG}


def square(w):
    return tf.reshape(tf.concat([w, w + 1, w * w], 0), (1, 3, 3, 1))


def square_sum(w):
    return tf.reduce_sum(w * w)


def sparse_softmax(w):
    sparse = tf.sparse.SparseTensor([[0, 0], [0, 1], [1, 0]], w, [2, 2])
    return tf.sparse.softmax(sparse).values


def sparse_maximum(w):
    """Whose gradient TensorFlow cannot compute once."""
    indices = [[0, 0], [0, 1], [1, 0]]
    one, other = (tf.sparse.SparseTensor(indices, v, [2, 2]) for v in (w, w * w))
    return tf.sparse.maximum(one, other).values


def least_squares(w):
    matrix = square(w)[:, :, :2, 0]
    return tf.linalg.lstsq(matrix, w[tf.newaxis, :, tf.newaxis], fast=False)


def shuffled(w):
    return tf.random.experimental.stateless_shuffle(w, seed=(1, 2))


def padded_pool(w):
    return tf.nn.max_pool2d(square(w), 2, 2, [[0, 0], [1, 0], [1, 0], [0, 0]])


# The line that is named, what is differentiated, what it is a part of, the remedy.
MISSING = {
    "igamma": (
        lambda w: tf.math.igamma(tf.exp(w), tf.constant(1.3, w.dtype)),
        *("IgammaGradA", "derivative of Igamma ", "keep a fixed"),
    ),
    "sparse softmax": (
        sparse_softmax,
        *("SparseDenseCwiseAdd", "SparseSoftmax", "tf.math.segment"),
    ),
    "shuffle": (shuffled, "StatelessShuffle", "", "tf.gather"),
    "least squares": (least_squares, "MatrixSolveLs", "", "fast=True"),
    "sparse maximum": (
        sparse_maximum,
        *("SparseSparseMaximum", "", "operations that can be differentiated twice"),
    ),
    "contrast": (
        lambda w: tf.image.adjust_contrast(tf.cast(square(w), tf.float32), 0.3),
        *("AdjustContrastv2", "", "tf.reduce_mean"),
    ),
    "pooling": (padded_pool, "MaxPoolGrad", "derivative of MaxPool ", "tf.pad"),
}


def bilevel(inner, outer=square_sum, dtype="float64", **options):
    """Makes a problem with functions of the three weights (and a batch) later on."""
    w = keras.Variable([0.7, 0.4, -0.3], dtype=dtype, name="w")
    rate = far.Hyperparameter(0.05, dtype=dtype, name="rate")

    def named_loss(*batch):
        return inner(tf.convert_to_tensor(w), *batch)

    arguments = {
        "inner_objective": named_loss,
        "outer_objective": lambda: outer(tf.convert_to_tensor(w)),
        "variables": [w],
        "dynamics": far.GradientDescent(rate),
        "hyperparameters": [rate],
    }
    return lambda: far.BilevelProblem(**arguments | options)


def total(function):
    """A sum of squares of what a function makes, in the dtype of the weights."""
    return lambda w: tf.cast(tf.reduce_sum(function(w) ** 2), w.dtype)


def refused(make, mode="reverse", num_steps=3, **options):
    """What is said when a problem is made, or run; the original is its cause."""
    with pytest.raises(ValueError, match="Received: ") as caught:
        MODES[mode](**options).compute(make(), num_steps)
    assert caught.value.__cause__ is not None
    return str(caught.value)


def line_of(function, offset):
    """How a line of this file is named, counted from a function's first."""
    return f"in line {function.__code__.co_firstlineno + offset} of {__file__} (`"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", in_tiers(MISSING, ["igamma", "sparse softmax"]))
def test_a_missing_derivative(kind, mode):
    function, operation, origin, remedy = MISSING[kind]
    said = refused(bilevel(total(function)), mode)
    assert said.startswith(
        f"`inner_objective` (named_loss) cannot be differentiated at {operation}"
    )
    assert origin in said
    assert f"of {__file__} (`" in said
    assert remedy in said.split("Remedy: ")[1].split("Received: ")[0]


class TestPartAndLine:
    def test_of_the_operation(self):
        said = refused(bilevel(total(shuffled)))
        assert f"{line_of(shuffled, 1)}return tf.random.experimental.stat" in said

    def test_where_autograph_wrote_the_objective(self):
        w = keras.Variable([0.7, 0.4], dtype="float64", name="w")

        def loss():
            value = tf.convert_to_tensor(w)
            if value[0] > 0:
                value = 2 * value
            return tf.reduce_sum(shuffled(value))

        problem = bilevel(square_sum, inner_objective=tf.function(loss), variables=[w])
        said = refused(problem)
        assert said.startswith("`inner_objective` (loss) cannot be differentiated at")
        assert "(`return tf.random.experimental.stateless_shuffle(w, " in said

        @tf.function
        def ragged():
            value = tf.convert_to_tensor(w)
            if value[0] > 0:
                value = 2 * value
            return tf.reduce_sum(value + tf.ones(3, w.dtype))

        said = refused(bilevel(square_sum, inner_objective=ragged, variables=[w]))
        line = line_of(ragged.python_function, 5)
        assert f"{line}return tf.reduce_sum(value + tf.ones(3, w.dtype))" in said

    def test_of_the_outer_objective(self):
        said = refused(bilevel(square_sum, total(shuffled)))
        assert said.startswith("`outer_objective` (<lambda>) cannot be differentiated")
        assert line_of(shuffled, 1) in said

    def test_of_the_initial_values(self):
        w = keras.Variable([0.7, 0.4], dtype="float64", name="w")
        scale = hyper([1.0, 2.0], "scale")
        problem = bilevel(
            square_sum,
            inner_objective=lambda: tf.reduce_sum(w * w),
            outer_objective=lambda: tf.reduce_sum(w * w),
            variables=[w],
            initial_values=[(w, lambda: shuffled(tf.convert_to_tensor(scale)))],
            hyperparameters=[scale],
            dynamics=far.GradientDescent(0.1),
        )
        said = refused(problem)
        assert said.startswith("`initial_values` cannot be differentiated at Stateless")
        assert line_of(shuffled, 1) in said

    def test_of_the_dynamics(self):
        class Broken(far.Dynamics):
            def update(self, variable, gradient, slots, step):
                raise RuntimeError("no update")

        said = refused(bilevel(square_sum, dynamics=Broken()))
        assert said.startswith(f"`dynamics` fails {line_of(Broken.update, 1)}raise")
        assert "RuntimeError: no update" in said

    def test_where_the_graph_runs(self):
        def checked(w):
            value = tf.reduce_sum(w * w)
            check = tf.debugging.assert_less(value, tf.constant(0.5, w.dtype))
            with tf.control_dependencies([check]):
                return tf.identity(value)

        said = refused(bilevel(checked), jit_compile=False)
        assert said.startswith("`inner_objective` (named_loss) failed: Condition x < y")
        assert line_of(checked, 2) in said

    def test_what_xla_cannot_compile(self):
        problem = bilevel(
            lambda w, batch: tf.reduce_sum(w * w * batch),
            inner_data=lambda step: tf.ensure_shape(
                tf.numpy_function(lambda _: np.ones(3), [step], tf.float64), [3]
            ),
        )
        said = refused(problem, jit_compile=True)
        assert "`jit_compile` at 'auto'" in said
        far.ReverseHG().compute(problem(), 2)

    def test_in_real_time(self):
        def loss(y, predicted):
            return tf.reduce_mean(shuffled(predicted - y) ** 2)

        rate = far.Hyperparameter(0.1, name="rate")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        x, y = np.ones((4, 2)), np.ones((4, 1))
        tuned = far.RealTimeModel(
            model, [rate], far.GradientDescent(rate), hyper_data=(x, y)
        )
        tuned.compile(loss=loss)
        with pytest.raises(ValueError, match=r"`inner_objective` .*StatelessShuffle"):
            tuned.fit(x, y, verbose=0)

    def test_in_a_plan(self):
        with pytest.raises(ValueError, match=r"`inner_objective` .*StatelessShuffle"):
            far.plan(bilevel(total(shuffled))(), num_steps=3)


class TestAutoGraph:
    """What relies on it below the objective works where that is a tf.function."""

    def problem(self, decorate):
        w = keras.Variable([0.7, 0.4, -0.3], dtype="float64", name="w")

        class Retrieval:
            def __call__(self, scores):
                return tf.reduce_sum(scores**2) / tf.cast(len(scores), scores.dtype)

        task = Retrieval()

        @decorate
        def loss():
            # So many that nothing tells their number before.
            return task(tf.boolean_mask(w, w < 0.5))

        return bilevel(
            square_sum,
            inner_objective=loss,
            outer_objective=lambda: tf.reduce_sum(w * w),
            variables=[w],
        )

    def test_the_error_says_so(self):
        said = refused(self.problem(lambda loss: loss))
        assert "len is not well defined for a symbolic Tensor" in said
        assert "decorated with @tf.function" in said

    def test_it_works_so(self):
        """The loss is w₁² + w₂² over 2: a step makes (1 − r) w of both."""
        result = far.ReverseHG().compute(self.problem(tf.function)(), 1)
        expected = -2 * (1 - 0.05) * (0.4**2 + 0.3**2)
        assert_close(result.hypergradients, [expected], 1e-12)


@pytest.mark.parametrize(
    "objective", [np.log, lambda w: w * float(w[0])], ids=["numpy", "python"]
)
def test_numpy_and_python_numbers(objective):
    said = refused(bilevel(total(objective)))
    assert "functions of tf or keras.ops" in said
    assert f"of {__file__}" in said


class TestData:
    def weighted(self, data):
        return bilevel(lambda w, batch: tf.reduce_sum(w * w * batch), inner_data=data)

    def test_a_callable_that_raises(self):
        def broken(step):
            raise RuntimeError("no batch")

        said = refused(self.weighted(broken))
        assert said.startswith("`inner_data` must be a callable")
        assert f"no batch {line_of(broken, 1)}raise" in said

    @pytest.mark.parametrize("mode", MODES)
    def test_a_callable_that_raises_in_a_step(self, mode):
        def batch(step):
            if step == 1:
                raise RuntimeError("no batch")
            return np.ones(3)

        def data(step):
            made = tf.numpy_function(batch, [step], tf.float64)
            return tf.ensure_shape(made, [3])

        said = refused(self.weighted(data), mode)
        assert said.startswith("`inner_data` fails in step 1")
        assert f"RuntimeError: no batch {line_of(batch, 2)}raise" in said

    def test_a_callable_that_fails_in_every_step(self):
        """It does not end before a step."""

        def data(step):
            with tf.control_dependencies([tf.debugging.assert_less(step, 0)]):
                return tf.ones(3, tf.float64)

        assert refused(self.weighted(data)).startswith("`inner_data` fails in step 0")

    def test_a_map_that_raises(self):
        data = tf.data.Dataset.range(5).map(
            lambda i: tf.debugging.check_numerics(
                tf.ones(3, tf.float64) / tf.cast(2 - i, tf.float64), "no element"
            )
        )
        said = refused(self.weighted(data))
        assert said.startswith("`inner_data` fails in step 2: its `tf.data.Dataset`")
        assert "no element" in said

    def test_a_generator_that_raises(self):
        def elements():
            yield np.ones(3)
            raise KeyError("no element")

        data = tf.data.Dataset.from_generator(
            elements, output_signature=tf.TensorSpec([3], tf.float64)
        )
        said = refused(self.weighted(data))
        assert said.startswith("`inner_data` fails in step 1: its `tf.data.Dataset`")
        assert f"{line_of(elements, 2)}raise KeyError" in said


def test_boxes_in_forward_mode():
    """Which reverse mode can do: one derivative is enough there."""
    image = tf.reshape(tf.range(16.0), (1, 4, 4, 1)) ** 1.5
    side = far.Hyperparameter(0.6, name="side")
    w = keras.Variable(tf.ones((3, 3)), name="w")

    def loss():
        box = tf.stack([0.1, 0.1, tf.convert_to_tensor(side), 0.6])
        crop = tf.image.crop_and_resize(image, box[tf.newaxis], [0], [3, 3])
        return tf.reduce_mean((w * crop[0, :, :, 0] - 1.0) ** 2)

    problem = far.BilevelProblem(
        loss, lambda: tf.reduce_sum(w * w), [w], far.GradientDescent(0.01), [side]
    )
    said = refused(lambda: problem, "forward")
    assert "cannot be differentiated at CropAndResizeGradBoxes, a part of" in said
    assert "use far.ReverseHG()" in said
    mode = far.ReverseHG()
    expected = slope(mode, problem, 2, 5e-3, (side, 1.0))
    assert_close(mode.compute(problem, 2).hypergradients, [expected], 1e-2)


@pytest.mark.parametrize("wrap", [tf.recompute_grad, keras.remat])
@pytest.mark.parametrize("mode", MODES)
def test_recomputed(wrap, mode):
    """Its derivative is that of the function, in any order."""

    def plain(w):
        return tf.reduce_sum(tf.sin(w) ** 2)

    found, expected = (
        MODES[mode]().compute(bilevel(function)(), 3)
        for function in (wrap(plain), plain)
    )
    assert_close(found.hypergradients, expected.hypergradients, 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_layers_that_are_recomputed(mode):
    def hypergradient(scope):
        with scope:
            layer = keras.layers.Dense(3, "tanh", dtype="float64")
        layer.build((None, 3))
        layer.kernel.assign(np.random.RandomState(0).randn(3, 3))
        rate = hyper(0.1, "rate")

        def loss():
            return tf.reduce_mean((layer(tf.ones((2, 3), tf.float64)) - 0.5) ** 2)

        rule = far.GradientDescent(rate)
        problem = far.BilevelProblem(loss, loss, layer, rule, [rate])
        return MODES[mode]().compute(problem, 3).hypergradients

    plain = hypergradient(contextlib.nullcontext())
    assert_close(hypergradient(keras.RematScope("full")), plain, 1e-12)


def test_what_is_nobodys_mistake_stays_what_it_is():
    """As a machine that is too small for a run."""

    def loss(w):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    with pytest.raises(tf.errors.ResourceExhaustedError):
        far.ReverseHG().compute(bilevel(loss)(), 2)


def test_what_no_key_was_found_for():
    def loss():
        return {}["x"]

    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    parts = [w], far.GradientDescent(rate), [rate]
    with pytest.raises(ValueError, match=r"failed: no key 'x' in line \d+ of "):
        far.ReverseHG().compute(far.BilevelProblem(loss, lambda: w * w, *parts), 1)
    with pytest.raises(ValueError, match=r"failed: no key 'y' in line \d+ of "):
        far.BilevelProblem(
            lambda batch: w * w * batch["y"],
            lambda: w * w,
            *parts,
            inner_data={"x": np.ones(3, np.float32)},
        )


def test_what_an_objective_must_return():
    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    parts = [w], far.GradientDescent(rate), [rate]

    def through_python():
        return tf.py_function(lambda x: x * x, [w.value], tf.float32)

    for loss, said in (
        (lambda: {"loss": w * w}, "must return a scalar. Received: a dict"),
        (through_python, "unknown shape, such as of tf.py_function"),
        (
            lambda: w.value * tf.constant(2.0, tf.float64),
            "cast the data before they are given",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            far.ReverseHG().compute(far.BilevelProblem(loss, lambda: w * w, *parts), 1)


def test_a_gradient_within_an_objective():
    """Variables stand for values there, which are what can be differentiated in."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    x = np.array([[1.0], [2.0]], np.float32)
    scale = far.Hyperparameter(0.1, name="scale")

    def penalized(values, watches):
        def loss():
            with tf.GradientTape() as tape:
                inputs = values()
                if watches:
                    tape.watch(inputs)
                value = tf.reduce_mean((model(x) - 1.0) ** 2)
            gradients = tape.gradient(value, inputs)
            return value + scale * sum(tf.reduce_sum(one**2) for one in gradients)

        return loss

    def made(*how):
        return far.BilevelProblem(
            penalized(*how),
            lambda: tf.reduce_mean((model(x) - 2.0) ** 2),
            *(model, far.GradientDescent(0.01), [scale]),
        )

    with pytest.raises(ValueError, match=r"w.value for w in model.trainable_variables"):
        far.ReverseHG().compute(made(lambda: model.trainable_variables, False), 2)
    problem = made(lambda: [w.value for w in model.trainable_variables], True)
    mode = far.ReverseHG(jit_compile=False)
    expected = slope(mode, problem, 2, 1e-3, (scale, 1.0))
    assert_close(mode.compute(problem, 2).hypergradients, [expected], 1e-2)


def test_tensors_are_constants_in_dynamics():
    w = keras.Variable(1.0, name="w")
    rate = far.Hyperparameter(0.1, name="rate")

    def made(number):
        return far.BilevelProblem(
            lambda: w * w * (1 + rate), lambda: w * w, [w], far.Momentum(number), [rate]
        )

    with pytest.warns(UserWarning, match="`learning_rate` of Momentum is a tensor"):
        far.ReverseHG().compute(made(2 * rate), 2, write_back=False)
    result = far.ReverseHG(jit_compile=False).compute(made(lambda step: 2 * rate), 1)
    # w₁ = 1 − 4 r (1 + r), and 2 w₁ dw₁/dr.
    assert_close(result.hypergradients, [2 * 0.56 * -4 * 1.2], 1e-5)


def test_an_outer_objective_that_only_counts():
    w = keras.Variable([0.3, -0.4], name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum((w - 1.0) ** 2),
        lambda: tf.reduce_mean(tf.cast(w < 0.5, tf.float32)) + 0.01 * rate,
        *([w], far.GradientDescent(rate), [rate]),
    )
    with pytest.warns(UserWarning, match="tells nothing of the training"):
        far.ReverseHG().compute(problem, 2)
