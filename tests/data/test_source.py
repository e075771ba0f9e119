"""Sources of data: any step's batch at any time, in any order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.data import as_source


def epochs_of(batches, num_epochs):
    """The examples of so many epochs, one epoch a row."""
    num_steps = -(-num_epochs * batches.num_examples // batches.batch_size)
    examples = np.concatenate([batches(step) for step in range(num_steps)])
    examples = examples[: num_epochs * batches.num_examples]
    return examples.reshape(num_epochs, batches.num_examples)


@pytest.mark.parametrize(
    ("num_examples", "batch_size"), [(12, 4), (12, 5), (12, 12), (7, 3), (1, 1), (5, 1)]
)
def test_each_epoch_has_each_example_once(num_examples, batch_size):
    batches = far.Batches(100 + np.arange(num_examples), batch_size, seed=3)
    assert batches(0).shape == (batch_size,)
    for epoch in epochs_of(batches, 5):
        np.testing.assert_array_equal(np.sort(epoch), 100 + np.arange(num_examples))


def test_without_shuffling_the_order_is_kept_across_epochs():
    batches = far.Batches(np.arange(7), 3, shuffle=False)
    expected = np.resize(np.arange(7), 30).reshape(10, 3)
    np.testing.assert_array_equal([batches(step) for step in range(10)], expected)


def test_seeds_and_epochs_give_different_orders():
    orders = {
        tuple(epoch)
        for seed in range(-2, 8)
        for epoch in epochs_of(far.Batches(np.arange(20), 10, seed), 3)
    }
    assert len(orders) == 30
    again = [epochs_of(far.Batches(np.arange(20), 10, 5), 3) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_every_example_comes_equally_often_first():
    indices = tf.function(far.Batches(np.arange(8), 8).indices)
    first = [int(indices(tf.constant(step))[0]) for step in range(400)]
    counts = np.bincount(first, minlength=8)
    assert ((counts - 50) ** 2 / 50).sum() < 30  # χ² of 7 degrees, p < 10⁻⁴.


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_and_xla_give_the_same_batch(jit_compile):
    batches = far.Batches(np.arange(11), 4, seed=9)
    compiled = tf.function(batches, jit_compile=jit_compile)
    for step in (0, 2, 3, 1, 10_000, 2**31 - 1):
        expected = batches(step)
        assert len(set(expected.numpy())) > 1
        np.testing.assert_array_equal(compiled(tf.constant(step)), expected)


def test_positions_beyond_int32():
    """Step · batch size must not overflow."""
    num_examples, batch_size = 1001, 500
    step = 2**31 - 2
    in_order = far.Batches(np.arange(num_examples), batch_size, shuffle=False)
    expected = [(step * batch_size + i) % num_examples for i in range(batch_size)]
    np.testing.assert_array_equal(in_order.indices(tf.constant(step)), expected)

    shuffled = far.Batches(np.arange(num_examples), batch_size)
    start = -(-(2**40) // num_examples) * num_examples  # An epoch that begins here
    steps = range(start // batch_size, start // batch_size + 4)
    positions = np.concatenate(
        [step * batch_size + np.arange(batch_size) for step in steps]
    )
    indices = np.concatenate(
        [shuffled.indices(tf.constant(step, tf.int64)) for step in steps]
    )
    epoch = indices[(start <= positions) & (positions < start + num_examples)]
    np.testing.assert_array_equal(np.sort(epoch), np.arange(num_examples))


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_structures(kind):
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    tensors = {"x": x, "y": y} if kind is dict else kind([x, y])
    batches = far.Batches(tensors, 4, seed=1)
    batch = batches(1)
    assert isinstance(batch, kind)
    batch_x, batch_y = batch.values() if kind is dict else batch
    np.testing.assert_array_equal(batch_y, batches.indices(1))
    np.testing.assert_array_equal(batch_x, x[batch_y])
    assert (batch_x.dtype, batch_y.dtype) == (tf.float64, tf.int64)


def test_no_order_is_stored():
    batches = far.Batches(np.zeros((5000, 2), "uint8"), 50)
    batches(0), batches(99)
    kept = {name: value for name, value in vars(batches).items() if name != "tensors"}
    sizes = [np.size(value) for value in tf.nest.flatten(kept)]
    assert max(sizes) == 1, kept


@pytest.mark.parametrize("batch_size", [0, -1, 8, True, 2.0, None])
def test_wrong_batch_sizes(batch_size):
    message = rf"`batch_size` must .* from 1 to 7\. Received: batch_size={batch_size}"
    with pytest.raises(ValueError, match=message):
        far.Batches(np.arange(7), batch_size)


def test_numpy_batch_size():
    assert far.Batches(np.arange(7), np.int64(2))(0).shape == (2,)


@pytest.mark.parametrize(
    ("tensors", "shapes"),
    [
        ((np.zeros((3, 2)), np.zeros(4)), r"\[\(3, 2\), \(4,\)\]"),
        ({"a": np.zeros(3), "b": 1.0}, r"\[\(3,\), \(\)\]"),
        ((), r"\[\]"),
    ],
)
def test_mismatched_lengths(tensors, shapes):
    message = f"same first dimension. Received shapes: {shapes}"
    with pytest.raises(ValueError, match=message):
        far.Batches(tensors, 1)


# Sources. Each case: the data, and the batch that a step must give.

X = np.arange(14.0).reshape(7, 2)
Y = np.arange(7)


def slices_of(tensors):
    return tf.data.Dataset.from_tensor_slices(tensors)


def partial_batch(step):
    return X[3 * step : 3 * step + 3]


def count(limit):
    def generate():
        yield from range(limit)

    spec = tf.TensorSpec([], tf.int64)
    return tf.data.Dataset.from_generator(generate, output_signature=spec)


SOURCES = {
    "none": (None, lambda step: ()),
    "tensor": (X, lambda step: X),
    "structure": ({"x": X, "y": [Y]}, lambda step: {"x": X, "y": [Y]}),
    "batches": (
        far.Batches((X, Y), 3, shuffle=False),
        lambda step: (
            np.resize(X, (99, 2))[3 * step : 3 * step + 3],
            np.resize(Y, 99)[3 * step : 3 * step + 3],
        ),
    ),
    "dataset": (slices_of(X).batch(2), lambda step: X[2 * step : 2 * step + 2]),
    "dataset with a partial batch": (slices_of(X).batch(3), partial_batch),
    "repeated dataset with partial batches": (
        slices_of(X).batch(3).repeat(),
        lambda step: partial_batch(step % 3),
    ),
    "dataset of dicts": (
        slices_of({"x": X, "y": Y}).batch(3),
        lambda step: {"x": partial_batch(step), "y": Y[3 * step : 3 * step + 3]},
    ),
    "dataset of tuples": (
        slices_of((X, {"y": Y})),
        lambda step: (X[step], {"y": Y[step]}),
    ),
    "dataset of one-tuples": (slices_of((X,)), lambda step: (X[step],)),
    "dataset of scalars": (slices_of(Y), lambda step: Y[step]),
    "dataset from a generator": (count(5), lambda step: step),
    "callable": (
        lambda step: {"x": tf.gather(X, step), "step": step},
        lambda step: {"x": X[step], "step": step},
    ),
}
NUM_STEPS = 3
source_names = pytest.mark.parametrize("name", SOURCES)


def assert_same(batch, expected):
    tf.nest.assert_same_structure(batch, expected)
    for mine, theirs in zip(
        tf.nest.flatten(batch), tf.nest.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@source_names
def test_batches_of_a_source_in_any_order(name):
    data, expected = SOURCES[name]
    source = as_source(data, "inner_data")
    assert source.is_empty == (data is None)
    prepared = source.prepare(0, NUM_STEPS)
    for jit_compile in (False, True):
        compiled = tf.function(source.batch, jit_compile=jit_compile)
        for step in (0, 1, 2, 2, 1, 0):
            assert_same(compiled(prepared, tf.constant(step)), expected(step))


@pytest.mark.parametrize(
    "name",
    ["batches", "dataset of scalars", "dataset with a partial batch", "callable"],
)
def test_first_step(name):
    """A run that goes on: its first step is not 0."""
    data, expected = SOURCES[name]
    source = as_source(data, "inner_data")
    compiled = tf.function(source.batch)
    for first_step, num_steps in ((1, 2), (0, 1), (2, 1)):
        prepared = source.prepare(first_step, num_steps)
        for step in range(first_step, first_step + num_steps):
            assert_same(compiled(prepared, tf.constant(step)), expected(step))


def test_partial_batches_inside_a_compiled_loop():
    """As the loops of a hyper-iteration read them."""
    source = as_source(slices_of(X).batch(3), "inner_data")

    def total(prepared):
        return tf.while_loop(
            lambda step, _: step < 3,
            lambda step, sums: (
                step + 1,
                sums.write(step, tf.reduce_mean(source.batch(prepared, step), axis=0)),
            ),
            (tf.constant(0), tf.TensorArray(tf.float64, 3, element_shape=[2])),
        )[1].stack()

    expected = [partial_batch(step).mean(axis=0) for step in range(3)]
    for jit_compile in (False, True):
        result = tf.function(total, jit_compile=jit_compile)(source.prepare(0, 3))
        np.testing.assert_allclose(result, expected, rtol=1e-15)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(slices_of(X[:, 0]).batch(3), id="dataset"),
        pytest.param(
            lambda step: tf.constant(X[:, 0])[3 * step : 3 * step + 3], id="callable"
        ),
    ],
)
def test_runs_on_batches_of_differing_sizes(data):
    """The last of three batches has one example; the mean is over one."""
    w = keras.Variable(np.float64(0.0))
    scale = far.Hyperparameter(1.0, dtype="float64")
    problem = far.BilevelProblem(
        inner_objective=lambda x: scale * w * (tf.reduce_mean(x) + x[-1]),
        outer_objective=lambda: w,
        variables=[w],
        dynamics=far.GradientDescent(1.0),
        hyperparameters=[scale],
        inner_data=data,
    )
    result = far.ReverseHG().compute(problem, num_steps=3)
    # w moves by −(mean + last) in each step: (0, 2, 4), (6, 8, 10), (12,).
    np.testing.assert_allclose(result.hypergradients[0], -(2 + 4 + 8 + 10 + 12 + 12))


def test_a_dataset_goes_on_within_one_order():
    """Chunks that follow each other are cut from one shuffled order."""
    dataset = tf.data.Dataset.range(12).shuffle(12, seed=1)
    source = as_source(dataset, "inner_data")

    def chunk(first_step):
        prepared = source.prepare(first_step, 4)
        steps = range(first_step, first_step + 4)
        return [int(source.batch(prepared, tf.constant(s))) for s in steps]

    first = chunk(0)
    assert sorted(first + chunk(4) + chunk(8)) == list(range(12))
    assert chunk(0) != first  # From the start again, in a new order.


def test_a_cycled_dataset_starts_over():
    source = as_source(slices_of(Y[:3]), "outer_data", cycle=True)
    batches = [
        int(source.batch(source.prepare(step, 1), tf.constant(step)))
        for step in range(7)
    ]
    assert batches == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    ("data", "first_step", "num_steps", "last", "received"),
    [
        (slices_of(Y).batch(3), 0, 4, 3, "3 elements from step 0"),
        (slices_of(Y).batch(3), 2, 2, 3, "1 elements from step 2"),
        (count(2), 0, 5, 4, "2 elements from step 0"),
        (slices_of(Y).take(0), 0, 1, 0, "0 elements from step 0"),
        (lambda step: tf.gather(X, step), 0, 8, 7, "indices"),
        (lambda step: tf.gather(X, step), 6, 2, 7, "indices"),
        (
            lambda step: {"x": tf.constant(X)[3 * step :][:3]},
            0,
            4,
            3,
            r"an empty batch, of shape \(0, 2\)",
        ),
    ],
)
def test_data_that_ends_too_soon(data, first_step, num_steps, last, received):
    source = as_source(data, "inner_data")
    message = f"`inner_data` ends before step {last}. Received: .*{received}"
    with pytest.raises(ValueError, match=message):
        source.prepare(first_step, num_steps)


@pytest.mark.parametrize(
    "data",
    [slices_of(Y).batch(3), count(3), lambda step: tf.gather(X[:3], step)],
    ids=["dataset", "generator", "callable"],
)
def test_data_that_just_suffices(data):
    source = as_source(data, "inner_data")
    source.prepare(0, 3)
    source.prepare(2, 1)


def test_other_data_raises():
    with pytest.raises(ValueError, match=r"`outer_data` must be None.* object$"):
        as_source(object(), "outer_data")


def test_no_end_of_an_iterator_waits(monkeypatch):
    """The end of one that TensorFlow tunes waits for its thread, up to a minute.

    But that it spreads a plain `map` over the cores, and what the user says, stays.
    """
    plain = tf.data.Dataset.__iter__
    tuned = []

    def seen(dataset):
        tuned.append(dataset.options().autotune.enabled)
        return plain(dataset)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", seen)
    dataset = tf.data.Dataset.range(8).batch(2)
    parallel = dataset.map(lambda x: x + 0, num_parallel_calls=tf.data.AUTOTUNE)
    wanted = tf.data.Options()
    wanted.autotune.enabled = True
    rows = (
        (dataset, False),
        (parallel.prefetch(tf.data.AUTOTUNE), False),
        (dataset.map(lambda x: x + 0).repeat(), None),
        (dataset.with_options(wanted), True),
    )
    for data, expected in rows:
        tuned.clear()
        source = as_source(data, "inner_data")
        source.prepare(0, 3)
        source.prepare(0, 2)  # Which ends the first.
        source.sample()
        assert as_source(data, "outer_data").reader()(0).numpy().tolist() == [0, 1]
        assert tuned == [expected] * 4


def test_what_is_read_ahead_draws_no_order():
    """Readers of one dataset that shuffles anew draw in the order they are made."""

    def orders():
        tf.random.set_seed(0)
        dataset = tf.data.Dataset.range(8).shuffle(8, seed=3).batch(3).repeat()
        source = as_source(dataset, "inner_data")
        return [source.prepare(0, 3)[0].numpy().tolist() for _ in range(12)]

    assert all(orders() == orders() for _ in range(8))
