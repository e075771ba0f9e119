"""Any Keras optimizer as dynamics."""

import functools
import warnings
from collections.abc import Mapping

import keras
import tensorflow as tf

from far_ho_tf.checks import require
from far_ho_tf.dynamics.base import BoundDynamics, Dynamics
from far_ho_tf.dynamics.functional import Number, functional, shares_state
from far_ho_tf.substitution import SubstitutionScope
from far_ho_tf.variables import dtype_of, find, is_function, path_of, read

# Numbers that Keras' optimizers have, `None` where they are not used.
_OPTIONAL = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm")


class KerasDynamics(Dynamics):
    """A Keras optimizer as dynamics, its numbers among the hyperparameters.

    Weights move as `optimizer.apply` moves them: the optimizer's own
    `update_step` is used, with weight decay, clipping, learning-rate schedules
    and averages (EMA) as Keras has them. √0, as of Adam where all gradients of
    a weight were zero so far, has the derivative 0 (`autodiff.safe_sqrt`).

    What Python decides (`nesterov`, `amsgrad`, whether there is momentum) stays
    as the optimizer was made. A float is read when a problem's steps are traced,
    the learning rate, a variable, when they run.

    Args:
        optimizer: A `keras.optimizers.Optimizer`; one that is built already must
            be for the variables of the problem.
        hyperparameters: Mapping from names of its numbers ("learning_rate",
            "beta_1", "weight_decay", "clipnorm", ...) to what takes their place;
            see `Dynamics` for what a numeric argument takes.

    Attributes:
        optimizer: As given.

    Raises:
        ValueError: If the optimizer does something that has no place within a
            differentiated step; the message names the alternative.

    Example:

    >>> import far_ho_tf as far, keras
    >>> rate = far.Hyperparameter(1e-3, name="rate")
    >>> decay = far.Hyperparameter(1e-2, name="decay")
    >>> dynamics = far.KerasDynamics(
    ...     keras.optimizers.AdamW(),
    ...     hyperparameters={"learning_rate": rate, "weight_decay": decay},
    ... )
    >>> dynamics.slot_names
    ()
    """

    def __init__(self, optimizer, hyperparameters=None):
        _check_optimizer(optimizer)
        hyperparameters = {} if hyperparameters is None else hyperparameters
        require(
            isinstance(hyperparameters, Mapping),
            "`hyperparameters` of KerasDynamics must be a mapping from names of the "
            "optimizer's numbers to their values.",
            hyperparameters=hyperparameters,
        )
        for name in hyperparameters:
            require(
                name in numbers_of(optimizer),
                f"{type(optimizer).__name__} has no number `{name}` that could be a "
                f"hyperparameter. It has {numbers_of(optimizer)}.",
                hyperparameters=list(hyperparameters),
            )
        self.optimizer = optimizer
        super().__init__(**hyperparameters)

    def bind(self, variables):
        return _BoundOptimizer(self, variables)

    def label(self, name):
        return f"`{name}` of {type(self.optimizer).__name__}"

    def __repr__(self):
        return f"KerasDynamics({type(self.optimizer).__name__}, {self.numbers!r})"


def as_dynamics(dynamics):
    """Returns `Dynamics`, made of a Keras optimizer where it is one."""
    if isinstance(dynamics, keras.optimizers.Optimizer):
        return KerasDynamics(dynamics)
    require(
        isinstance(dynamics, Dynamics),
        "`dynamics` must be a `far_ho_tf.Dynamics` such as "
        "`far.Momentum(learning_rate=0.1)`, or a Keras optimizer.",
        dynamics=dynamics,
    )
    return dynamics


def numbers_of(optimizer):
    """Names of the numbers of an optimizer that can be hyperparameters."""
    own = [
        name
        for name, value in vars(optimizer).items()
        # What a slot starts from is no part of an update.
        if isinstance(value, float) and not name.startswith(("_", "initial_"))
    ]
    return ["learning_rate", *_OPTIONAL, *(n for n in own if n not in _OPTIONAL)]


