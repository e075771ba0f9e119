"""What makes a run is compared on resume: another is refused, or allowed by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from far_ho_tf.resuming import description
from tests.helpers import in_tiers
from tests.resuming.test_checkpoint import anew

X = np.random.RandomState(0).randn(12, 3)
Y = np.random.RandomState(1).randn(12)


def changed(array, factor=1.001):
    """In its last element alone."""
    array = array.copy()
    array.flat[-1] *= factor
    return array


def elements(x=X, factor=1.0, size=4, seed=5):
    dataset = tf.data.Dataset.from_tensor_slices((x, Y)).shuffle(12, seed=seed)
    return dataset.map(lambda x, y: (factor * x, y)).batch(size).repeat()


def tuner(
    *,
    optimizer=lambda: keras.optimizers.Adam(0.01),
    mode=far.ReverseHG,
    dynamics=lambda rate: far.Momentum(rate, 0.5),
    inner_data=lambda: (X, Y),
    outer_data=lambda: (X, Y),
    factor=1.0,
    outer_factor=1.0,
    table=1.0,
    activation="tanh",
    smoothing=0.1,
    penalty=0.5,
    bounds=(0.0, 1.0),
    norm=2.0,
    start=0.05,
    weights=None,
    noise=None,
    mode_options=None,
):
    """Of a small network; each argument is a setting."""
    norm = keras.constraints.MaxNorm(norm)
    layers = [
        keras.layers.Dense(4, activation, kernel_constraint=norm, dtype="float64"),
        keras.layers.Dense(1, dtype="float64"),
    ]
    model = keras.Sequential([keras.Input((3,), dtype="float64"), *layers])
    if weights is not None:
        model.set_weights([weights * w for w in model.get_weights()])
    rate = far.Hyperparameter(
        start,
        dtype="float64",
        name="rate",
        constraint=far.constraints.Interval(*bounds),
    )
    table = tf.constant([table, 2.0], tf.float64)

    def loss(batch, scale):
        x, y = batch
        found = tf.squeeze(model(x), 1) - (1 - smoothing) * y
        return scale * tf.reduce_mean(found**2)

    def inner(batch):
        squares = [tf.reduce_sum(w * w) for w in model.trainable_variables]
        return loss(batch, factor) + penalty * table[0] * tf.add_n(squares)

    initial = [] if noise is None else [(model.trainable_variables[1], noise)]
    problem = far.BilevelProblem(
        inner,
        lambda batch: loss(batch, outer_factor),
        model,
        dynamics(rate),
        [rate],
        inner_data(),
        outer_data(),
        initial,
    )
    mode = mode(jit_compile=False, **(mode_options or {}))
    return far.HyperOptimizer(problem, mode, optimizer())


def keras_adam(**options):
    def dynamics(rate):
        adam = keras.optimizers.Adam(epsilon=1e-3, **options)
        return far.KerasDynamics(adam, {"learning_rate": rate})

    return dynamics


def keras_sgd(**options):
    def dynamics(rate):
        sgd = keras.optimizers.SGD(**{"momentum": 0.9} | options)
        return far.KerasDynamics(sgd, {"learning_rate": rate})

    return dynamics


def outer_adam(**options):
    return lambda: keras.optimizers.Adam(**{"learning_rate": 0.01} | options)


def by_pattern(number):
    return lambda rate: far.Momentum(rate, {"kernel": number, ".*": 0.3})


def warmed(steps):
    def dynamics(rate):
        def warm(step):
            return rate * tf.minimum(tf.cast(step, tf.float64) / steps, 1.0)

        return far.Momentum(warm, 0.5)

    return dynamics


def cosine(alpha):
    return lambda rate: far.Momentum(far.Schedule.cosine(rate, 10, alpha), 0.5)


# Settings before, after, and the category.
CHANGES = {
    "rate of the outer optimizer": ({}, {"optimizer": outer_adam(learning_rate=0.02)}),
    "its beta_1": ({}, {"optimizer": outer_adam(beta_1=0.8)}),
    "its clipnorm": ({}, {"optimizer": outer_adam(clipnorm=1.0)}),
    "its weight_decay": ({}, {"optimizer": outer_adam(weight_decay=1e-3)}),
    "its kind": ({}, {"optimizer": lambda: keras.optimizers.SGD(0.01)}),
    "its nesterov": (
        {"optimizer": lambda: keras.optimizers.SGD(0.01, 0.9)},
        {"optimizer": lambda: keras.optimizers.SGD(0.01, 0.9, nesterov=True)},
    ),
    "truncation": ({}, {"mode_options": {"truncation": 2}}),
    "checkpointing": ({}, {"mode_options": {"checkpointing": "sqrt"}}),
    "mode": ({}, {"mode": far.ForwardHG}),
    "momentum": ({}, {"dynamics": lambda rate: far.Momentum(rate, 0.6)}),
    "numbers by pattern": (
        {"dynamics": by_pattern(0.5)},
        {"dynamics": by_pattern(0.6)},
    ),
    "a schedule's number": ({"dynamics": cosine(0.1)}, {"dynamics": cosine(0.2)}),
    "a schedule's code": ({"dynamics": warmed(5.0)}, {"dynamics": warmed(6.0)}),
    "beta_1 of Keras' Adam": (
        {"dynamics": keras_adam(beta_1=0.9)},
        {"dynamics": keras_adam(beta_1=0.8)},
    ),
    "clipnorm of Keras' Adam": (
        {"dynamics": keras_adam()},
        {"dynamics": keras_adam(clipnorm=1.0)},
    ),
    "weight_decay of Keras' Adam": (
        {"dynamics": keras_adam(weight_decay=0.01)},
        {"dynamics": keras_adam(weight_decay=0.02)},
    ),
    "clipvalue of Keras' SGD": (
        {"dynamics": keras_sgd()},
        {"dynamics": keras_sgd(clipvalue=0.5)},
    ),
    "nesterov of Keras' SGD": (
        {"dynamics": keras_sgd()},
        {"dynamics": keras_sgd(nesterov=True)},
    ),
    "a factor of the inner objective": ({}, {"factor": 2.0}),
    "a factor of the outer objective": ({}, {"outer_factor": 2.0}),
    "a tensor that it reads": ({}, {"table": 1.5}),
    "an activation": ({}, {"activation": "relu"}),
    "label smoothing": ({}, {"smoothing": 0.2}),
    "a penalty's strength": ({}, {"penalty": 0.4}),
    "the last input": ({}, {"inner_data": lambda: (changed(X), Y)}),
    "the last label": ({}, {"inner_data": lambda: (X, changed(Y))}),
    "the last input of outer data": ({}, {"outer_data": lambda: (changed(X), Y)}),
    "data as batches": ({}, {"inner_data": lambda: far.Batches((X, Y), 4, seed=1)}),
    "seed of batches": (
        {"inner_data": lambda: far.Batches((X, Y), 4, seed=1)},
        {"inner_data": lambda: far.Batches((X, Y), 4, seed=2)},
    ),
    "size of batches": (
        {"inner_data": lambda: far.Batches((X, Y), 4, seed=1)},
        {"inner_data": lambda: far.Batches((X, Y), 3, seed=1)},
    ),
    "the last element of a dataset": (
        {"inner_data": elements},
        {"inner_data": lambda: elements(changed(X))},
    ),
    "what a dataset maps": (
        {"inner_data": elements},
        {"inner_data": lambda: elements(factor=1.1)},
    ),
    "a dataset's batch size": (
        {"inner_data": elements},
        {"inner_data": lambda: elements(size=3)},
    ),
    "a dataset's seed": (
        {"inner_data": elements},
        {"inner_data": lambda: elements(seed=6)},
    ),
    "bounds of a hyperparameter": ({}, {"bounds": (0.0, 0.5)}),
    "a kernel's constraint": ({}, {"norm": 3.0}),
    "a hyperparameter's start": ({}, {"start": 0.06}),
    "weights": ({}, {"weights": 1.1}),
    "the map of initial values": (
        {"noise": lambda: tf.zeros([4], tf.float64)},
        {"noise": lambda: tf.ones([4], tf.float64)},
    ),
}
CATEGORIES = {
    "outer_optimizer": 6,
    "hypergradient": 3,
    "dynamics": 9,
    "objectives": 6,
    "data": 10,
    "constraints": 2,
    "initial_values": 3,
}
# What differs with it: what an objective computes on other shapes, and the rule, which
# applies constraints of weights.
ALSO = {
    "data as batches": "objectives",
    "size of batches": "objectives",
    "a dataset's batch size": "objectives",
    "a kernel's constraint": "dynamics",
}
CASES = [
    (name, category)
    for name, category in zip(
        CHANGES,
        [one for one, count in CATEGORIES.items() for _ in range(count)],
        strict=True,
    )
]
FIRST = [
    "its beta_1",
    "a schedule's code",
    "an activation",
    "weights",
    "what a dataset maps",
]


def fit(path, iterations, settings, **options):
    made = anew(lambda: tuner(**settings))
    checkpoint = far.Checkpoint(path, **options)
    made.fit(iterations, 3, callbacks=[checkpoint], verbose=0)
    return made


@pytest.mark.parametrize(
    ("name", "category"), in_tiers(CASES, [c for c in CASES if c[0] in FIRST])
)
def test_a_changed_setting(name, category, tmp_path):
    before, after = CHANGES[name]
    fit(tmp_path, 1, before)
    fit(tmp_path, 1, before)
    allow = [ALSO[name], category] if name in ALSO else [category]
    named = ", ".join(f"'{one}'" for one in allow)
    with pytest.raises(
        far.CheckpointError, match=rf"allow=\[{named}\].*{category}.* now"
    ):
        fit(tmp_path, 2, before | after)
    others = [one for one in description.CATEGORIES if one != category]
    with pytest.raises(far.CheckpointError, match=f"Received: {category}"):
        fit(tmp_path, 2, before | after, allow=others)
    going_on = fit(tmp_path, 2, before | after, allow=allow)
    assert going_on.initial_iteration == 1
    # From then on the run is the changed one.
    assert fit(tmp_path, 3, before | after).initial_iteration == 2


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"num_steps": 4}, "num_steps=3 then, 4 now"),
        ({"mode": "online"}, "mode='restart' then, 'online' now"),
        ({"outer_limit": 9.0}, "outer_limit=None then, 9.0 now"),
    ],
)
def test_other_arguments_of_fit(arguments, place, tmp_path):
    fit(tmp_path, 1, {})
    arguments = {"num_steps": 3, "verbose": 0} | arguments
    with pytest.raises(far.CheckpointError, match=rf"allow=\['fit'\].*fit\.{place}"):
        anew(tuner).fit(2, callbacks=[far.Checkpoint(tmp_path)], **arguments)
    made = anew(tuner)
    made.fit(2, callbacks=[far.Checkpoint(tmp_path, allow="fit")], **arguments)
    assert made.history.epoch == [0, 1]


def test_an_outer_rate_that_is_changed_counts(tmp_path):
    """The moments go on, the rate is the new one: as Adam by hand."""
    fit(tmp_path, 1, {})
    there = anew(tuner)
    rate, adam = float(there.hyperparameters[0]), there.optimizer
    there.fit(1, 3, verbose=0)
    first = rate - float(there.hyperparameters[0])
    adam.learning_rate = 0.02
    there.fit(1, 3, verbose=0)
    changed = {"optimizer": outer_adam(learning_rate=0.02)}
    made = fit(tmp_path, 2, changed, allow=["outer_optimizer"])
    assert float(made.optimizer.learning_rate) == pytest.approx(0.02)
    assert int(made.optimizer.iterations) == 2
    assert first != 0
    assert float(made.hyperparameters[0]) == float(there.hyperparameters[0])


def test_all_differences_are_listed(tmp_path):
    fit(tmp_path, 1, {})
    with pytest.raises(far.CheckpointError) as caught:
        fit(tmp_path, 1, {"factor": 2.0, "start": 0.06, "bounds": (0.0, 2.0)})
    said = str(caught.value)
    assert "objectives[0].inner_objective=" in said
    assert "constraints.hyperparameters[0].config.high=1.0 then, 2.0 now" in said
    assert "initial_values.hyperparameters.rate=0.05 then, 0.06 now" in said


def test_weights_drawn_without_a_seed(tmp_path, monkeypatch):
    """Nobody can tell whether they are others on purpose."""
    fit(tmp_path, 1, {})
    monkeypatch.setattr(description, "random_seed", lambda: None)
    with pytest.warns(UserWarning, match="began with other weights, and goes on"):
        made = fit(tmp_path, 2, {"weights": 1.1})
    assert made.initial_iteration == 1


def test_other_versions(tmp_path, monkeypatch):
    fit(tmp_path, 1, {})
    versions = description.versions() | {"Keras": "3.99"}
    monkeypatch.setattr(description, "versions", lambda: versions)
    with pytest.warns(UserWarning, match=r"Keras='.*' then, '3\.99' now") as told:
        fit(tmp_path, 1, {"factor": 2.0})  # Graphs of other versions may differ.
    assert told[0].filename.endswith("test_same_run.py")
    with (
        pytest.warns(UserWarning, match="other versions"),
        pytest.raises(far.CheckpointError, match=r"initial_values\.hyperparameters"),
    ):
        fit(tmp_path, 1, {"start": 0.06})


def test_a_name_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="`allow` may name 'outer_optimizer'"):
        far.Checkpoint(tmp_path, allow=["optimizer"])
