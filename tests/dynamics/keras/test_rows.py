"""Rows of a variable that are read twice in a batch, against plain runs of Keras.

A tape gives the gradient of an embedding by readings, as `tf.IndexedSlices`, and
Keras' optimizers square, clip and measure what each reading gives by itself.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.dynamics_table import KERAS
from tests.helpers import assert_close, hyper, in_tiers, relative_error

optimizers = keras.optimizers
pytestmark = pytest.mark.filterwarnings("ignore:.*moves weights by a sign")

NUM_STEPS = 4
RANDOM = np.random.RandomState(0)
START, DIRECTION, Y = RANDOM.randn(6, 3), RANDOM.randn(3), RANDOM.randn(4)
WEIGHTS = np.arange(1.0, 19.0).reshape(6, 3)
# Each batch reads one row three times, and two do not occur in the next.
IDS = np.array([[1, 1, 4, 1], [2, 2, 5, 2], [3, 3, 0, 3], [4, 4, 1, 4]], "int32")


def take(table, ids):
    return keras.ops.take(table, ids, axis=0)


def twice(table, ids):
    """Two readings, which a tape puts together."""
    return 0.5 * take(table, ids) + tf.gather(table, tf.reverse(ids, [0]))


def by_points(table, ids):
    return tf.gather_nd(table, ids[:, None])


def in_a_loop(table, ids):
    """One reading, and derivatives that go through a loop."""
    rows = take(table, ids)
    return tf.while_loop(
        lambda i, _: i < 2,
        lambda i, rows: (i + 1, rows + 0.5 * tf.sin(rows)),
        (0, rows),
        maximum_iterations=2,
    )[1]


def twice_in_a_loop(table, ids):
    return in_a_loop(table, ids) + take(table, ids)


def with_all(table, ids):
    """The gradient is dense, as of a penalty on all weights."""
    return take(table, ids) + tf.reduce_mean(table, axis=0)


def difference(function, width):
    """The derivative at 0, by a central difference of the fourth order."""
    values = [function(place * width) for place in (-2, -1, 1, 2)]
    return np.dot([1, -8, 8, -1], values) / (12 * width)


class Table:
    """A table of six rows, of which a batch reads some, and a scale of these."""

    def __init__(self, make_optimizer, read=take, kind=keras.Variable, scale=1.0):
        self.make_optimizer, self.read = make_optimizer, read
        self.scale = hyper(scale, "scale")
        self.table = kind(START, dtype="float64", name="table")

    def inner(self, ids):
        products = tf.linalg.matvec(self.read(self.table, ids), DIRECTION)
        products *= tf.convert_to_tensor(self.scale)
        return tf.reduce_mean((tf.tanh(products) - Y[: ids.shape[0]]) ** 2)

    def outer(self):
        return tf.reduce_sum(tf.convert_to_tensor(self.table) ** 2 * WEIGHTS)

    def problem(self, dynamics=None, hypers=(), **options):
        return far.BilevelProblem(
            self.inner,
            self.outer,
            [self.table],
            dynamics or self.make_optimizer(),
            [self.scale, *hypers],
            **{"inner_data": lambda t: tf.constant(IDS)[t % 4]} | options,
        )

    def by_keras(self, optimizer=None, scale=None, num_steps=NUM_STEPS):
        """The outer value and the table after Keras' own steps; then it is put back."""
        optimizer = optimizer or self.make_optimizer()
        self.table.assign(START)
        optimizer.build([self.table])
        before = self.scale.numpy()
        self.scale.assign(before if scale is None else scale)
        for step in range(num_steps):
            with tf.GradientTape() as tape:
                value = self.inner(tf.constant(IDS[step % 4]))
            is_keras = isinstance(self.table, keras.Variable)
            source = self.table.value if is_keras else self.table
            optimizer.apply([tape.gradient(value, source)], [self.table])
        reached = float(self.outer()), self.table.numpy()
        self.table.assign(START)
        self.scale.assign(before)
        return reached

    def slope(self, width=1e-4):
        """Of Keras' own steps in the scale."""
        return difference(lambda offset: self.by_keras(scale=1.0 + offset)[0], width)

    def check(self, mode, tolerance=1e-6):
        """A mode against Keras: weights, outer value, hypergradient."""
        (value, table), slope = self.by_keras(), self.slope()
        result = mode.compute(self.problem(), NUM_STEPS)
        assert_close([self.table.numpy()], [table], 1e-12)
        assert_close([result.outer_value], [value], 1e-12)
        assert_close([result.hypergradients[0]], [slope], tolerance)
        return result


