"""`ReverseHG(keep_residuals=True)`: the same numbers, less of them computed twice."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.hypergradients import costs
from far_ho_tf.hypergradients.reverse import costs as reverse_costs
from far_ho_tf.hypergradients.reverse import residuals, run, split_step
from far_ho_tf.hypergradients.reverse.residuals import Keeping
from far_ho_tf.planning.prediction import predict
from tests import reference
from tests.dynamics_table import NUM_STEPS, ROWS
from tests.helpers import (
    Classification,
    assert_close,
    hyper,
    in_tiers,
    keep_small_products,
    normalized_problem,
    traces_seen,
)

FIRST, SECOND = 12 * 5 * 4, 12 * 4 * 3  # Multiplications of a product of each layer.


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch):
    keep_small_products(monkeypatch)


@pytest.fixture(autouse=True)
def splits(monkeypatch):
    """The `Split`s that were made."""
    made = []

    class Seen(split_step.Split):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(run, "Split", Seen)
    return made


def kept(problem, limit=10**9):
    return reverse_costs.of_reverse_step(problem.pure, Keeping(limit, 1)).kept


@pytest.mark.filterwarnings("ignore:.*moves weights by a sign")
@pytest.mark.parametrize(
    "name", in_tiers(ROWS, ["Momentum", "Adam", "Keras: Lamb", "Keras: averages"])
)
def test_equals_the_unrolled_reference(name):
    problem = Classification()
    dynamics, hypers, rule = ROWS[name](problem)
    value, expected, final = reference.unrolled(problem.naive(hypers), rule, NUM_STEPS)
    bilevel = problem.bilevel(dynamics, hypers)
    mode = far.ReverseHG(jit_compile=False, keep_residuals=True)
    result = mode.compute(bilevel, NUM_STEPS)
    assert_close(result.hypergradients, expected, 1e-9)
    assert_close([result.outer_value], [value], 1e-12)
    assert_close(problem.model.trainable_variables, final, 1e-12)
    assert kept(bilevel) > 0


UNDER_XLA = [
    *(("Momentum", {}), ("Adam", {"truncation": 3})),
    ("Adam", {"checkpointing": "sqrt"}),
]


@pytest.mark.parametrize(("name", "options"), in_tiers(UNDER_XLA, UNDER_XLA[:1]))
def test_under_xla_and_truncated(name, options, splits):
    problem = Classification()
    dynamics, hypers, _ = ROWS[name](problem)
    batches = far.Batches(problem.train, batch_size=5, seed=3)
    bilevel = problem.bilevel(dynamics, hypers, inner_data=batches)
    full, found = (
        far.ReverseHG(True, keep_residuals=keep, **options).compute(bilevel, 9)
        for keep in (False, True)
    )
    assert_close(found.hypergradients, full.hypergradients, 1e-11)
    assert_close([found.inner_values], [full.inner_values], 1e-13)
    assert splits and all(one.kept and one.is_safe for one in splits)


@pytest.mark.parametrize("checkpointing", in_tiers([None, "sqrt"], [None]))
def test_batchnorm_dropout_and_line_searches(checkpointing):
    for dynamics in (far.Adam(0.05), far.BacktrackingGradientDescent(4.0)):
        problem = normalized_problem(dynamics)
        full = far.ReverseHG(jit_compile=False, keep_residuals=False).compute(
            problem, 9
        )
        mode = far.ReverseHG(
            jit_compile=False, keep_residuals=True, checkpointing=checkpointing
        )
        found = mode.compute(problem, 9)
        assert_close(found.hypergradients, full.hypergradients, 1e-9)
        assert_close(found.state.extra, full.state.extra, 1e-12)


@pytest.mark.thorough
def test_episodes(splits):
    setting = Classification()
    rate = setting.hyper(0.1, "rate")
    tensors = [tf.constant(array) for array in setting.train]

    def data(step, episode):
        places = (tf.range(5) * (episode + 2) + step) % setting.num_examples
        return tuple(tf.gather(tensor, places) for tensor in tensors)

    problem = setting.bilevel(far.Momentum(rate, 0.9), [rate], inner_data=data)
    full, *others = (
        far.ReverseHG(False, **options).compute(problem, 7, episodes=[3, 0, 4])
        for options in ({"keep_residuals": False}, {}, {"checkpointing": "sqrt"})
    )
    for found in others:
        assert_close(found.hypergradients, full.hypergradients, 1e-11)
        assert_close([found.outer_values], [full.outer_values], 1e-12)
    assert others[1].status.kept_states == 3 + 3
    assert splits and all(one.kept and one.is_safe for one in splits)


def test_convolutions():
    random = np.random.RandomState(0)
    x, y = random.randn(6, 8, 8, 2).astype("float32"), random.randint(0, 3, 6)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(3, 3, padding="same", activation="tanh"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(4, 3, strides=2, activation="tanh"),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = far.Hyperparameter(0.1, name="rate")
    problem = far.BilevelProblem(
        lambda: loss(y, model(x)),
        lambda: loss(y, model(x[::-1])),
        model,
        far.Momentum(rate, 0.9),
        [rate],
    )
    full = far.ReverseHG(jit_compile=False, keep_residuals=False).compute(problem, 5)
    mode = far.ReverseHG(jit_compile=False, keep_residuals=True)
    found = mode.compute(problem, 5)
    assert_close(found.hypergradients, full.hypergradients, 1e-5)
    sizes = [6 * 8 * 8 * 3, 6 * 1 * 1 * 4, 6 * 3]  # What the layers give.
    sizes += [6 * 4, 6 * 4 * 4 * 3]  # What comes back to the last two,
    sizes += [6 * 3]  # and from the loss.
    assert kept(problem) == 4 * sum(sizes)


@pytest.mark.parametrize("compiler", in_tiers(["graph", "xla"], ["graph"]))
@pytest.mark.parametrize("keep", in_tiers([True, False], [True]))
def test_steps_are_calls_in_their_loops(compiler, keep, monkeypatch):
    """As oneDNN's kernels need it; see `as_one_call`."""
    seen = traces_seen(monkeypatch)
    problem = Classification()
    rate = problem.hyper(0.1, "rate")
    bilevel = problem.bilevel(far.Momentum(rate, 0.9), [rate])
    far.ReverseHG(compiler == "xla", keep_residuals=keep).compute(bilevel, 3)
    graph = seen[-1]._concrete.graph.as_graph_def()
    functions = {f.signature.name: f for f in graph.library.function}
    loops = [node for node in graph.node if node.op in ("While", "StatelessWhile")]
    assert len(loops) == 2  # Forwards and back.
    for loop in loops:
        calls = [
            functions[node.attr["f"].func.name]
            for node in functions[loop.attr["body"].func.name].node_def
            if node.op == "PartitionedCall"
        ]
        assert len(calls) == (compiler == "graph")
        assert all(call.attr["_noinline"].b for call in calls)


