"""Episodes of one problem, and several problems, on one replica and on more."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, counted, in_tiers
from tests.replicated import mirrored

EPISODES = [3, 0, 4]
MODES = [
    far.ReverseHG(jit_compile=False),
    far.ReverseHG(jit_compile=True, checkpointing=2, truncation=3),
    far.ForwardHG(jit_compile=False),
]


def batches_of(setting):
    """Data by step and episode: five examples, of which ones the episode decides."""
    tensors = [tf.constant(array) for array in setting.train]

    def data(step, episode):
        places = (tf.range(5) * (episode + 2) + step) % setting.num_examples
        return tuple(tf.gather(tensor, places) for tensor in tensors)

    return data


def episodic(setting, **options):
    rate = setting.hyper(0.1, "rate")
    options = {"inner_data": batches_of(setting)} | options
    return setting.bilevel(far.Momentum(rate, 0.5), [rate], **options)


def singly(setting, problem, mode, num_steps=4):
    """The results of each episode, as a problem of its own."""
    data = batches_of(setting)
    alone = [
        far.BilevelProblem(
            setting.inner,
            setting.outer,
            setting.model,
            problem.pure.dynamics.dynamics,
            problem.hyperparameters,
            lambda step, number=number: data(step, tf.constant(number)),
            setting.validation,
        )
        for number in EPISODES
    ]
    return [mode.compute(one, num_steps) for one in alone]


def mean(results):
    gradients = zip(*(result.hypergradients for result in results), strict=True)
    return [np.mean(np.stack(rows), axis=0) for rows in gradients]


@pytest.mark.parametrize("mode", in_tiers(MODES, MODES[:1]), ids=str)
def test_the_mean_of_runs_by_themselves(mode):
    setting = Classification()
    problem = episodic(setting)
    expected = singly(setting, problem, mode)
    result = mode.compute(problem, 4, episodes=EPISODES)
    assert_close(result.hypergradients, mean(expected), 1e-10)
    outer = [one.outer_value for one in expected]
    assert_close(
        [result.outer_value, result.outer_values], [np.mean(outer), outer], 1e-10
    )
    assert_close(result.inner_values, [one.inner_values for one in expected], 1e-10)
    assert_close(result.state.variables, expected[-1].state.variables, 1e-10)
    assert_close(setting.model.get_weights(), result.state.variables, 0)


@pytest.mark.parametrize("count", in_tiers([0, 1, 2, 4], [2]))
def test_spread_over_replicas(count):
    """Also over more than there are episodes."""
    setting = Classification()
    mode = MODES[0]
    problem = episodic(setting)
    expected = mode.compute(problem, 4, episodes=EPISODES)
    optimizer = keras.optimizers.SGD(0.0)
    tuner = far.HyperOptimizer(problem, mode, optimizer, mirrored(count))
    result = tuner.run(4, episodes=np.array(EPISODES))
    assert_close(result.hypergradients, expected.hypergradients, 1e-10)
    assert_close(
        [result.outer_value, result.outer_values, result.inner_values],
        [expected.outer_value, expected.outer_values, expected.inner_values],
        1e-10,
    )
    assert_close(setting.model.get_weights(), expected.state.variables, 1e-10)


@pytest.mark.parametrize("jit_compile", in_tiers([False, True], [False]))
def test_new_episodes_in_each_hyper_iteration(jit_compile):
    """And outer data by hyper-iteration and episode, of which the values tell."""
    w, scale = keras.Variable(1.0, name="w"), far.Hyperparameter(1.0, name="scale")
    problem = far.BilevelProblem(
        lambda: scale * w**2,
        lambda place: 0.0 * w + place,
        [w],
        far.GradientDescent(0.1),
        [scale],
        outer_data=lambda step, episode: tf.cast(100 * step + episode, tf.float32),
    )
    tuner = far.HyperOptimizer(problem, far.ReverseHG(jit_compile=jit_compile))
    assert tuner.run(3, episodes=2).outer_values.numpy().tolist() == [0, 1]
    assert tuner.run(3, episodes=2).outer_values.numpy().tolist() == [102, 103]
    assert tuner.run(3, episodes=[7]).outer_values.numpy().tolist() == [207]
    assert tuner.run(3, episodes=1).outer_values.numpy().tolist() == [304]
    history = tuner.fit(2, 3, episodes=3, verbose=0)
    assert history.history["outer_value"] == [406, 509]


@pytest.mark.thorough
def test_data_by_python_functions():
    """TensorFlow cannot vectorize them; each episode gets its own all the same."""
    setting = Classification()
    x, y, index = setting.train

    def data(step, episode):
        def draw(step, episode):
            return x[(np.arange(5) * (episode + 2) + step) % 12]

        rows = tf.numpy_function(draw, [step, episode], tf.float64)
        rows = tf.ensure_shape(rows, (5, 5))
        places = (tf.range(5) * (episode + 2) + step) % 12
        return rows, tf.gather(y, places), tf.gather(index, places)

    mode = far.ReverseHG(jit_compile=False)
    problem, other = episodic(setting, inner_data=data), episodic(setting)
    expected = mode.compute(other, 4, episodes=EPISODES)
    result = mode.compute(problem, 4, episodes=EPISODES)
    assert_close(result.hypergradients, expected.hypergradients, 1e-12)


def test_one_trace_serves_all_episodes():
    setting = Classification()
    setting.inner, calls = counted(setting.inner)
    tuner = far.HyperOptimizer(
        episodic(setting), far.ReverseHG(jit_compile=True), strategy=mirrored(2)
    )
    tuner.run(3, episodes=4)
    before = len(calls)
    for _ in range(2):
        tuner.run(3, episodes=4)
    assert len(calls) == before < 12  # With the search before the run.


def test_bare_variables_are_trained_one_after_another():
    x = np.random.RandomState(0).randn(8, 3)
    w = tf.Variable(np.ones(3))
    rate = far.Hyperparameter(0.1, dtype="float64", name="rate")

    def loss(x):
        return tf.reduce_mean((tf.linalg.matvec(x, w) - 1.0) ** 2)

    def problem(inner_data):
        w.assign(np.ones(3))
        return far.BilevelProblem(
            loss, loss, [w], far.GradientDescent(rate), [rate], inner_data, x
        )

    def data(step, episode):
        return tf.gather(x, (tf.range(3) + episode + step) % 8)

    mode = far.ReverseHG(jit_compile=False)
    several = problem(data)
    result = mode.compute(several, 4, episodes=EPISODES)
    singles = [
        mode.compute(problem(lambda step, n=n: data(step, tf.constant(n))), 4)
        for n in EPISODES
    ]
    assert_close(result.hypergradients, mean(singles), 1e-12)
    tuner = far.HyperOptimizer(several, mode, strategy=mirrored(2))
    with pytest.raises(ValueError, match="make it a keras"):
        tuner.run(2, episodes=2)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["restart", "online"])
def test_problems_spread_over_replicas(mode):
    """Three problems on two replicas; RTHO keeps each one's state and tangents."""

    def tuned(strategy):
        settings = [Classification(seed=seed) for seed in range(3)]
        for other in settings[1:]:
            other.weights, other.penalty = settings[0].weights, settings[0].penalty
        rate = settings[0].hyper(0.1, "rate")
        problems = [one.bilevel(far.GradientDescent(rate), [rate]) for one in settings]
        hypergradient = far.ForwardHG(jit_compile=False)
        optimizer = keras.optimizers.Adam(0.01)
        tuner = far.HyperOptimizer(problems, hypergradient, optimizer, strategy)
        for _ in range(2):
            result = tuner.run(2, mode=mode)
        weights = [w for one in settings for w in one.model.get_weights()]
        state = [one.state.variables for one in result.results]
        return [*tuner.get_weights(), *weights, result.outer_values], state

    expected, states = tuned(None)
    found, others = tuned(mirrored(2))
    assert_close(found, expected, 1e-10)
    for one, other in zip(others, states, strict=True):
        assert_close(one, other, 1e-10)


