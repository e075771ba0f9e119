"""Gradient modes: ways to compute the same hypergradient."""

from far_ho_tf.hypergradients.base import HyperGradient as HyperGradient
from far_ho_tf.hypergradients.forward.mode import ForwardHG as ForwardHG
from far_ho_tf.hypergradients.nonfinite import DivergenceError as DivergenceError
from far_ho_tf.hypergradients.nonfinite import NonFiniteError as NonFiniteError
from far_ho_tf.hypergradients.result import HyperGradientResult as HyperGradientResult
from far_ho_tf.hypergradients.result import MeanResult as MeanResult
from far_ho_tf.hypergradients.result import Status as Status
from far_ho_tf.hypergradients.reverse.mode import ReverseHG as ReverseHG
from far_ho_tf.hypergradients.reversible.mode import ReversalError as ReversalError
from far_ho_tf.hypergradients.reversible.mode import ReversibleHG as ReversibleHG
