"""Operations in forms that are fast on a CPU: the same numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops

import far_ho_tf as far
from far_ho_tf.patches.kernels import (
    no_kernel_rewrites,
    tensorflow_rewrites,
    xla_rewrites,
)
from tests import reference
from tests.helpers import Classification, assert_close, hyper, in_tiers

MAT_MUL, SUM = gen_math_ops.mat_mul, gen_math_ops._sum


def kinds(function, *arguments):
    """The kinds of a traced function's operations."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {operation.type for operation in graph.get_operations()}


def rewritten(function, rewrites=xla_rewrites):
    def within(*arguments):
        with rewrites():
            return function(*arguments)

    return within


def test_outer_products():
    """As a sum's derivative makes them: elementwise, whatever their size."""
    a, b = tf.random.normal((1000, 1)), tf.random.normal((20, 1))
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        expected = tf.matmul(a, b, transpose_b=True)
        value = tf.reduce_sum(expected**2)
    gradients = tape.gradient(value, [a, b])

    @rewritten
    def derivatives(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            product = tf.matmul(a, b, transpose_b=True)
            value = tf.reduce_sum(product**2)
        return product, *tape.gradient(value, [a, b])

    found, *others = derivatives(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for one, other in zip(others, gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    outer = rewritten(lambda a, b: tf.matmul(a, b, transpose_b=True))
    assert "MatMul" not in kinds(outer, a, b)


def test_what_does_not_fit_is_refused():
    a, b = tf.TensorSpec((2, 1)), tf.TensorSpec((3, 2))
    with xla_rewrites():
        product = gen_math_ops.mat_mul
    with pytest.raises(ValueError, match="incompatible"):
        kinds(product, a, b)


def test_axes_as_tensors():
    def last(x):
        return tf.reduce_sum(x, axis=[tf.rank(x) - 1])

    found = rewritten(last)(tf.ones((50, 100)))
    np.testing.assert_array_equal(found, np.full(50, 100.0))
    tf.function(rewritten(last)).get_concrete_function(tf.TensorSpec((50, 100)))
    traced = tf.function(rewritten(last))(tf.ones((50, 100)))
    np.testing.assert_array_equal(traced, np.full(50, 100.0))


def test_kernels_withrewritten():
    with xla_rewrites():
        within = gen_math_ops.mat_mul
        with no_kernel_rewrites():
            assert gen_math_ops.mat_mul is MAT_MUL
        assert gen_math_ops.mat_mul is within is not MAT_MUL
    assert gen_math_ops.mat_mul is MAT_MUL


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_products_and_two_derivatives(transpose_a, transpose_b):
    random = np.random.RandomState(0)
    a = tf.constant(random.randn(*((3, 5) if transpose_a else (5, 3))))
    b = tf.constant(random.randn(*((2, 3) if transpose_b else (3, 2))))

    def derivatives(a, b):
        with tf.GradientTape() as outer:
            outer.watch([a, b])
            with tf.GradientTape() as inner:
                inner.watch([a, b])
                product = tf.matmul(a, b, transpose_a, transpose_b)
                value = tf.reduce_sum(tf.sin(product))
            first = inner.gradient(value, [a, b])
            norm = tf.reduce_sum(first[0] ** 2) + tf.reduce_sum(first[1] ** 3)
        return product, *first, *outer.gradient(norm, [a, b])

    expected = derivatives(a, b)
    for found, one in zip(rewritten(derivatives)(a, b), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=1e-12, atol=1e-13)
    assert "MatMul" in kinds(derivatives, a, b)
    assert "MatMul" not in kinds(rewritten(derivatives), a, b)
    assert gen_math_ops.mat_mul is MAT_MUL


@pytest.mark.parametrize(
    "shapes, dtype",
    [
        (((40, 20), (20, 6)), tf.float32),
        (((4, 2), (2, 3)), tf.float16),
        (((None, 2), (2, 3)), tf.float32),
    ],
)
def test_other_products_stay(shapes, dtype):
    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    assert "MatMul" in kinds(rewritten(tf.matmul), *specs)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 1, -1, [1, 2], [0, 2], 0])
def test_sums_and_two_derivatives(axis, keepdims):
    x = tf.constant(np.random.RandomState(0).randn(6, 20, 100))

    def derivatives(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                sums = tf.reduce_sum(x**3, axis, keepdims)
                value = tf.reduce_sum(tf.sin(sums))
            first = inner.gradient(value, x)
            norm = tf.reduce_sum(first**2)
        return sums, first, outer.gradient(norm, x)

    expected = derivatives(x)
    for found, one in zip(rewritten(derivatives)(x), expected, strict=True):
        assert found.shape == one.shape
        scale = np.abs(one).max()
        np.testing.assert_allclose(found, one, rtol=1e-11, atol=1e-13 * scale)
    assert gen_math_ops._sum is SUM


@pytest.mark.parametrize(
    "shape, axis, is_product",
    [
        ((40, 100), None, True),
        ((40, 1, 100), 2, True),
        ((1, 40, 100), [1, 2], True),
        ((40, 100), 0, False),  # Not along rows.
        ((39, 100), None, False),  # Small.
        ((400, 10), 1, False),  # Short rows.
        ((4999,), 0, False),  # A prime number.
        ((None, 100), 1, False),
    ],
)
def test_which_sums_are_products(shape, axis, is_product):
    spec = tf.TensorSpec(shape)
    found = kinds(rewritten(lambda x: tf.reduce_sum(x, axis)), spec)
    assert ("MatMul" in found) == is_product
    plain = kinds(lambda x: tf.reduce_sum(x, axis), spec)
    assert "MatMul" not in plain


class TestWithoutXla:
    """The forms for TensorFlow's own kernels."""

    def assert_equal(self, function, *arguments):
        """The numbers and two derivatives, in both forms; gives the operations."""

        def derivatives(*arguments):
            with tf.GradientTape() as outer:
                outer.watch(arguments)
                with tf.GradientTape() as inner:
                    inner.watch(arguments)
                    made = function(*arguments)
                    value = tf.reduce_sum(tf.sin(made))
                first = inner.gradient(value, arguments)
                norm = tf.add_n([tf.reduce_sum(one**2) for one in first])
            return made, *first, *outer.gradient(norm, arguments)

        formed = rewritten(derivatives, tensorflow_rewrites)
        expected = derivatives(*arguments)
        for found, one in zip(formed(*arguments), expected, strict=True):
            scale = np.abs(one).max()
            np.testing.assert_allclose(found, one, rtol=1e-11, atol=1e-13 * scale)
        return kinds(derivatives, *arguments), kinds(formed, *arguments)

    @pytest.mark.parametrize(
        "rows, columns, narrow, is_formed",
        [(1000, 100, 3, True), (1000, 100, 11, False), (999, 100, 3, False)],
    )
    def test_transposed_products(self, rows, columns, narrow, is_formed):
        random = np.random.RandomState(0)
        x, e = (tf.constant(random.randn(rows, n) / 30) for n in (columns, narrow))
        before, now = self.assert_equal(lambda x, e: tf.matmul(x, e, True), x, e)
        assert "Transpose" not in before
        assert ("Transpose" in now) == is_formed

    @pytest.mark.parametrize("shape", [(7, 1, 5), (2, 7, 1, 5)])
    def test_inner_products(self, shape):
        random = np.random.RandomState(0)
        x = tf.constant(random.randn(*shape))
        y = tf.constant(random.randn(*shape[:-2], 5, 1))
        before, _ = self.assert_equal(tf.matmul, x, y)
        assert "BatchMatMulV2" in before
        assert "BatchMatMulV2" not in kinds(
            rewritten(tf.matmul, tensorflow_rewrites), x, y
        )

    def test_other_products_of_batches_stay(self):
        product = rewritten(tf.matmul, tensorflow_rewrites)
        for shapes in (
            ((7, 2, 5), (7, 5, 1)),
            ((None, 1, 5), (None, 5, 1)),
            ((7, 1, 1, 5), (1, 7, 5, 1)),  # All pairs of them, were they multiplied.
        ):
            specs = [tf.TensorSpec(shape) for shape in shapes]
            assert "BatchMatMulV2" in kinds(product, *specs)
        with pytest.raises(ValueError, match="must be equal"):
            kinds(product, tf.TensorSpec((7, 1, 5)), tf.TensorSpec((7, 4, 1)))

    @pytest.mark.parametrize("padding", ["VALID", "SAME"])
    @pytest.mark.parametrize(
        "size, window, stride, is_formed",
        [
            *((6, 2, 2, True), (6, 3, 3, True), (7, 2, 2, False), (6, 3, 2, False)),
            (6, (2, 3), (2, 3), True),
        ],
    )
    def test_max_pooling(self, size, window, stride, padding, is_formed):
        x = tf.constant(np.random.RandomState(0).randn(2, size, size, 3))
        before, now = self.assert_equal(
            lambda x: tf.nn.max_pool2d(x, window, stride, padding), x
        )
        assert "MaxPoolGradGrad" in before
        assert ("MaxPoolGradGrad" not in now) == is_formed

    @pytest.mark.parametrize("shape", [None, (None, 6, 6, 3)])
    def test_max_pooling_of_unknown_shapes_stays(self, shape):
        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64)])
        def second(x):
            with tensorflow_rewrites(), tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = tf.nn.max_pool2d(x, 2, 2, "VALID") ** 3
                return outer.gradient(inner.gradient(y, x), x)

        x = np.arange(2 * 6 * 6 * 3.0).reshape(2, 6, 6, 3)
        largest = (np.indices(x.shape)[1:3] % 2 == 1).all(0)
        np.testing.assert_allclose(second(x), 6 * x * largest)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_of_equal_elements_the_same_one_counts(self, dtype):
        """In a graph, of which oneDNN takes the operations in float32: the derivative's
        transpose is the transpose of the derivative."""
        random = np.random.RandomState(0)
        x = tf.constant(random.randint(0, 2, (3, 6, 6, 2)), dtype)
        back = tf.constant(random.randn(3, 3, 3, 2), dtype)
        along = tf.constant(random.randn(3, 6, 6, 2), dtype)

        @tf.function
        def both(x, back, along):
            with tensorflow_rewrites(), tf.GradientTape() as outer:
                outer.watch(back)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    y = tf.nn.max_pool2d(x, 2, 2, "VALID")
                product = tf.reduce_sum(inner.gradient(y, x, back) * along)
            return product, tf.reduce_sum(outer.gradient(product, back) * back)

        assert "MaxPoolGradGrad" not in kinds(both, x, back, along)
        forwards, backwards = both(x, back, along)
        np.testing.assert_allclose(forwards, backwards, rtol=1e-5)
        assert abs(float(forwards)) > 1