class Waiting(far.Dynamics):
    """Ends in an operation whose derivative waits for its cotangent."""

    def update(self, variable, gradient, slots, step, learning_rate):
        return variable + tf.sin(-learning_rate * gradient), ()


class Turning(far.Dynamics):
    """Multiplies by a matrix that it chooses."""

    choices = {"turn": tf.TensorSpec([3, 3], tf.float64)}

    def choose(self, loss, value, variables, gradients, numbers, constrain):
        return {"turn": tf.eye(3, dtype=tf.float64) * value}

    def update(self, variable, gradient, slots, step, learning_rate, turn):
        pulled = tf.reshape(gradient, [-1, 3]) @ turn @ turn
        return variable - learning_rate * tf.reshape(pulled, variable.shape) ** 2, ()


@pytest.mark.parametrize("kind", in_tiers([Waiting, Turning], [Turning]))
def test_what_a_derivative_waits_for_and_what_is_chosen(kind):
    w = keras.Variable(np.arange(9.0).reshape(3, 3), dtype="float64", name="w")
    rate, x = hyper(0.1, "rate"), tf.sin(tf.range(12, dtype=tf.float64))
    x = tf.reshape(x, (4, 3))

    def inner():
        with tf.control_dependencies([tf.convert_to_tensor(w)]):
            return tf.reduce_mean(tf.sin(x @ w) ** 2)

    problem = far.BilevelProblem(
        inner, lambda: tf.reduce_sum(w**2), [w], kind(learning_rate=rate), [rate]
    )
    full, found, forward = (
        mode.compute(problem, 4, write_back=False).hypergradients
        for mode in (
            far.ReverseHG(False, keep_residuals=False),
            far.ReverseHG(False, keep_residuals=True),
            far.ForwardHG(False),
        )
    )
    assert_close(found, full, 1e-12)
    assert_close(found, forward, 1e-9)
    assert kept(problem) > 0