@pytest.mark.parametrize(
    ("dynamics", "expected"),
    [
        (optimizers.Adam(0.1), 0.858580),
        (optimizers.SGD(0.1, clipvalue=1.0), 0.8),
        (optimizers.SGD(0.1, clipnorm=1.0), 1.0 - 0.2 / np.sqrt(2)),
        (optimizers.SGD(0.1, global_clipnorm=1.0), 1.0 - 0.2 / np.sqrt(2)),
        (optimizers.SGD(0.1), 0.8 - 0.2),
        # The library's own see the sum.
        (far.Adam(0.1), 0.900000),
    ],
    ids=["Adam", "clipvalue", "clipnorm", "global_clipnorm", "SGD", "far.Adam"],
)
def test_one_row_twice(dynamics, expected):
    """One step from 1; each of both readings has the gradient 2."""
    table = keras.Variable([[1.0]], dtype="float64")
    scale = hyper(1.0, "scale")
    problem = far.BilevelProblem(
        lambda: scale * tf.reduce_sum(take(table, tf.constant([0, 0])) ** 2),
        lambda: tf.reduce_sum(tf.convert_to_tensor(table)),
        [table],
        dynamics,
        [scale],
    )
    far.ReverseHG(jit_compile=False).compute(problem, 1)
    assert float(table[0, 0]) == pytest.approx(expected, abs=2e-6)


KINDS = {
    "": {},
    "clipnorm": {"clipnorm": 0.2},
    "global_clipnorm": {"global_clipnorm": 0.2},
    "clipvalue": {"clipvalue": 0.1},
    "weight_decay": {"weight_decay": 0.1},
    "averages": {"use_ema": True, "ema_overwrite_frequency": 2},
}
FIRST = {
    *(("Adam", ""), ("RMSprop", ""), ("Adagrad", ""), ("Adafactor", "")),
    *(("SGD", "clipvalue"), ("Adam", "global_clipnorm"), ("momentum", "clipnorm")),
}


@pytest.mark.parametrize(
    ("name", "kind"), in_tiers(itertools.product(KERAS, KINDS), sorted(FIRST))
)
def test_steps_are_those_of_keras(name, kind):
    optimizer, numbers, options, _ = KERAS[name]
    table = Table(lambda: optimizer(**numbers | options | KINDS[kind]))
    if name == "Lion":  # Whose derivative is zero, but for what is rounded.
        far.ReverseHG(jit_compile=False).compute(table.problem(), NUM_STEPS)
        assert_close([table.table.numpy()], [table.by_keras()[1]], 1e-12)
        return
    for mode in (far.ReverseHG, far.ForwardHG):
        table.check(mode(jit_compile=False))


def test_they_are_told_from_sums():
    """The tests above would pass where Keras went by the sums."""
    table = Table(lambda: optimizers.Adam(0.1))
    _, by_readings = table.by_keras()
    table.read = with_all
    table.check(far.ReverseHG(jit_compile=False))
    table.read = take
    far.ReverseHG(jit_compile=False).compute(
        table.problem(far.Adam(0.1, epsilon=1e-7)), NUM_STEPS
    )
    assert np.abs(table.table.numpy() - by_readings).max() > 0.01


