"""Set-up of the whole suite: deterministic, no surprises."""

import gc
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Of both processes, of those that tests start, and of the next time.
os.environ.setdefault(
    "FAR_HO_TF_COMPILE_CACHE",
    str(pathlib.Path(__file__).parents[1] / ".compile_cache"),
)

import keras
import pytest
import tensorflow as tf

import far_ho_tf as far  # Tells TensorFlow of the cache before it begins.

# Tracing makes so many objects that looking for cycles takes a tenth of all time.
gc.set_threshold(10_000, 20, 50)

# Logical devices stand in for GPUs; they must be there before TensorFlow begins.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)


# The files whose tests take longest: they begin first, so that none is left for the
# end, when the other process has nothing more to do.
LONGEST = [
    "distribution/test_replicas",
    "distribution/test_mean_check",
    "distribution/test_workers",
    "hypergradients/reversible/test_mode",
    "whole/test_dynamics_table",
    "hypergradients/reverse/test_residuals",
    "whole/test_modes",
    "hypergradients/reverse/test_long_horizons",
    "dynamics/keras/test_values",
    "examples/test_maclaurin",
    "examples/test_examples",
    "examples/test_hyper_representation",
    "hypergradients/test_episodes",
    "examples/test_distributed",
    "dynamics/keras/test_numbers",
    "repository/test_docs",
    "resuming/test_killed_runs",
]


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(_name(item), len(places)))


def _name(item):
    """Of its file, from tests/ on: names repeat from folder to folder."""
    return item.nodeid.removeprefix("tests/").partition(".py::")[0]


@pytest.fixture(autouse=True)
def _clean_keras():
    """Each test starts from the same seed and with fresh Keras names."""
    keras.utils.clear_session(free_memory=False)  # Collecting garbage takes 0.2 s.
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")


@pytest.fixture
def parts():
    """The arguments of a small, right problem, to be spoilt one at a time."""
    w = keras.Variable([1.0, 2.0], name="w")
    rate = far.Hyperparameter(0.1, name="rate")
    return {
        "inner_objective": lambda: tf.reduce_sum(w * w),
        "outer_objective": lambda: tf.reduce_sum(w * w),
        "variables": [w],
        "dynamics": far.GradientDescent(rate),
        "hyperparameters": [rate],
    }