def test_problems_of_one_model_leave_it_with_the_last():
    setting = Classification()
    problems = [setting.bilevel(far.GradientDescent(rate)) for rate in (0.1, 0.2, 0.3)]
    expected = far.ReverseHG().compute(problems[2], 3).state.variables
    tuner = far.HyperOptimizer(problems, strategy=mirrored(2))
    tuner.run(3)
    assert_close(setting.model.get_weights(), expected, 1e-10)


class TestErrors:
    def refused(self, problem, *words, **arguments):
        with pytest.raises(ValueError) as caught:
            far.ReverseHG().compute(problem, 2, **arguments)
        for word in words:
            assert word in str(caught.value)

    def test_data_and_episodes_go_together(self):
        setting = Classification()
        self.refused(episodic(setting), "(step, episode)", "which `episodes`")
        plain = setting.bilevel(far.GradientDescent(0.1))
        self.refused(plain, "(step, episode)", episodes=[0])

    @pytest.mark.parametrize("wrong", [[], [-1], [0.5], "three", 3, [2**31], [True]])
    def test_numbers(self, wrong):
        problem = episodic(Classification())
        self.refused(problem, "`episodes` must be", "Received", episodes=wrong)

    def test_they_begin_anew(self):
        problem = episodic(Classification())
        result = far.ReverseHG().compute(problem, 2, episodes=[0])
        assert result.end is None
        start = far.Position(result.state)
        self.refused(problem, "Episodes begin anew", episodes=[0], start=start)
        tuner = far.HyperOptimizer(problem)
        with pytest.raises(ValueError, match="mode='restart'"):
            tuner.run(2, mode="online", episodes=2)
        for wrong in ([], 2.5, np.array(3), {1: 2}, "12", True):
            with pytest.raises(ValueError, match="`episodes` must be"):
                tuner.run(2, episodes=wrong)
        assert not np.isnan(tuner.get_weights()[1]).any()

    def test_datasets_that_shuffle(self):
        setting = Classification()
        x, y = setting.validation
        outer = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(12, seed=1).batch(5)
        problem = episodic(setting, outer_data=outer)
        tuner = far.HyperOptimizer(problem, strategy=mirrored(2))
        with pytest.raises(ValueError, match="draw its orders at random times"):
            tuner.run(2, episodes=2)

    def test_whole_episodes_are_spread(self):
        problem = episodic(Classification())
        self.refused(problem, "by `HyperOptimizer", episodes=[0], strategy=mirrored(2))

    @pytest.mark.parametrize("count", in_tiers([0, 2], [0]))
    def test_the_episode_that_diverges_is_named(self, count):
        setting = Classification()
        data = batches_of(setting)

        def spoiled(step, episode):
            x, y, index = data(step, episode)
            wrong = tf.logical_and(tf.equal(step, 1), tf.equal(episode, 4))
            return tf.where(wrong, np.nan * x, x), y, index

        problem = episodic(setting, inner_data=spoiled)
        before = setting.model.get_weights()
        tuner = far.HyperOptimizer(problem, strategy=mirrored(count))
        with pytest.raises(far.NonFiniteError, match=r"In episode 4: .* step 1 "):
            tuner.run(3, episodes=[0, 3, 4, 1])
        assert float(setting.penalty) == 0.01
        assert_close(setting.model.get_weights(), before, 0)

    @pytest.mark.thorough
    def test_the_problem_that_diverges_is_named(self):
        setting, other = Classification(), Classification(seed=1)
        other.weights, other.penalty = setting.weights, setting.penalty
        problems = [
            setting.bilevel(far.GradientDescent(0.1)),
            other.bilevel(far.GradientDescent(1e300)),
        ]
        before = setting.model.get_weights()
        for count in (0, 2):
            tuner = far.HyperOptimizer(problems, strategy=mirrored(count))
            with pytest.raises(far.NonFiniteError, match="In problem 1: "):
                tuner.run(4)
            assert_close(setting.model.get_weights(), before, 0)


