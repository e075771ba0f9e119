"""far_ho_tf: hypergradients through training, for TensorFlow and Keras."""

import keras

from far_ho_tf import patches
from far_ho_tf.data import Batches
from far_ho_tf.distribution.strategies import WorkerLostError
from far_ho_tf.dynamics import (
    Adam,
    AdamW,
    BacktrackingGradientDescent,
    Dynamics,
    GradientDescent,
    KerasDynamics,
    Momentum,
    RMSprop,
)
from far_ho_tf.graphs import compilation
from far_ho_tf.graphs.compilation import compile_cache
from far_ho_tf.hypergradients import (
    DivergenceError,
    ForwardHG,
    HyperGradient,
    HyperGradientResult,
    MeanResult,
    NonFiniteError,
    ReversalError,
    ReverseHG,
    ReversibleHG,
    Status,
)
from far_ho_tf.hyperparameters import constraints, regularizers
from far_ho_tf.hyperparameters.compat import get_hyperparameter
from far_ho_tf.hyperparameters.hyperparameter import Hyperparameter
from far_ho_tf.hyperparameters.initial_values import scaled_noise
from far_ho_tf.hyperparameters.schedules import Schedule
from far_ho_tf.planning.plan import Plan, plan
from far_ho_tf.problem.bilevel_problem import BilevelProblem
from far_ho_tf.real_time import RealTimeModel
from far_ho_tf.resuming.checkpoint import Checkpoint
from far_ho_tf.resuming.files import CheckpointError
from far_ho_tf.tuning import callbacks
from far_ho_tf.tuning.hyper_optimizer import HyperOptimizer
from far_ho_tf.variables.state import Position, State

__version__ = "0.1.0"

__all__ = [
    "Adam",
    "AdamW",
    "BacktrackingGradientDescent",
    "Batches",
    "BilevelProblem",
    "Checkpoint",
    "CheckpointError",
    "DivergenceError",
    "Dynamics",
    "ForwardHG",
    "GradientDescent",
    "HyperGradient",
    "HyperGradientResult",
    "HyperOptimizer",
    "Hyperparameter",
    "KerasDynamics",
    "MeanResult",
    "Momentum",
    "NonFiniteError",
    "Plan",
    "Position",
    "RMSprop",
    "RealTimeModel",
    "ReversalError",
    "ReverseHG",
    "ReversibleHG",
    "Schedule",
    "State",
    "Status",
    "WorkerLostError",
    "callbacks",
    "compile_cache",
    "constraints",
    "get_hyperparameter",
    "plan",
    "regularizers",
    "scaled_noise",
]


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]


if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "far_ho_tf needs Keras' TensorFlow backend (KERAS_BACKEND=tensorflow). "
        f"Received: {keras.backend.backend()}"
    )
patches.apply()
compilation.from_environment()
