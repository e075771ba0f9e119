"""far_ho_tf: hypergradients through training, for TensorFlow and Keras."""

__version__ = "0.1.0"

import keras

from far_ho_tf import callbacks as callbacks
from far_ho_tf import constraints as constraints
from far_ho_tf import patches
from far_ho_tf import regularizers as regularizers
from far_ho_tf.checkpoint import Checkpoint as Checkpoint
from far_ho_tf.data import Batches as Batches
from far_ho_tf.distribution import WorkerLostError as WorkerLostError
from far_ho_tf.dynamics import Adam as Adam
from far_ho_tf.dynamics import AdamW as AdamW
from far_ho_tf.dynamics import (
    BacktrackingGradientDescent as BacktrackingGradientDescent,
)
from far_ho_tf.dynamics import Dynamics as Dynamics
from far_ho_tf.dynamics import GradientDescent as GradientDescent
from far_ho_tf.dynamics import KerasDynamics as KerasDynamics
from far_ho_tf.dynamics import Momentum as Momentum
from far_ho_tf.dynamics import RMSprop as RMSprop
from far_ho_tf.graphs import compilation
from far_ho_tf.graphs.compilation import compile_cache as compile_cache
from far_ho_tf.hyper_optimizer import HyperOptimizer as HyperOptimizer
from far_ho_tf.hypergradients import ForwardHG as ForwardHG
from far_ho_tf.hypergradients import HyperGradient as HyperGradient
from far_ho_tf.hypergradients import HyperGradientResult as HyperGradientResult
from far_ho_tf.hypergradients import NonFiniteError as NonFiniteError
from far_ho_tf.hypergradients import ReversalError as ReversalError
from far_ho_tf.hypergradients import ReverseHG as ReverseHG
from far_ho_tf.hypergradients import ReversibleHG as ReversibleHG
from far_ho_tf.hypergradients import Status as Status
from far_ho_tf.hyperparameters import Hyperparameter as Hyperparameter
from far_ho_tf.hyperparameters import get_hyperparameter as get_hyperparameter
from far_ho_tf.initial_values import scaled_noise as scaled_noise
from far_ho_tf.planner import Plan as Plan
from far_ho_tf.planner import plan as plan
from far_ho_tf.problem import BilevelProblem as BilevelProblem
from far_ho_tf.real_time import RealTimeModel as RealTimeModel
from far_ho_tf.saving import CheckpointError as CheckpointError
from far_ho_tf.schedules import Schedule as Schedule
from far_ho_tf.variables.state import State as State

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "far_ho_tf needs Keras' TensorFlow backend (KERAS_BACKEND=tensorflow). "
        f"Received: {keras.backend.backend()}"
    )
patches.apply()
compilation.from_environment()
