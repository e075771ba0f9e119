"""What `far.Checkpoint` refuses: damaged and foreign files, and other runs."""

import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

import far_ho_tf as far
from tests.resuming.test_checkpoint import anew, diverging, fit, same, state_of


def simple(name="target", size=None, optimizer=None, mode=None, dynamics=None):
    """A problem of one hyperparameter, with one thing or another changed."""
    w = keras.Variable(tf.zeros(size or ()), name="w")
    target = far.Hyperparameter(0.0, name=name)
    problem = far.BilevelProblem(
        lambda: tf.reduce_sum(0.5 * (w - target) ** 2),
        lambda: tf.reduce_sum(0.5 * (w - 1.0) ** 2),
        [w],
        dynamics or far.GradientDescent(0.5),
        [target],
    )
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    mode = mode or far.ReverseHG(jit_compile=False)
    return far.HyperOptimizer(problem, mode, optimizer)


@pytest.fixture(name="saved")
def _saved(tmp_path):
    """A folder with two savings."""
    fit(anew(simple), 2, callbacks=[far.Checkpoint(tmp_path)])
    return tmp_path


def refused(tuner, directory, match, iterations=2, **options):
    before = state_of(tuner)
    with pytest.raises(ValueError, match=match):
        fit(tuner, iterations, callbacks=[far.Checkpoint(directory)], **options)
    same(state_of(tuner), before)
    assert tuner.inner_runs.outer_step == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"name": "other"},
            r"hyperparameters\[0\]='target: .*'other: float32 \(\)' now",
        ),
        (
            {"size": 3},
            r"variables\[0\]='w: float32 \(\)' then, 'w: float32 \(3,\)' now",
        ),
        ({"mode": far.ForwardHG()}, "hypergradient=.ReverseHG.*.ForwardHG.* now"),
        ({"optimizer": keras.optimizers.Adam}, "class='SGD' then, 'Adam' now"),
        (
            {"optimizer": lambda: keras.optimizers.SGD(0.2)},
            "learning_rate=0.1.* then, 0.2",
        ),
        ({"dynamics": far.GradientDescent(0.25)}, "learning_rate=0.5 then, 0.25 now"),
        ({"dynamics": far.Momentum(0.5, 0.9)}, r"variables\[0\]\.slots"),
    ],
)
def test_another_problem(change, match, saved):
    if callable(change.get("optimizer")):
        change = {"optimizer": change["optimizer"]()}
    refused(anew(simple, **change), saved, f"ckpt-2`.*{match}")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 2}, r"inner_data\.seed=1 then, 2 now"),
        ({"batch_size": 3}, r"inner_data\.batch_size=2 then, 3 now"),
        ({"shuffle": False}, r"inner_data\.shuffle=True then, False now"),
        ({"scale": 2.0}, r"inner_data\.checksum="),
        ({"outer": 2.0}, r"outer_data\.checksum="),
    ],
)
def test_other_data(change, match, tmp_path):
    def tuner(scale=1.0, outer=1.0, **options):
        x = np.arange(6.0)
        options = {"batch_size": 2, "seed": 1} | options
        w = keras.Variable(0.0, dtype="float64", name="w")
        target = far.Hyperparameter(0.0, dtype="float64", name="target")

        def objective(x):
            return tf.reduce_mean((x * w - target) ** 2)

        problem = far.BilevelProblem(
            objective,
            objective,
            [w],
            far.GradientDescent(0.01),
            [target],
            far.Batches(scale * x, **options),
            outer * x,
        )
        return far.HyperOptimizer(problem, far.ReverseHG(jit_compile=False))

    fit(anew(tuner), 2, callbacks=[far.Checkpoint(tmp_path)])
    refused(anew(tuner, **change), tmp_path, match)
    fit(anew(tuner), 3, callbacks=[far.Checkpoint(tmp_path)])


def test_a_run_of_several_workers(tmp_path):
    (tmp_path / "worker-1").mkdir()
    refused(anew(simple), tmp_path, r"several workers.*found=\['worker-1'\]")


def test_another_fit(saved):
    refused(anew(simple), saved, "num_steps=3 then, 4 now", steps=4)
    refused(anew(simple), saved, "mode='restart' then, 'online' now", mode="online")
    refused(anew(simple), saved, "at least as many.*hyper_iterations=1", 1)


def test_more_of_a_fit_that_was_followed(tmp_path):
    checkpoint, tuner = far.Checkpoint(tmp_path), anew(simple)
    fit(tuner, 1, callbacks=[checkpoint])
    fit(tuner, 1, callbacks=[checkpoint])
    refused(anew(simple), tmp_path, "before the next began.*hyper_iterations=2")