def test_what_cannot_be_told_is_not_worth_keeping():
    @tf.function
    def call(image, kernel):
        result = tf.nn.conv2d(image, kernel, 1, "SAME")
        return result, tf.nn.conv2d_transpose(result, kernel, image.shape, 1)

    shapes = [0, 5, 5, 3], [None, None, 3, 4]
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    graph = call.get_concrete_function(*specs).graph
    found = {op.type: op.outputs[0] for op in graph.get_operations()}
    for kind in ("Conv2D", "Conv2DBackpropInput"):
        assert found[kind].shape.is_fully_defined()
        assert residuals._saved(found[kind]) == 0


class TestWhatIsKept:
    def problem(self):
        problem = Classification()
        rate = problem.hyper(0.1, "rate")
        return problem.bilevel(far.Momentum(rate, 0.9), [rate])

    def test_activations_in_the_place_of_products(self, splits):
        far.ReverseHG(jit_compile=False).compute(self.problem(), 3)
        kinds = sorted(tensor.op.type for tensor in splits[-1].kept)
        # The hidden units, the logits and what comes back to the hidden units.
        assert kinds == ["LogSoftmax", "MatMul", "Tanh"]

    def test_neither_activations_nor_gradients_are_made_again(self):
        """A step makes 2 products for the first layer, which passes nothing back, and
        3 for the second; its second derivative 2 and 6.
        """
        again = reverse_costs.of_reverse_step(self.problem().pure, None)
        assert again.kept == 0
        assert again.multiplications == 4 * FIRST + 9 * SECOND
        found = reverse_costs.of_reverse_step(self.problem().pure, Keeping(10**9, 1))
        assert found.multiplications == 2 * FIRST + 6 * SECOND
        # Both layers' results, and what comes back to the first.
        assert found.kept == 8 * 12 * (4 + 3 + 4)

    def test_what_saves_least_is_given_up_first(self):
        problem = self.problem()
        assert kept(problem, 8 * 12 * 10) == 8 * 12 * (4 + 3)  # 5, 4 and 3 behind each.
        assert kept(problem, 8 * 12 * 4) == 8 * 12 * 4
        assert kept(problem, 0) == 0

    def test_the_limit_is_the_state_or_what_a_run_may_take(self):
        problem = self.problem().pure
        policy = far.ReverseHG().policy
        keeping = Keeping(2**28 // 128, 1)
        assert policy.storage(problem, 100) == (100, 100, keeping)
        policy = dataclasses.replace(policy, residuals=1000)
        keeping = Keeping(costs.state_bytes(problem), 1)
        assert policy.storage(problem, 100) == (100, 100, keeping)
        segments = far.ReverseHG(checkpointing="sqrt").policy
        assert segments.storage(problem, 100) == (10 + 10, 10, keeping)
        assert segments.storage(problem, 5) == (5, 5, keeping)
        for options in ({}, {"checkpointing": "sqrt"}):
            without = far.ReverseHG(keep_residuals=False, **options).policy
            assert without.storage(problem, 100).keeping is None
        assert without.storage(problem, 100) == (10 + 10, 10, None)
        some = far.ReverseHG(checkpointing=7).policy
        assert some.storage(problem, 100) == (7, 0, None)

    def test_the_planner_knows(self):
        problem = self.problem()
        option = predict(problem.pure, 1000, far.ReverseHG())
        step, back = 2 * FIRST + 3 * SECOND, 2 * FIRST + 6 * SECOND
        assert option.cost == pytest.approx(1 + back / step)
        assert option.name == "ReverseHG()"
        # There is room for 1,024 steps.
        size = 1025 * costs.state_bytes(problem.pure) + 1024 * 8 * 12 * (4 + 3 + 4)
        found = reverse_costs.of_reverse_step(problem.pure, Keeping(2**28 // 1024, 1))
        assert option.memory == size + found.in_xla

    def test_the_planner_knows_segments(self):
        problem = self.problem()
        option = predict(problem.pure, 1000, far.ReverseHG(checkpointing="sqrt"))
        keeping = Keeping(costs.state_bytes(problem.pure), 1)
        back = reverse_costs.of_reverse_step(problem.pure, keeping)
        assert back.kept == 8 * 12 * 4
        step = 2 * FIRST + 3 * SECOND
        assert option.cost == pytest.approx(2 + back.multiplications / step)
        size = 65 * costs.state_bytes(problem.pure) + 32 * back.kept
        assert option.memory == size + back.in_xla


class TestWhereStepsAreLeftWhole:
    def compute(self, inner, keep):
        w, rate = keras.Variable(1.5, dtype="float64", name="w"), hyper(0.1, "rate")
        problem = far.BilevelProblem(
            *(lambda: inner(w), lambda: w * w, [w]),
            *(far.Momentum(rate, 0.9), [rate]),
        )
        mode = far.ReverseHG(jit_compile=False, keep_residuals=keep)
        return mode.compute(problem, 4).hypergradients

    def test_loops(self, splits):
        def inner(w):
            _, total = tf.while_loop(
                lambda i, _: i < 3,
                lambda i, total: (i + 1, total * w),
                (0, tf.convert_to_tensor(w)),
            )
            return 0.01 * total

        full, found = (self.compute(inner, keep) for keep in (False, True))
        assert_close(found, full, 1e-13)
        assert splits == []  # Its graph would be traced for nothing.

    def test_what_is_printed_is_printed(self, splits, capfd):
        def inner(w):
            tf.print("seen")
            return w * w

        printed, found = [], []
        for keep in (False, True):
            found.append(self.compute(inner, keep))
            printed.append(capfd.readouterr().err.count("seen"))
        assert_close(found[1], found[0], 1e-13)
        assert printed[0] == printed[1] > 0
        assert [one.is_safe for one in splits] == [False]

    def test_others_are_cut(self, splits):
        full, found = (self.compute(lambda w: w * w, keep) for keep in (False, True))
        assert_close(found, full, 1e-13)
        assert [one.is_safe for one in splits] == [True]

    def test_search_for_what_is_not_finite(self):
        w, rate = keras.Variable(1.0, name="w"), far.Hyperparameter(3.0, name="rate")
        problem = far.BilevelProblem(
            *(lambda: tf.exp(w * w), lambda: 1.0 * w, [w]),
            *(far.GradientDescent(rate), [rate]),
        )
        steps = []
        for mode in (far.ReverseHG(keep_residuals=False), far.ReverseHG()):
            with pytest.raises(far.NonFiniteError) as caught:
                mode.compute(problem, 9)
            steps.append(caught.value.step)
        assert steps[0] == steps[1] < 8


@pytest.mark.parametrize(
    "options",
    [
        {"keep_residuals": 1},
        {"keep_residuals": True, "checkpointing": 3},
        {"keep_residuals": True, "memory_budget": 10**6},
    ],
)
def test_refusals(options):
    with pytest.raises(ValueError, match="`keep_residuals`"):
        far.ReverseHG(**options)