MODES = {
    "XLA": far.ReverseHG(jit_compile=True),
    "forward, XLA": far.ForwardHG(jit_compile=True),
    "no products": far.ReverseHG(jit_compile=False, keep_residuals=False),
    "sqrt": far.ReverseHG(jit_compile=False, checkpointing="sqrt"),
    "two states": far.ReverseHG(jit_compile=False, checkpointing=2),
}


@pytest.mark.parametrize("mode", in_tiers(MODES, ["XLA", "sqrt"]))
def test_in_each_mode(mode):
    Table(lambda: optimizers.Adam(0.1, clipvalue=0.1)).check(MODES[mode])


READINGS = [take, twice, by_points, in_a_loop, twice_in_a_loop, with_all]


@pytest.mark.parametrize(
    ("read", "mode"),
    in_tiers(
        itertools.product(READINGS, (far.ReverseHG, far.ForwardHG)),
        [
            *((twice, far.ReverseHG), (by_points, far.ForwardHG)),
            *((in_a_loop, far.ForwardHG), (twice_in_a_loop, far.ForwardHG)),
        ],
    ),
)
def test_ways_to_read(read, mode):
    Table(lambda: optimizers.RMSprop(0.05), read=read).check(mode(jit_compile=False))


@pytest.mark.thorough
def test_xla_compiles_tangents_of_one_reading_through_a_loop():
    table = Table(lambda: optimizers.Adam(0.1), read=in_a_loop)
    status = table.check(far.ForwardHG(jit_compile=True)).status
    assert status.compiler == "xla"


SENTENCES = np.array(
    [
        [[1, 1, 4], [1, 2, 2], [5, 5, 0], [0, 0, 0], [3, 1, 0]],
        [[2, 2, 2], [3, 0, 0], [4, 4, 4], [2, 5, 5], [1, 1, 0]],
    ],
    "int32",
)


def sentences(read, make_optimizer, count=5):
    """Batches of up to five examples that read three rows each."""
    table = Table(make_optimizer)

    def inner(batch):
        ids, y = batch
        products = tf.linalg.matvec(read(table.table, ids), DIRECTION)
        predicted = tf.reduce_sum(tf.tanh(products * table.scale), axis=1)
        return tf.reduce_mean((predicted - y) ** 2)

    table.inner = inner
    y = tf.constant([0.5, -1.0, 0.3, 0.2, 1.0], tf.float64)[:count]
    ids = tf.constant(SENTENCES[:, :count])
    return table.problem(inner_data=lambda t: (ids[t % 2], y))


MANY = [
    (far.ReverseHG(jit_compile=False), 2, 5),
    (far.ForwardHG(jit_compile=False), 4, 3),
    (far.ReverseHG(jit_compile=True), 4, 5),
    (far.ReverseHG(jit_compile=False, checkpointing="sqrt"), 4, 2),
    (far.ForwardHG(jit_compile=False, spread_tangents=True), 2, 5),
]


@pytest.mark.parametrize(("mode", "count", "examples"), in_tiers(MANY, MANY[:2]))
def test_several_replicas(mode, count, examples):
    """As on one device, also where shares differ in size or have no examples."""

    def outcome(strategy):
        def optimizer():
            return optimizers.Adam(0.1, epsilon=1e-3, clipvalue=0.1)

        problem = sentences(take, optimizer, examples)
        result = mode.compute(problem, NUM_STEPS, strategy=strategy)
        return [result.outer_value, *result.hypergradients, *result.state.variables]

    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])
    assert_close(outcome(strategy), outcome(None), 1e-10)


def test_several_replicas_that_read_other_rows():
    """Rows that all examples share are read by each replica."""

    def read(variable, ids):
        return take(variable, ids) + take(variable, tf.constant([0, 1, 1]))

    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    problem = sentences(read, lambda: optimizers.Adam(0.1))
    with pytest.raises(ValueError, match="each example reads so many rows"):
        far.ReverseHG(jit_compile=False).compute(problem, 2, strategy=strategy)
    one, two = (
        far.ReverseHG(jit_compile=False).compute(
            sentences(read, lambda: optimizers.SGD(0.1, 0.9)), 2, strategy=strategy
        )
        for strategy in (None, strategy)
    )
    assert_close(two.hypergradients, one.hypergradients, 1e-10)