def damage(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("size", [0, 30])
@pytest.mark.parametrize("name", ["ckpt-2.index", "ckpt-2.data-00000-of-00001"])
def test_truncated(name, size, saved):
    damage(saved / name, size)
    refused(anew(simple), saved, "ckpt-2` must be a checkpoint.*are damaged")


def test_one_bit(saved):
    path = saved / "ckpt-2.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(anew(simple), saved, "are damaged.*Checksum does not match")


@pytest.mark.parametrize("size", [0, 30, None])
def test_the_record(size, saved):
    """Without it none would be found, and a run begun anew in silence."""
    damage(saved / "checkpoint", size)
    if size is None:
        (saved / "checkpoint").unlink()
    refused(anew(simple), saved, "checkpoint` must name.* missing or damaged")


def test_foreign(tmp_path):
    other = tf.train.Checkpoint(v=tf.Variable(1.0))
    tf.train.CheckpointManager(other, tmp_path / "one", 2).save()
    other.write(str(tmp_path / "two" / "model"))
    for name in ("one", "two"):
        refused(anew(simple), tmp_path / name, "of another kind")
    (tmp_path / "model.keras").write_text("A file.")
    with pytest.raises(far.CheckpointError, match=r"it is a file.*model\.keras"):
        far.Checkpoint(tmp_path / "model.keras")
    for directory in (None, "", 3):
        with pytest.raises(far.CheckpointError, match="must be the path of a folder"):
            far.Checkpoint(directory)


def test_leftovers_are_harmless(saved, tmp_path_factory):
    (saved / "ckpt-3_temp").mkdir()
    (saved / "ckpt-3.index").write_text("Half of")
    (saved / "ckpt-3.data-00000-of-00001").write_text("the next.")
    (saved / "checkpoint.tmp0123").write_text("And of its na")
    one, two = anew(simple), anew(simple)
    fit(one, 4, callbacks=[far.Checkpoint(saved)])
    first = tmp_path_factory.mktemp("first")
    (first / "ckpt-1.index").write_text("Half of the first.")
    fit(two, 4, callbacks=[far.Checkpoint(first)])
    same(state_of(one), state_of(two))
    (first / "checkpoint").unlink()  # As if the first had ended just before it.
    for path in first.glob("ckpt-3*"):
        path.unlink()
    three = anew(simple)
    fit(three, 4, callbacks=[far.Checkpoint(first), never(range(4))])
    same(state_of(three), state_of(two))


def never(iterations):
    def begin(epoch, logs):
        assert epoch not in iterations

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin)


def test_unrecorded_runs(tmp_path):
    tuner = anew(simple)
    tuner.run(3)
    with pytest.raises(ValueError, match=r"before any `run`.*hyper_iterations=1"):
        fit(tuner, 2, callbacks=[far.Checkpoint(tmp_path)])
    tuner, checkpoint = anew(simple), far.Checkpoint(tmp_path)
    fit(tuner, 2, callbacks=[checkpoint])
    tuner.run(3)
    with pytest.raises(ValueError, match=r"recorded 2 .*hyper_iterations=3"):
        fit(tuner, 2, callbacks=[checkpoint])


def failing(iteration):
    def fail(epoch, logs):
        if epoch == iteration:
            raise KeyError("a callback's own")

    return keras.callbacks.LambdaCallback(on_epoch_begin=fail)


def test_a_fit_that_raised(tmp_path):
    """It is as if it had not been, unless it has made something."""
    tuner, checkpoint = anew(simple), far.Checkpoint(tmp_path)
    with pytest.raises(KeyError):
        fit(tuner, 9, callbacks=[checkpoint, failing(0)], steps=7)
    fit(tuner, 2, callbacks=[checkpoint])
    with pytest.raises(KeyError):
        fit(tuner, 9, callbacks=[checkpoint, failing(1)])
    with pytest.raises(ValueError, match=r"was interrupted.*hyper_iterations=1"):
        fit(tuner, 9, callbacks=[checkpoint])
    other, checkpoint = anew(simple), far.Checkpoint(tmp_path)
    assert fit(other, 2, callbacks=[checkpoint, never([0])]).epoch == [0, 1]
    assert fit(other, 3, callbacks=[checkpoint, never([0])]).epoch == [0, 1, 2]


def test_a_folder_with_brackets(tmp_path):
    """TensorFlow would write there, and find nothing."""
    with pytest.raises(ValueError, match=r"directory` must not hold .*run\[1\]"):
        far.Checkpoint(tmp_path / "run[1]")


