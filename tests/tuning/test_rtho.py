"""RTHO and the online methods, against equations written out by hand."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.helpers import Classification, assert_close, hyper, in_tiers

# What XLA compiles is compared in whole/test_modes.py; here it would only take longer.
GRAPH = far.ForwardHG(jit_compile=False)
CHUNKS = pytest.mark.parametrize(
    "chunk_size", in_tiers([None, 5], [None]), ids=["whole", "chunks"]
)


def values(variables):
    return [tf.convert_to_tensor(variable).numpy() for variable in variables]


class MomentumByHand:
    """Real-time momentum on `Classification`, one eager step after another.

    The blocks are those of Franceschi et al. 2017 for momentum: with H the
    Hessian, q the derivative of the gradient in what the objective reads,
    A = [[I − ηH, −ημI], [H, μI]] and B = [(−m', 0), (−ηm, m), (−ηq, q)].
    """

    def __init__(self, problem, rate, mass):
        self._problem = problem
        self._weights = problem.model.trainable_variables
        self.hypers = values((rate, mass, *self._read()))
        self._size = sum(w.shape.num_elements() for w in self._weights)
        self._w = np.concatenate([np.ravel(w) for w in self._weights])
        self._m = np.zeros(self._size)
        self.forget()

    def forget(self):
        count = 2 + self._problem.num_examples + 1
        self._zw = np.zeros((self._size, count))
        self._zm = np.zeros((self._size, count))

    def step(self, batch):
        rate, mass = self.hypers[:2]
        gradient, hessian, mixed = self._derivatives(batch)
        new_m = mass * self._m + gradient
        zg = hessian @ self._zw
        zg[:, 2:] += mixed
        zm = mass * self._zm + zg
        zm[:, 1] += self._m
        zw = self._zw - rate * zm
        zw[:, 0] -= new_m
        self._w, self._m = self._w - rate * new_m, new_m
        self._zw, self._zm = zw, zm

    def hypergradient(self, batch):
        leaves = self._tensors()
        with tf.GradientTape() as tape:
            tape.watch(leaves)
            value = self._call(self._problem.outer, leaves, batch)
        gradients = tape.gradient(value, leaves, unconnected_gradients="zero")
        flat = np.concatenate([np.ravel(g) for g in gradients])
        total = flat[: self._size] @ self._zw
        total[2:] += flat[self._size :]
        return float(value), [total[0], total[1], total[2:-1], total[-1]]

    def _derivatives(self, batch):
        flat, jacobians = self._compiled(self._tensors(), batch)
        columns = [np.reshape(jacobian, (self._size, -1)) for jacobian in jacobians]
        count = len(self._weights)
        return (
            flat.numpy(),
            np.concatenate(columns[:count], axis=1),
            np.concatenate(columns[count:], axis=1),
        )

    @tf.function(autograph=False)
    def _compiled(self, leaves, batch):
        """The gradient and its whole Jacobian, for dozens of weights."""
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(leaves)
            with tf.GradientTape() as inner:
                inner.watch(leaves)
                value = self._call(self._problem.inner, leaves, batch)
            gradients = inner.gradient(value, leaves[: len(self._weights)])
            flat = tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)
        return flat, [outer.jacobian(flat, leaf) for leaf in leaves]

    def _tensors(self):
        parts = np.split(
            self._w, np.cumsum([w.shape.num_elements() for w in self._weights])[:-1]
        )
        shaped = [p.reshape(w.shape) for p, w in zip(parts, self._weights, strict=True)]
        return [tf.constant(value) for value in [*shaped, *self.hypers[2:]]]

    def _call(self, objective, leaves, batch):
        variables = [*self._weights, *self._read()]
        with keras.StatelessScope(list(zip(variables, leaves, strict=True))):
            return objective(batch)

    def _read(self):
        return [self._problem.weights, self._problem.penalty]


def classification():
    """The problem, its batches, and the bilevel problem with rate and mass."""
    problem = Classification()
    rate = problem.hyper(0.125, "rate", constraint=far.constraints.Interval(0.0, 0.13))
    mass = problem.hyper(0.5, "mass", constraint=far.constraints.Interval(0.0, 0.9))
    batches = far.Batches(problem.train, batch_size=5, seed=3)
    judged = far.Batches(problem.validation, batch_size=7, seed=4)
    bilevel = problem.bilevel(
        far.Momentum(rate, mass), [rate, mass], inner_data=batches, outer_data=judged
    )
    return problem, bilevel, batches, judged


@CHUNKS
def test_two_hundred_steps_of_rtho(chunk_size):
    """Update by update, constraints and clipping by norm included."""
    problem, bilevel, batches, judged = classification()
    naive = MomentumByHand(problem, *bilevel.hyperparameters[:2])
    tuner = far.HyperOptimizer(
        bilevel,
        far.ForwardHG(False, chunk_size),
        keras.optimizers.SGD(0.0625, global_clipnorm=1.0),
    )
    clipped = bounded = 0
    for update in range(10):
        result = tuner.run(20, mode="online")
        for step in range(20 * update, 20 * update + 20):
            naive.step(batches(step))
        value, gradients = naive.hypergradient(judged(update))
        assert_close([result.outer_value], [value], 1e-9)
        assert_close(result.hypergradients, gradients, 1e-9)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
        clipped += norm > 1
        scale = 0.0625 / max(norm, 1.0)
        rate, mass, *rest = (
            h - scale * g for h, g in zip(naive.hypers, gradients, strict=True)
        )
        bounded += rate > 0.13
        naive.hypers = [np.clip(rate, 0, 0.13), np.clip(mass, 0, 0.9), *rest]
        # Keras scales by a norm to float32's digits only when it clips.
        assert_close(bilevel.hyperparameters, naive.hypers, 1e-9)
    assert clipped
    assert bounded


def test_fit_online_is_run_online():
    """The same path from one call, with the values in its history."""
    paths = []
    for whole in (True, False):
        keras.utils.set_random_seed(0)
        _, bilevel, _, _ = classification()
        tuner = far.HyperOptimizer(bilevel, GRAPH, keras.optimizers.SGD(0.01))
        if whole:
            history = tuner.fit(4, num_steps=6, mode="online", verbose=0).history
            assert history["rate"][0] == 0.125
            assert len(history["rate"]) == 4
        else:
            for _ in range(4):
                tuner.run(6, mode="online")
        paths.append(tuner.get_weights())
    assert_close(*paths, 0)


@CHUNKS
def test_warm_restart_forgets_the_past(chunk_size):
    problem, bilevel, batches, judged = classification()
    naive = MomentumByHand(problem, *bilevel.hyperparameters[:2])
    tuner = far.HyperOptimizer(
        bilevel, far.ForwardHG(False, chunk_size), keras.optimizers.SGD(0.0)
    )
    modes = ["online", "warm_restart", "online"]
    for update, mode in enumerate(modes):
        result = tuner.run(4, mode=mode)
        if mode == "warm_restart":
            naive.forget()
        for step in range(4 * update, 4 * update + 4):
            naive.step(batches(step))
        _, gradients = naive.hypergradient(judged(update))
        assert_close(result.hypergradients, gradients, 1e-9)


@pytest.mark.thorough
def test_reverse_online_counts_the_last_steps():
    """It is forward mode with tangents of zero, and not RTHO."""
    results = {}
    for name, mode, how in (
        ("reverse", far.ReverseHG(jit_compile=False), "online"),
        ("warm", GRAPH, "warm_restart"),
        ("rtho", GRAPH, "online"),
    ):
        keras.utils.set_random_seed(0)
        _, bilevel, _, _ = classification()
        tuner = far.HyperOptimizer(bilevel, mode, keras.optimizers.SGD(0.0))
        for _ in range(3):
            results[name] = tuner.run(4, mode=how).hypergradients
    assert_close(results["reverse"], results["warm"], 1e-9)
    assert abs(results["rtho"][0] - results["warm"][0]) > 1e-3


def test_online_goes_on_after_a_restart():
    """With the tangents of the run before it; chunks do not keep them."""
    _, bilevel, _, _ = classification()
    whole = GRAPH.compute(bilevel, 8, start=far.Position(outer_step=1))
    tuner = far.HyperOptimizer(bilevel, GRAPH, keras.optimizers.SGD(0.0))
    tuner.run(4)
    result = tuner.run(4, mode="online")
    assert_close(result.hypergradients, whole.hypergradients, 1e-9)
    tuner = far.HyperOptimizer(bilevel, far.ForwardHG(False, 4))
    tuner.run(4)
    with pytest.raises(ValueError, match="did not keep its tangents"):
        tuner.run(4, mode="online")


@functools.cache
def in_one_piece():
    """A problem, and the results of five steps and of ten."""
    _, bilevel, _, _ = classification()
    return bilevel, GRAPH.compute(bilevel, 5), GRAPH.compute(bilevel, 10)


@pytest.mark.parametrize(
    ("chunk_size", "jit_compile"),
    in_tiers([(1, False), (4, True), (5, False), (40, False)], [(5, False)]),
)
def test_chunks_make_no_difference(chunk_size, jit_compile):
    bilevel, whole, twice = in_one_piece()
    mode = far.ForwardHG(jit_compile, chunk_size)
    result = mode.compute(bilevel, 5, keep_tangents=True)
    assert_close(result.hypergradients, whole.hypergradients, 1e-9)
    assert_close([result.outer_value], [whole.outer_value], 1e-12)
    assert_close([result.inner_values], [whole.inner_values], 1e-12)
    assert_close(result.state.variables, whole.state.variables, 1e-12)
    assert_close(
        tf.nest.flatten(result.tangents), tf.nest.flatten(whole.tangents), 1e-9
    )
    rest = mode.compute(bilevel, 5, start=result.end)
    assert_close(rest.hypergradients, twice.hypergradients, 1e-9)


def test_a_start_as_it_was_given_before():
    bilevel, half, twice = in_one_piece()
    with pytest.warns(FutureWarning, match=r"start=result\.end") as told:
        rest = GRAPH.compute(
            bilevel, 5, half.state, first_step=5, tangents=half.tangents
        )
        placed = GRAPH.compute(bilevel, 5, half.state, 5, 0, half.tangents)
    assert told[0].filename == __file__
    assert_close(rest.hypergradients, twice.hypergradients, 1e-9)
    assert_close(placed.hypergradients, rest.hypergradients, 1e-15)
    with pytest.raises(ValueError, match="got arguments twice"):
        GRAPH.compute(bilevel, 5, half.state, 5, first_step=5)
    again = GRAPH.compute(bilevel, 5, start=half.end)
    assert_close(again.hypergradients, rest.hypergradients, 1e-15)
    assert (half.end.first_step, half.end.outer_step) == (5, 0)
    assert (again.end.first_step, again.end.outer_step) == (10, 0)
    with pytest.raises(ValueError, match="Give `start` alone"):
        GRAPH.compute(bilevel, 5, start=half.end, first_step=5)
    with pytest.raises(ValueError, match=r"`start` must be None or a far\.Position"):
        GRAPH.compute(bilevel, 5, start=half)


class Quadratic:
    """w ← (1 − η) w, which diverges for η > 2; the hypergradient is `pull`."""

    def __init__(self, rate, pull):
        self.w = keras.Variable(1.0, dtype="float64", name="w")
        self.rate = hyper(rate, "rate")
        self.problem = far.BilevelProblem(
            lambda: 0.5 * self.w * self.w,
            lambda: tf.stop_gradient(self.w * self.w) + pull * self.rate,
            [self.w],
            far.GradientDescent(self.rate),
            [self.rate],
        )


def test_divergence_ends_fit_with_the_last_good_state():
    """Each update adds 1 to η, until w² overflows."""
    case = Quadratic(1.5, pull=-1.0)
    tuner = far.HyperOptimizer(case.problem, GRAPH, keras.optimizers.SGD(1.0))
    with pytest.warns(UserWarning, match="those of hyper-iteration"):
        history = tuner.fit(50, num_steps=100, mode="online", verbose=0)
    rates = history.history["rate"]
    assert_close([rates], [1.5 + np.arange(len(rates))], 1e-12)
    assert isinstance(tuner.divergence, far.NonFiniteError)
    assert float(case.rate) == rates[-1]
    reached = np.prod([(1 - rate) ** 100 for rate in rates])
    assert_close([case.w], [reached], 1e-9)
    assert np.isfinite(reached**2)
    with np.errstate(over="ignore"):  # The next update would not have been.
        assert np.isinf((reached * rates[-1] ** 100) ** 2)
    # It goes on from there, with slots, tangents and counters of that iteration.
    case.rate.assign(1.5)
    tuner.run(100, mode="online")
    assert_close([case.w], [reached * 0.5**100], 1e-9)


def test_divergence_by_a_limit():
    case = Quadratic(0.5, pull=-1e3)
    optimizer = keras.optimizers.SGD(1.0, clipvalue=1.0)
    tuner = far.HyperOptimizer(case.problem, GRAPH, optimizer)
    with pytest.warns(UserWarning, match="outer_limit=-450"):
        tuner.fit(50, num_steps=4, mode="online", verbose=0, outer_limit=-450.0)
    assert "outer_limit" in str(tuner.divergence)
    # −1000 η is above −450 at no time, and w² adds to it from η = 5.5 on.
    values = tuner.history.history["outer_value"]
    assert max(values) <= -450.0
    w, rate = 1.0, 0.5
    for _ in values:
        last = w, rate
        w, rate = w * (1 - rate) ** 4, rate + 1
    w = w * (1 - rate) ** 4
    assert w**2 - 1e3 * rate > -450.0  # The update that was undone.
    w, rate = last[0] * (1 - last[1]) ** 4, last[1]
    assert_close([case.w, case.rate], [w, rate], 1e-9)


@pytest.mark.parametrize(
    ("rate", "limit"), [(1e100, None), (2.5, 10.0)], ids=["infinite", "limit"]
)
def test_divergence_at_the_start_of_a_second_fit(rate, limit):
    """It is raised, and everything is as it was."""
    case = Quadratic(0.5, pull=0.0)
    tuner = far.HyperOptimizer(case.problem, GRAPH)
    tuner.fit(2, num_steps=2, mode="online", verbose=0)
    assert float(case.w) == 0.5**4
    case.rate.assign(rate)
    with pytest.raises(far.NonFiniteError):
        tuner.fit(2, num_steps=20, mode="online", verbose=0, outer_limit=limit)
    assert float(case.w) == 0.5**4
    case.rate.assign(0.5)
    tuner.run(2, mode="online")
    assert float(case.w) == 0.5**6


def test_online_over_a_list_of_problems():
    """Each keeps its own tangents; the hypergradients are averaged."""
    rate = hyper(0.25, "rate")
    ws = [keras.Variable(v, dtype="float64", name="w") for v in (1.0, 3.0)]
    problems = [
        far.BilevelProblem(
            lambda w=w, k=k: 0.5 * k * w * w,
            lambda w=w: 1.0 * w,
            [w],
            far.GradientDescent(rate),
            [rate],
        )
        for w, k in zip(ws, (1.0, 0.5), strict=True)
    ]
    tuner = far.HyperOptimizer(problems, GRAPH, keras.optimizers.SGD(0.0))
    tuner.run(2, mode="online")
    (found,) = tuner.run(3, mode="online").hypergradients
    # w_5 = (1 − kη)⁵ w_0, and so dw_5/dη = −5k (1 − kη)⁴ w_0.
    each = [-5 * k * (1 - k * 0.25) ** 4 * w for k, w in ((1.0, 1.0), (0.5, 3.0))]
    assert_close([found], [np.mean(each)], 1e-12)


@pytest.mark.parametrize("mode", [far.ReverseHG(), GRAPH])
def test_status_says_what_was_counted(mode):
    case = Quadratic(0.5, pull=0.0)
    tuner = far.HyperOptimizer(case.problem, mode)
    runs = ("restart", "online", "warm_restart", "online")
    found = [tuner.run(3, mode=name).status.truncated for name in runs]
    forward = mode is GRAPH
    assert found == [None, None if forward else 3, 3, None if forward else 3]


def test_online_where_only_the_start_reads_a_hyperparameter():
    """w_0 = λ: past the start, only its tangent is left of λ."""
    w = keras.Variable(0.0, dtype="float64", name="w")
    start = hyper(2.0, "start")
    problem = far.BilevelProblem(
        lambda: 0.5 * w * w,
        lambda: 1.0 * w,
        [w],
        far.GradientDescent(0.25),
        [start],
        initial_values=[(w, start)],
    )
    tuner = far.HyperOptimizer(problem, GRAPH, keras.optimizers.SGD(0.0))
    for steps in (3, 6):
        result = tuner.run(3, mode="online")
        assert_close(result.hypergradients, [0.75**steps], 1e-12)


def test_divergence_in_the_first_update_is_raised():
    case = Quadratic(50.0, pull=0.0)
    tuner = far.HyperOptimizer(case.problem, GRAPH)
    with pytest.raises(far.NonFiniteError, match="step "):
        tuner.fit(3, num_steps=900, mode="online", verbose=0)
    assert float(case.rate) == 50.0


class TestGroups:
    """One Keras optimizer for each group of hyperparameters."""

    def test_each_moves_its_own(self):
        _, bilevel, _, _ = classification()
        rate, mass, weights, penalty = bilevel.hyperparameters
        start = values(bilevel.hyperparameters)
        tuner = far.HyperOptimizer(
            bilevel,
            GRAPH,
            [
                ([penalty, rate], keras.optimizers.SGD(2.0**-6)),
                (mass, keras.optimizers.SGD(2.0**-4)),
                (weights, keras.optimizers.SGD(2.0**-3, clipvalue=2.0**-7)),
            ],
        )
        gradients = [np.array(g) for g in tuner.run(5).hypergradients]
        gradients[2] = np.clip(gradients[2], -(2.0**-7), 2.0**-7)
        rates = [2.0**-6, 2.0**-4, 2.0**-3, 2.0**-6]
        moved = [s - r * g for s, r, g in zip(start, rates, gradients, strict=True)]
        assert_close(bilevel.hyperparameters, moved, 1e-12)

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            (lambda h: [(h[:3], "sgd")], "`penalty` is in 0"),
            (lambda h: [(h, "sgd"), (h[0], "sgd")], "`rate` is in 2"),
            (lambda h: [(h, "sgd"), (hyper(1.0, "other"), "sgd")], "`other`"),
            (lambda h: [(h,)], "list of pairs"),
            (lambda h: [("rate", "sgd")], "begin with a hyperparameter"),
            (lambda h: [(h, "sgd"), ([], "sgd")], "begin with a hyperparameter"),
            (lambda h: [(h, 0.1)], "must be a Keras optimizer or its name"),
            (lambda h: "sgdd", "must be a Keras optimizer or its name"),
        ],
    )
    def test_malformed(self, groups, message):
        _, bilevel, _, _ = classification()
        with pytest.raises(ValueError, match=message):
            far.HyperOptimizer(bilevel, optimizer=groups(bilevel.hyperparameters))

    def test_one_optimizer_object_for_two_groups(self):
        _, bilevel, _, _ = classification()
        shared = keras.optimizers.SGD(0.1)
        first, *rest = bilevel.hyperparameters
        with pytest.raises(ValueError, match="object of its own"):
            far.HyperOptimizer(bilevel, optimizer=[(first, shared), (rest, shared)])
