"""Set-up of the whole suite: deterministic, no surprises."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

import keras
import pytest
import tensorflow as tf

# Logical devices stand in for GPUs; they must be there before TensorFlow begins.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)


@pytest.fixture(autouse=True)
def _clean_keras():
    """Each test starts from the same seed and with fresh Keras names."""
    keras.utils.clear_session(free_memory=False)  # Collecting garbage takes 0.2 s.
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx("float32")