def test_what_it_is_given_to(tmp_path):
    checkpoint = far.Checkpoint(tmp_path)
    fit(anew(simple), 1, callbacks=[checkpoint])
    with pytest.raises(ValueError, match="serves one HyperOptimizer"):
        fit(anew(diverging), 1, callbacks=[checkpoint])
    with pytest.raises(ValueError, match=r"may hold one far\.Checkpoint"):
        fit(anew(simple), 1, callbacks=[checkpoint, checkpoint])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="BackupAndRestore"):
        model.fit(tf.ones((2, 1)), tf.ones((2, 1)), callbacks=[checkpoint], verbose=0)


@pytest.mark.parametrize(
    "arguments", [{"every": 0}, {"every": 1.5}, {"max_to_keep": 0}]
)
def test_arguments(arguments, tmp_path):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"`{name}` must be.*Received: {name}={value}"):
        far.Checkpoint(tmp_path, **{name: value})


def test_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("In the way.")
    checkpoint = far.Checkpoint(tmp_path / "file" / "folder")
    with pytest.raises(OSError, match=r"cannot write to .*file/folder`"):
        fit(anew(simple), 1, callbacks=[checkpoint])


def test_a_full_disk(tmp_path):
    """What was saved before stays, and is gone on with."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            epoch == 2 and resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        )
    )
    try:
        with pytest.raises(OSError, match="cannot write"):
            fit(anew(simple), 4, callbacks=[far.Checkpoint(tmp_path), full])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    tuner, whole = anew(simple), anew(simple)
    fit(tuner, 4, callbacks=[far.Checkpoint(tmp_path), never([0, 1])])
    fit(whole, 4)
    same(state_of(tuner), state_of(whole))


def shuffling(**options):
    w = keras.Variable(0.0, name="w")
    target = far.Hyperparameter(0.1, name="target")
    problem = far.BilevelProblem(
        lambda x: (w - target * x) ** 2,
        lambda: (w - 1.0) ** 2,
        [w],
        far.GradientDescent(0.1),
        [target],
        inner_data=tf.data.Dataset.range(50).map(float).shuffle(50, **options),
    )
    return far.HyperOptimizer(problem, far.ReverseHG(jit_compile=False))


def test_a_dataset_without_a_seed(tmp_path):
    """It is said when the run begins, and again when another order is read."""
    tf.random.set_seed(None)
    with pytest.warns(UserWarning, match="`inner_data` of problem 0 shuffles without"):
        fit(shuffling(), 2, callbacks=[far.Checkpoint(tmp_path)])
    keras.utils.clear_session(free_memory=False)
    refused(shuffling(), tmp_path, "`inner_data` must give the elements", 3)


def test_datasets_that_draw_from_one_order(tmp_path):
    """Which of them draws first is a matter of time in TensorFlow."""
    shuffled = tf.data.Dataset.range(8).map(float).shuffle(8, seed=1)
    w, target = keras.Variable(0.0, name="w"), far.Hyperparameter(0.1, name="target")
    problem = far.BilevelProblem(
        lambda x: (w - target * x) ** 2,
        lambda x: tf.reduce_sum((w - x) ** 2),
        [w],
        far.GradientDescent(0.1),
        [target],
        inner_data=shuffled,
        outer_data=shuffled.batch(4),
    )
    tuner = far.HyperOptimizer(problem, far.ReverseHG(jit_compile=False))
    with pytest.warns(UserWarning, match="`outer_data` of problem 0 shuffles with oth"):
        fit(tuner, 1, callbacks=[far.Checkpoint(tmp_path)])


def test_another_dataset(tmp_path):
    fit(anew(shuffling, seed=1), 2, callbacks=[far.Checkpoint(tmp_path)])
    refused(
        anew(shuffling, seed=2), tmp_path, r"data\[0\]\.inner_data\.fingerprint=", 3
    )


def layered():
    """A problem whose variables Keras names with counters."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    decay = far.Hyperparameter(0.1, name="decay")
    loss = lambda: tf.reduce_sum(model(tf.ones((1, 2))) ** 2)  # noqa: E731
    problem = far.BilevelProblem(
        lambda: loss() * decay, loss, model, far.GradientDescent(0.1), [decay]
    )
    return far.HyperOptimizer(problem, far.ReverseHG(jit_compile=False))


def test_names_with_counters(tmp_path):
    """As in a notebook, where a cell is run again."""
    fit(anew(layered), 2, callbacks=[far.Checkpoint(tmp_path)])
    remedy = "counters alone: call keras.backend.clear_session"
    refused(layered(), tmp_path, f"{remedy}.*='sequential/.* then, 'sequential_1/")
    tuner = anew(layered)
    fit(tuner, 3, callbacks=[far.Checkpoint(tmp_path)])
    assert tuner.history.epoch == [0, 1, 2] and tuner.initial_iteration == 2