def test_episodes_together():
    """Vectorized, each reads rows of its own."""
    table = Table(lambda: optimizers.Adam(0.1))
    data = tf.constant(IDS)
    problem = table.problem(inner_data=lambda t, episode: data[(t + episode) % 4])
    result = far.ReverseHG(jit_compile=False).compute(
        problem, NUM_STEPS, episodes=[0, 3]
    )
    assert not result.status.one_by_one
    for episode, value in zip([0, 3], result.outer_values, strict=True):
        alone = Table(lambda: optimizers.Adam(0.1))
        order = np.roll(IDS, -episode, axis=0)
        single = alone.problem(inner_data=lambda t, order=order: tf.constant(order)[t])
        expected = far.ReverseHG(jit_compile=False).compute(single, NUM_STEPS)
        assert_close([value], [expected.outer_value], 1e-12)


@pytest.mark.parametrize("mode", [far.ReverseHG, far.ForwardHG])
def test_bare_variables(mode):
    Table(lambda: optimizers.Adam(0.1), kind=tf.Variable).check(mode())


def test_numbers_of_the_optimizer():
    """Differences of Keras' own steps in each of them, which it rounds to float32."""
    names = {
        **{"learning_rate": 2.0**-3, "beta_2": 1 - 2.0**-3},
        **{"epsilon": 2.0**-10, "clipvalue": 2.0**-3},
    }
    table = Table(lambda: optimizers.Adam(**names))
    hypers = [hyper(value, name) for name, value in names.items()]
    numbers = dict(zip(names, hypers, strict=True))
    problem = table.problem(far.KerasDynamics(optimizers.Adam(), numbers), hypers)
    value, _ = table.by_keras()
    slopes = []
    for name, number in names.items():
        width = 2.0**-7 * (1 - number if name == "beta_2" else number)

        def moved(offset, name=name, number=number):
            optimizer = optimizers.Adam(**names | {name: number + offset})
            return table.by_keras(optimizer)[0]

        slopes.append(difference(moved, width))
    for mode in (far.ReverseHG, far.ForwardHG):
        result = mode(jit_compile=False).compute(problem, NUM_STEPS)
        assert_close([result.outer_value], [value], 1e-12)
        np.testing.assert_allclose(result.hypergradients[1:], slopes, rtol=1e-5)
    assert abs(float(result.hypergradients[-1])) > 0.1


def test_a_rate_for_each_weight():
    """Of which those of the rows that are read count."""
    rates = hyper(np.linspace(0.05, 0.2, 18).reshape(6, 3), "rates")
    table = Table(None)
    dynamics = far.KerasDynamics(
        optimizers.SGD(clipvalue=0.1), {"learning_rate": rates}
    )
    result = far.ReverseHG(jit_compile=False).compute(
        table.problem(dynamics, [rates]), 1
    )
    with tf.GradientTape() as tape:
        table.table.assign(START)
        value = table.inner(tf.constant(IDS[0]))
    gradient = tape.gradient(value, table.table.value)
    step = np.zeros((6, 3))
    np.add.at(step, IDS[0], np.clip(gradient.values.numpy(), -0.1, 0.1))
    reached = START - rates.numpy() * step
    assert_close([result.hypergradients[1]], [-2 * WEIGHTS * reached * step], 1e-12)


class Overwriting(optimizers.Optimizer):
    """Writes the gradient of a reading over a slot and over the row."""

    def build(self, variables):
        super().build(variables)
        self.kept = self.add_optimizer_variables(variables, "kept")

    def update_step(self, gradient, variable, learning_rate):
        kept = self.kept[self._get_variable_index(variable)]
        self.assign(kept, keras.ops.multiply(gradient, 2.0))
        self.assign(variable, keras.ops.multiply(gradient, learning_rate))


