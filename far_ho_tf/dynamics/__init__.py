"""Update rules of the inner training run."""

from far_ho_tf.dynamics.adam import Adam as Adam
from far_ho_tf.dynamics.adam import AdamW as AdamW
from far_ho_tf.dynamics.backtracking import (
    BacktrackingGradientDescent as BacktrackingGradientDescent,
)
from far_ho_tf.dynamics.base import Dynamics as Dynamics
from far_ho_tf.dynamics.bound import BoundDynamics as BoundDynamics
from far_ho_tf.dynamics.gradient_descent import GradientDescent as GradientDescent
from far_ho_tf.dynamics.keras.dynamics import KerasDynamics as KerasDynamics
from far_ho_tf.dynamics.keras.dynamics import as_dynamics as as_dynamics
from far_ho_tf.dynamics.momentum import Momentum as Momentum
from far_ho_tf.dynamics.rmsprop import RMSprop as RMSprop