def test_arguments_in_the_wrong_order():
    data = Classification().train
    with pytest.raises(ValueError, match=r"inner_data.*\(step, episode\), in this ord"):
        episodic(Classification(), inner_data=lambda episode, step: data)


@pytest.mark.parametrize(
    ("failures", "error"),
    [([1.0, 0.0], far.NonFiniteError), ([0.0, 1.0], far.WorkerLostError)],
)
def test_the_failure_of_another_worker(failures, error, monkeypatch):
    """Divergence ends `fit` with what was good; another error does not."""

    def summed(strategy, structure):
        return *structure[:-1], structure[-1] + tf.constant(failures, tf.float64)

    monkeypatch.setattr("far_ho_tf.tuning.tasks.summed", summed)
    tuner = far.HyperOptimizer(
        episodic(Classification()), far.ReverseHG(jit_compile=False)
    )
    with pytest.raises(error, match="of another worker"):
        tuner.run(2, episodes=2)


def test_batches_whose_size_differs_between_episodes():
    setting = Classification()
    tensors = [tf.constant(array) for array in setting.train]

    def data(step, episode):
        return tuple(tensor[: episode + 3] for tensor in tensors)

    mode = far.ReverseHG(jit_compile=False)
    problem = episodic(setting, inner_data=data)
    result = mode.compute(problem, 3, episodes=[0, 4])
    single = [mode.compute(problem, 3, episodes=[number]) for number in (0, 4)]
    for index, gradient in enumerate(result.hypergradients):
        mean = sum(one.hypergradients[index] for one in single) / 2
        assert_close([gradient], [mean], 1e-12)
