"""The bilevel problem: what users give, checked."""

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from far_ho_tf import data
from far_ho_tf._types import ObjectiveFunction, Variable
from far_ho_tf.checks import require, warn_user
from far_ho_tf.data.array_sources import Data
from far_ho_tf.dynamics import Dynamics, as_dynamics
from far_ho_tf.graphs.functions import TRACING
from far_ho_tf.hyperparameters.hyperparameter import Hyperparameter
from far_ho_tf.problem.initial_map import InitialValue, initial_map
from far_ho_tf.problem.objective import Objective
from far_ho_tf.problem.pure_problem import PureProblem
from far_ho_tf.variables.identity import find, path_of
from far_ho_tf.variables.owners import check_variables, common_dtype, trained_variables

# How many hyperparameters a problem names when it is printed.
_SHOWN = 4


class BilevelProblem:
    """An inner training run and an outer objective at its end.

    The inner run moves `variables` by `num_steps` steps of `dynamics` on
    `inner_objective`; the outer problem is to find the `hyperparameters` that
    minimize `outer_objective` at the state reached.

    Objectives are plain closures: they call the model and read the
    hyperparameters as usual, and return a scalar. What the inner objective
    changes besides (BatchNorm statistics with `training=True`, Dropout seeds)
    is part of the state and replayed exactly. It must not draw random numbers
    in any other way than through Keras layers, a `keras.random.SeedGenerator`
    or `tf.random.stateless_*` functions. A `tf.function` among them runs inline:
    AutoGraph converts an objective that is one, but not those that it calls.

    Args:
        inner_objective: Callable(batch) -> scalar; callable() where
            `inner_data` is `None`.
        outer_objective: The same, on `outer_data`. It may read
            hyperparameters directly.
        variables: The w of the inner problem: a built `keras.Model` or
            `Layer` (its trainable variables), a `tf.Module`, legacy Keras' layers
            among them (what its own `trainable_variables` names), or a list of
            `keras.Variable`s and `tf.Variable`s. Hyperparameters among the
            weights of a model are left out. What is trained is settled when the
            problem is made: flags that change afterwards change nothing.
        dynamics: A `Dynamics`, such as `far.Momentum(0.1)`, or any
            `keras.optimizers.Optimizer`.
        hyperparameters: List of `Hyperparameter`s or any other floating
            variables, model weights included.
        inner_data: `None`, tensors for one full batch, `Batches`, a
            `tf.data.Dataset`, or a callable(step) -> batch, where `step` is
            an int32 scalar tensor and the batch a function of it alone; or of it
            and of the number of an episode, where it takes (step, episode). A
            dataset's elements for all steps of a run are held in memory; one
            that shuffles anew each time gives each run another order.
        outer_data: The same; the step is the number of the hyper-iteration. A
            finite `tf.data.Dataset` starts over at its end.
        initial_values: The map Φ_0: list of pairs (variable, value), where
            the value is a hyperparameter, a tensor or array, or a callable() -> tensor
            that may read hyperparameters and the variables' own starting
            values (`lambda: scale * kernel`). A callable with one argument gets
            the number of the hyper-iteration, an int32 scalar tensor. Other
            variables start from the values that they have when the problem is
            made. See `scaled_noise`.

    Raises:
        ValueError: If an argument is malformed, or arguments do not fit
            together; the message names the object.

    Example:

    >>> import far_ho_tf as far, keras
    >>> w = keras.Variable(1.0, name="w")
    >>> rate = far.Hyperparameter(0.1, name="rate")
    >>> problem = far.BilevelProblem(
    ...     inner_objective=lambda: 0.5 * (w - 3.0) ** 2,
    ...     outer_objective=lambda: 0.5 * (w - 2.0) ** 2,
    ...     variables=[w],
    ...     dynamics=far.GradientDescent(rate),
    ...     hyperparameters=[rate],
    ... )
    >>> result = far.ReverseHG().compute(problem, num_steps=1)
    >>> [round(float(g), 6) for g in result.hypergradients]
    [-1.6]
    """

    def __init__(
        self,
        inner_objective: ObjectiveFunction,
        outer_objective: ObjectiveFunction,
        variables: keras.layers.Layer | tf.Module | Sequence[Variable],
        dynamics: Dynamics | keras.optimizers.Optimizer,
        hyperparameters: Sequence[Variable],
        inner_data: Data = None,
        outer_data: Data = None,
        initial_values: Sequence[tuple[Variable, InitialValue]] | None = None,
    ) -> None:
        self.hyperparameters = check_variables("hyperparameters", hyperparameters)
        self.variables, owned = trained_variables(variables, self.hyperparameters)
        _refuse_hyperparameters(self.variables)
        dtype = common_dtype(self.variables, self.hyperparameters)
        require(
            dtype in (tf.float32, tf.float64),
            "Variables and hyperparameters must be float32 or float64: in half "
            "precision what a run adds up is lost, and with it the sign of "
            "hypergradients. Remedy: keras.config.set_dtype_policy('mixed_bfloat16'), "
            "by which layers compute in half precision and keep float32 variables.",
            dtype=dtype.name,
        )
        with TRACING:
            inner = data.as_source(inner_data, "inner_data")
            outer = data.as_source(outer_data, "outer_data", cycle=True)
            self.pure = PureProblem(
                variables=self.variables,
                owned=owned,
                hyperparameters=self.hyperparameters,
                dtype=dtype,
                dynamics=as_dynamics(dynamics).bind(self.variables),
                inner_objective=Objective(
                    "inner_objective", inner_objective, inner, dtype
                ),
                outer_objective=Objective(
                    "outer_objective", outer_objective, outer, dtype
                ),
                inner_data=inner,
                outer_data=outer,
                initial_map=initial_map(initial_values or [], self.variables),
            )
            # Traces the objectives, and finds the state to keep as it is now.
            _ = self.pure.start
        if isinstance(variables, keras.layers.Layer):
            _warn_of_inference(variables, self.pure.extra_variables)

    def __repr__(self) -> str:
        weights = sum(variable.shape.num_elements() for variable in self.variables)
        names = ", ".join(map(path_of, self.hyperparameters[:_SHOWN]))
        others = len(self.hyperparameters) - _SHOWN
        more = f" and {others} more" if others > 0 else ""
        return (
            f"BilevelProblem({len(self.variables)} variables of {weights:,} weights, "
            f"dynamics={type(self.pure.dynamics.dynamics).__name__}, "
            f"hyperparameters=[{names}{more}])"
        )