class TestHypergradientsWithoutXla:
    """Beside the unrolled reference, which has TensorFlow's own forms."""

    def assert_equal(self, x, layers, classes):
        y = np.arange(len(x)) % classes
        layers = [*layers, keras.layers.Dense(classes, dtype="float64")]
        model = keras.Sequential([keras.Input(x.shape[1:], dtype="float64"), *layers])
        rate, scale = hyper(0.3, "rate"), hyper(1.5, "scale")

        def loss(x):
            logits = model(x)
            return tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            )

        problem = {
            "inner": lambda: tf.convert_to_tensor(scale) * loss(x),
            "outer": lambda: loss(x[::-1]),
            "variables": model.trainable_variables,
            "hyperparameters": [rate, scale],
            "batch": lambda t: None,
            "outer_batch": None,
        }
        value, expected, _ = reference.unrolled(
            problem,
            lambda t, i, w, g, slots: (w - tf.convert_to_tensor(rate) * g, slots),
            4,
        )
        bilevel = far.BilevelProblem(
            problem["inner"],
            problem["outer"],
            model,
            far.GradientDescent(rate),
            [rate, scale],
        )
        for mode in (far.ReverseHG, far.ForwardHG):
            result = mode(jit_compile=False).compute(bilevel, 4, write_back=False)
            assert_close(result.hypergradients, expected, 1e-9)
            assert_close([result.outer_value], [value], 1e-12)

    def test_max_pooling(self):
        x = np.random.RandomState(0).randn(5, 6, 6, 2)
        x[:, 2:, 2:] = 0.0  # So that in some windows all are equal.
        layers = [
            keras.layers.Conv2D(
                3, 3, padding="same", activation="tanh", dtype="float64"
            ),
            keras.layers.MaxPooling2D(2, dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
        ]
        self.assert_equal(x, layers, 3)

    def test_softmax_regression(self):
        self.assert_equal(np.random.RandomState(0).randn(1000, 100), [], 4)


def convolution(kind, **options):
    return lambda dtype: getattr(keras.layers, kind)(
        4, 2, dtype=dtype, activation="tanh", **options
    )


# Layers that Keras has XLA compile, where a CPU has no kernels for them, and shapes.
CONVOLUTIONS = {
    "Conv1D": (convolution("Conv1D", groups=2), (5, 4)),
    "Conv2D": (convolution("Conv2D", groups=2), (4, 5, 4)),
    "strides": (
        convolution("Conv2D", groups=4, strides=2, padding="same"),
        (5, 4, 4),
    ),
    "channels first": (
        convolution("Conv2D", groups=2, data_format="channels_first"),
        (4, 4, 5),
    ),
    "Conv3D": (convolution("Conv3D", groups=2), (3, 3, 4, 4)),
    "Conv3D, channels first": (
        convolution("Conv3D", data_format="channels_first"),
        (2, 3, 3, 4),
    ),
}


class TestConvolutions:
    """Which are right as a graph where `fit` works; against differences."""

    def problem(self, kind, dtype, learning_rate=0.05):
        layer, shape = CONVOLUTIONS[kind]
        model = keras.Sequential(
            [
                keras.Input(shape, dtype=dtype),
                layer(dtype),
                keras.layers.Flatten(dtype=dtype),
                keras.layers.Dense(1, dtype=dtype),
            ]
        )
        random = np.random.RandomState(0)
        model.set_weights([0.3 * random.randn(*w.shape) for w in model.get_weights()])
        x = random.randn(3, *shape).astype(dtype)
        rate = far.Hyperparameter(learning_rate, dtype=dtype, name="rate")

        def loss():
            return tf.reduce_mean((model(x) - 1.0) ** 2)

        return far.BilevelProblem(loss, loss, model, far.GradientDescent(rate), [rate])

    def trained(self, kind, rate):
        """The loss after two steps of plain eager training, in float64."""
        problem = self.problem(kind, "float64")
        for _ in range(2):
            with tf.GradientTape() as tape:
                value = problem.pure._outer_objective(None)
            for variable, gradient in zip(
                problem.variables,
                tape.gradient(value, problem.variables),
                strict=True,
            ):
                variable.assign_sub(rate * gradient)
        return float(problem.pure._outer_objective(None))

    @pytest.mark.parametrize("kind", in_tiers(CONVOLUTIONS, ["Conv2D", "Conv3D"]))
    def test_hypergradients(self, kind):
        up, down = (self.trained(kind, 0.05 + change) for change in (1e-5, -1e-5))
        for mode in (far.ReverseHG(), far.ForwardHG(jit_compile=False)):
            # So few steps that "auto" compiles nothing.
            problem = self.problem(kind, "float64")
            result = mode.compute(problem, 2, hyper_iterations=1)
            assert result.status.compiler == "graph"
            assert_close(result.hypergradients, [(up - down) / 2e-5], 1e-6)

    @pytest.mark.parametrize("kind", in_tiers(CONVOLUTIONS, ["Conv3D"]))
    def test_in_float32(self, kind):
        found, expected = (
            far.ReverseHG(jit_compile=compiled).compute(self.problem(kind, dtype), 2)
            for dtype, compiled in (("float32", False), ("float64", True))
        )
        assert found.status.compiler == "graph"
        assert_close(found.hypergradients, expected.hypergradients, 1e-4)

    @pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
    @pytest.mark.parametrize(
        "padding", ["VALID", "SAME", [[0, 0], [1, 0], [0, 2], [0, 0]]], ids=str
    )
    def test_values(self, layout, padding):
        """Each group by itself, of channels last."""
        random = np.random.RandomState(0)
        x, kernel = random.randn(2, 5, 6, 4), random.randn(2, 3, 2, 6)
        strides = [1, 2, 1, 1]
        halves = (
            tf.nn.conv2d(x[..., a : a + 2], kernel[..., b : b + 3], strides, padding)
            for a, b in ((0, 0), (2, 3))
        )
        expected = tf.concat(list(halves), -1)

        @tf.function
        def formed(x, strides, padding):
            with tensorflow_rewrites():
                return tf.nn.conv2d(x, kernel, strides, padding, layout)

        if layout == "NCHW":
            order = [0, 3, 1, 2]
            strides = [strides[axis] for axis in order]
            if isinstance(padding, list):
                padding = [padding[axis] for axis in order]
            x, expected = (tf.transpose(one, order) for one in (x, expected))
        np.testing.assert_allclose(formed(x, strides, padding), expected, rtol=1e-12)

    def test_in_real_time(self):
        """Where the outer objective runs as a graph, whatever the steps do."""
        keras.config.set_floatx("float64")
        try:
            problem = self.problem("Conv2D", "float64")
            (rate,), x = problem.hyperparameters, np.ones((3, 4, 5, 4))
            layer, _ = CONVOLUTIONS["Conv2D"]
            model = keras.Sequential(
                [keras.Input(x.shape[1:]), layer("float64"), keras.layers.Flatten()]
            )
            tuned = far.RealTimeModel(
                model,
                [rate],
                far.GradientDescent(rate),
                keras.optimizers.SGD(0.01),
                update_every=1,
                hyper_data=(x, np.ones((3, 48))),
            )
            tuned.compile(loss="mse", jit_compile=False)
            tuned.fit(x, np.ones((3, 48)), epochs=2, batch_size=3, verbose=0)
        finally:
            keras.config.set_floatx("float32")
        assert float(rate) != 0.05


@pytest.mark.parametrize("compiler", ["xla", "graph"])
def test_programs(compiler, monkeypatch):
    """XLA's have none of the small products; graphs have."""
    called = []

    def counted(a, b, *arguments, **options):
        called.append((a.shape, b.shape))
        return MAT_MUL(a, b, *arguments, **options)

    monkeypatch.setattr("far_ho_tf.patches.kernels._product", counted)
    monkeypatch.setattr(gen_math_ops, "mat_mul", counted)
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    bilevel = problem.bilevel(far.GradientDescent(rate), [rate])
    assert bilevel.pure.report  # What is traced for it is traced before.
    called.clear()
    far.ReverseHG(jit_compile=compiler == "xla").compute(bilevel, 3)
    assert bool(called) == (compiler == "graph")