class _BoundOptimizer(BoundDynamics):
    """A Keras optimizer for the variables of a problem.

    Its slots are those of the optimizer's variables that an update assigns, found
    by tracing one: a list of tensors, of any shapes.
    """

    def __init__(self, dynamics, variables):
        super().__init__(dynamics, variables)
        self._optimizer = dynamics.optimizer
        # Only Keras' variables can be substituted.
        self._variables = [
            variable if isinstance(variable, keras.Variable) else _stand_in(variable)
            for variable in variables
        ]
        self._check_shared()
        self._build()
        self._slots = self._find_slots()
        self._initial_slots = read(self._slots)

    def slot_paths(self):
        return [slot.path for slot in self._slots]

    def initial_slots(self, variables):
        del variables
        return list(self._initial_slots)

    def update(self, variables, gradients, slots, step, choice):
        del choice
        mapping = list(zip(self._slots, slots, strict=True))
        scope = self._run(variables, gradients, mapping, step)
        moved = scope.values_of(self._variables)
        return self._constrained(moved), scope.values_of(self._slots)

    def _run(self, variables, gradients, slots, step):
        """The optimizer's update, in the scope that holds what it assigned."""
        iterations = self._optimizer.iterations
        mapping = [
            *zip(self._variables, variables, strict=True),
            *slots,
            (iterations, tf.cast(step, iterations.dtype)),
        ]
        with (
            SubstitutionScope(mapping) as scope,
            functional(self._optimizer, *self._numbers(step, variables)),
        ):
            self._optimizer._backend_apply_gradients(gradients, self._variables)
        return scope

    def _numbers(self, step, variables):
        """Names and values of the numbers, as `functional` takes them."""
        names = list(self._sources)
        schedules = {}
        rates = self._sources.get("learning_rate", [None])
        if is_function(rates[0]):  # Adafactor asks whether it is one.
            schedules["_learning_rate"] = rates[0]

        @functools.cache
        def numbers(index):
            values = self._evaluate(index, step, variables[index])
            return {name: Number(value) for name, value in values.items()} | schedules

        return [*names, *schedules], numbers

    def _check_shared(self):
        if not shares_state(self._optimizer):
            return
        for name, sources in self._sources.items():
            require(
                name == "learning_rate" or all(s is sources[0] for s in sources),
                f"{self.dynamics.label(name)} must be one value for all variables, "
                "which share a state in this optimizer.",
                **{name: self.dynamics.numbers[name]},
            )

    def _build(self):
        optimizer = self._optimizer
        if optimizer.built:
            try:
                for variable in self._variables:
                    optimizer._get_variable_index(variable)
            except KeyError as error:
                raise ValueError(
                    f"The optimizer {optimizer.name} has been used for other variables "
                    "than those of this problem. Make one for each problem."
                ) from error
            require(
                int(optimizer.iterations) == 0,
                f"The optimizer {optimizer.name} has made "
                f"{int(optimizer.iterations)} steps already, and its state is not that "
                "of a first step. Make a new one.",
                optimizer=optimizer,
            )
            return
        values = read(self._variables)
        with (
            tf.GradientTape() as tape,
            functional(optimizer, *self._numbers(tf.constant(0), values)),
        ):
            optimizer._use_numbers(0)
            optimizer.build(self._variables)
        read_by_it = {variable.ref() for variable in tape.watched_variables()}
        require(
            not any(v.value.ref() in read_by_it for v in self._variables),
            f"{type(optimizer).__name__} starts from a function of the weights, which "
            "would not be differentiated. Alternative: another optimizer, or a "
            "`far_ho_tf.Dynamics` of your own.",
            optimizer=optimizer,
        )

    def _find_slots(self):
        assigned = []

        def trace(variables, gradients):
            scope = self._run(variables, gradients, [], tf.constant(0))
            assigned.extend(scope.assigned)

        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self._variables]
        name = type(self._optimizer).__name__
        try:
            traced = tf.function(trace, autograph=False)
            graph = traced.get_concrete_function(specs, specs).graph
        except Exception as error:  # Whatever an optimizer of one's own raises.
            raise ValueError(
                f"{name} cannot be used as dynamics: its update fails with {error}"
            ) from error
        slots = [v for v in assigned if find(v, self._variables) is None]
        for slot in slots:
            require(
                dtype_of(slot).is_floating,
                f"{name} keeps a state that is not floating, which cannot be "
                "differentiated.",
                variable=f"{slot.path} of {slot.dtype}",
            )
        if any(op.type == "Sign" for op in graph.get_operations()):
            warnings.warn(
                f"{name} moves weights by a sign, whose derivative is zero: so is each "
                "hypergradient in what reaches the weights through it only, such as "
                "the penalties of the inner objective, or beta_1 of Lion.",
                stacklevel=6,
            )
        return slots


def _stand_in(variable):
    return keras.Variable(
        tf.zeros_like(variable), dtype=variable.dtype.name, name=_keras_name(variable)
    )


def _keras_name(variable):
    return path_of(variable).replace("/", "_")


def _check_optimizer(optimizer):
    """Refuses what would be ignored, and names what does it instead."""
    require(
        isinstance(optimizer, keras.optimizers.Optimizer),
        "KerasDynamics needs a `keras.optimizers.Optimizer`.",
        optimizer=optimizer,
    )
    name, own = type(optimizer).__name__, type(optimizer)
    for method, overridden in (("apply", True), ("update_step", False)):
        same = getattr(own, method) is getattr(keras.optimizers.Optimizer, method)
        require(
            same is overridden,
            f"{name} does not follow Keras' recipe for optimizers, an `update_step` "
            "that `apply` calls for each variable. Alternatives: the optimizer within "
            "it (no loss is scaled here), or numbers by variable or path pattern in "
            "the place of several optimizers.",
            optimizer=optimizer,
        )
    for argument, remedy in (
        ("gradient_accumulation_steps", "make the batches larger by that factor"),
        ("loss_scale_factor", "leave it out: nothing underflows in float32"),
    ):
        require(
            getattr(optimizer, argument) is None,
            f"`{argument}` of {name} is not supported: {remedy}.",
            **{argument: getattr(optimizer, argument)},
        )
    require(
        not optimizer.use_ema or optimizer.ema_overwrite_frequency,
        f"`use_ema` of {name} needs `ema_overwrite_frequency`: the outer objective is "
        "evaluated at the weights, which Keras replaces by their average at the end "
        "of `fit`. ema_overwrite_frequency=num_steps does the same.",
        ema_overwrite_frequency=optimizer.ema_overwrite_frequency,
    )