def _warn_of_inference(owner: keras.layers.Layer, assigned: list[Variable]) -> None:
    """Warns where what layers do in training is nowhere done in it."""
    changing = {
        layer.name: variables
        for layer in owner._flatten_layers()
        if layer.trainable and (variables := _changed_in_training(layer))
    }
    changed = itertools.chain(*changing.values())
    if changing and all(find(one, assigned) is None for one in changed):
        warn_user(
            f"`inner_objective` calls {', '.join(changing)} in inference mode, though "
            "they do something else in training: nothing is dropped, no statistics "
            "are gathered. Remedy: model(x, training=True), as `fit` does; where it is "
            "meant, freeze them (trainable=False), or filter this warning."
        )


def _changed_in_training(layer: keras.layers.Layer) -> list[Variable]:
    """What a layer assigns in training alone: statistics, and seeds."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [layer.moving_mean, layer.moving_variance]
    seeds = getattr(layer, "seed_generator", None)
    rate = getattr(layer, "rate", getattr(layer, "stddev", None))
    return [seeds.state] if seeds is not None and rate is not None else []


def _refuse_hyperparameters(variables: list[Variable]) -> None:
    for variable in variables:
        require(
            not isinstance(variable, Hyperparameter),
            f"`{path_of(variable)}` is a Hyperparameter, but would be trained as a "
            "weight. Put it into `hyperparameters`, or make it a keras.Variable.",
            variables=[path_of(other) for other in variables],
        )