def test_an_optimizer_that_assigns_rows():
    table = Table(lambda: Overwriting(0.5))
    table.check(far.ReverseHG(jit_compile=False))


def test_division_by_zero():
    """Rows that no batch reads are 0/0 without an epsilon: NaN in Keras, an error."""

    def optimizer():
        return optimizers.Adagrad(0.1, initial_accumulator_value=0.0, epsilon=0.0)

    once = tf.constant([[1, 4]])
    table = Table(optimizer)
    table.read = lambda variable, ids: tf.repeat(take(variable, once[0]), 2, axis=0)
    assert np.isnan(table.by_keras(num_steps=1)[1]).any()
    with pytest.raises(far.NonFiniteError):
        far.ReverseHG(jit_compile=False).compute(table.problem(), 1)


class Texts:
    """Sentences of token numbers, padded by zeros, and what they are classified by."""

    def __init__(self, kind):
        random = np.random.RandomState(0)
        self.kind = kind
        self.x = random.randint(1, 20, (48, 8)).astype("int32")
        self.x *= np.arange(8) < random.randint(2, 7, (48, 1))
        self.y = random.randint(0, 2, (48, 1)).astype("float32")

    def network(self):
        """From the same weights each time."""
        keras.utils.set_random_seed(0)
        layers = {
            "pooling": keras.layers.GlobalAveragePooling1D,
            "LSTM": lambda: keras.layers.LSTM(4),
            "no mask": keras.layers.Flatten,
        }
        return keras.Sequential(
            [
                keras.Input((8,), dtype="int32"),
                keras.layers.Embedding(20, 4, mask_zero=self.kind != "no mask"),
                layers[self.kind](),
                keras.layers.Dense(1, "sigmoid"),
            ]
        )

    def fitted(self, model, **compiled):
        model.compile(loss="binary_crossentropy", **compiled)
        model.fit(self.x, self.y, batch_size=8, epochs=2, shuffle=False, verbose=0)


TRAINED = {
    "Adam": lambda **clipping: optimizers.Adam(0.02, **clipping),
    "RMSprop": lambda **clipping: optimizers.RMSprop(0.02, **clipping),
    "AdamW": lambda **clipping: optimizers.AdamW(0.02, weight_decay=0.05, **clipping),
    "SGD": lambda **clipping: optimizers.SGD(0.5, **clipping),
}
CLIPPING = [{}, {"clipnorm": 0.02}, {"global_clipnorm": 0.02}, {"clipvalue": 0.003}]
FITS = list(itertools.product(["pooling", "LSTM", "no mask"], TRAINED, range(4)))


@pytest.mark.parametrize(
    ("kind", "name", "clipping"),
    in_tiers(
        FITS,
        [
            *(("pooling", "Adam", 0), ("no mask", "RMSprop", 0)),
            *(("no mask", "AdamW", 2), ("pooling", "SGD", 1), ("LSTM", "SGD", 3)),
        ],
    ),
)
def test_weights_of_a_text_model_are_those_of_fit(kind, name, clipping):
    """Which compiles the steps itself; in float32."""
    texts, made = Texts(kind), lambda: TRAINED[name](**CLIPPING[clipping])
    expected, trained = texts.network(), texts.network()
    start = trained.get_weights()
    texts.fitted(expected, optimizer=made())
    texts.fitted(
        far.RealTimeModel(trained, hyperparameters=[], dynamics=made()),
        jit_compile=False,
    )
    trained, expected, start = (
        np.concatenate([np.ravel(weight) for weight in weights])
        for weights in (trained.get_weights(), expected.get_weights(), start)
    )
    assert relative_error(trained, expected) <= 1e-5
    assert relative_error(start, expected) > 1e-3
