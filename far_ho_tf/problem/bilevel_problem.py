"""The bilevel problem: closures and variables turned into pure functions."""

import contextlib
import functools

import keras
import tensorflow as tf

from far_ho_tf import data
from far_ho_tf.checks import require, takes_argument
from far_ho_tf.distribution.replicas import ONE_REPLICA
from far_ho_tf.distribution.strategies import outside_scope
from far_ho_tf.dynamics import as_dynamics
from far_ho_tf.graphs.failures import explained, part_of, told
from far_ho_tf.graphs.functions import TRACING, specs
from far_ho_tf.hyperparameters.hyperparameter import Hyperparameter
from far_ho_tf.problem import inspection
from far_ho_tf.problem.objective import Objective
from far_ho_tf.variables.derivatives import as_slices, dense, filled
from far_ho_tf.variables.identity import (
    assign,
    dtype_of,
    find,
    is_variable,
    path_of,
    read,
)
from far_ho_tf.variables.numbers import is_function, to_tensor
from far_ho_tf.variables.owners import check_variables, common_dtype, trained_variables
from far_ho_tf.variables.state import State, layout
from far_ho_tf.variables.substitution import substituted, tape_sources

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
        inner_objective,
        outer_objective,
        variables,
        dynamics,
        hyperparameters,
        inner_data=None,
        outer_data=None,
        initial_values=None,
    ):
        self.hyperparameters = check_variables("hyperparameters", hyperparameters)
        self.variables, self.owned = trained_variables(variables, self.hyperparameters)
        _refuse_hyperparameters(self.variables)
        self.dtype = common_dtype(self.variables, self.hyperparameters)
        with TRACING:
            self.dynamics = as_dynamics(dynamics).bind(self.variables)
            self.inner_data = data.as_source(inner_data, "inner_data")
            self.outer_data = data.as_source(outer_data, "outer_data", cycle=True)
            self._inner_objective = Objective(
                "inner_objective", inner_objective, self.inner_data, self.dtype
            )
            self._outer_objective = Objective(
                "outer_objective", outer_objective, self.outer_data, self.dtype
            )
            self._labels = {
                "inner_objective": self._inner_objective.label,
                "outer_objective": self._outer_objective.label,
                "dynamics": "`dynamics`",
                "initial_values": "`initial_values`",
            }
            self._initial_map = self._check_initial_values(initial_values or [])
            self._snapshots = read(self.owned)
            # By gradient mode: see `execution_of`.
            self.executions = {}
            # Finds the state that is to be kept as it is now. What is wrong with the
            # problem is said when it is computed.
            with contextlib.suppress(Exception):
                _ = self.start

    def __repr__(self):
        weights = sum(variable.shape.num_elements() for variable in self.variables)
        names = ", ".join(map(path_of, self.hyperparameters[:_SHOWN]))
        others = len(self.hyperparameters) - _SHOWN
        more = f" and {others} more" if others > 0 else ""
        return (
            f"BilevelProblem({len(self.variables)} variables of {weights:,} weights, "
            f"dynamics={type(self.dynamics.dynamics).__name__}, "
            f"hyperparameters=[{names}{more}])"
        )

    # What the compiled loops of every gradient mode are made of.

    @part_of("initial_values")
    def initial_state(self, start, hyperparameters, outer_step):
        """Φ_0: the state before the first step.

        Args:
            start: A `State` with the starting values of variables and extra
                state; its slots are not used.
            hyperparameters: List of tensors.
            outer_step: Scalar int32 tensor, the number of the hyper-iteration.

        Returns:
            A `State`.
        """
        variables = list(start.variables)
        names = self.variables + self.hyperparameters
        with substituted(names, start.variables + hyperparameters):
            for index, source in self._initial_map:
                variables[index] = self._initial_value(index, source, outer_step)
            slots = self.dynamics.initial_slots(variables)
        return State(variables, slots, start.extra)

    def oracle(self, state, hyperparameters, batch):
        """The gradient oracle: what costs the time of a step.

        Args:
            state: A `State`; its slots are not used.
            hyperparameters: List of tensors.
            batch: What the inner objective is called with.

        Returns:
            The gradients ∇_w L (list of dense tensors, and of `Slices` where the
            dynamics tell them apart), the new extra state (list), and the value of
            the inner objective (scalar).
        """
        sources = tape_sources(self.variables, state.variables)
        (found,), extra, value = self.partials(state, hyperparameters, batch, [sources])
        return list(map(as_slices, filled(found, state.variables))), extra, value

    def partials(self, state, hyperparameters, batch, sources):
        """What `oracle` returns, with the gradient in other sources.

        Args:
            sources: Lists of what a tape watches; see `sources`.

        Returns:
            The gradient, structured as the sources, with `None` where the inner
            objective does not read one, and `tf.IndexedSlices` in the place of
            `Slices`; the new extra state; the value.
        """
        names = self.variables + self.extra_variables + self.hyperparameters
        values = state.variables + state.extra + hyperparameters
        with substituted(names, values) as scope:
            gradients, value = self._gradients(sources, batch, scope)
            extra = scope.values_of(self.extra_variables)
        return gradients, extra, value

    @part_of("dynamics")
    def choose(self, state, oracle, hyperparameters, step, batch, replicas):
        """What the dynamics decide by the inner objective; see `Dynamics.choose`.

        Args:
            oracle: What `oracle` returned for the batch.
            replicas: What shares the batch; see `replicas.as_replicas`.
        """
        gradients, _, value = oracle

        def loss(variables):
            moved = state._replace(variables=variables)
            return replicas.mean(
                lambda shard: self.inner_value(moved, hyperparameters, shard), batch
            )

        with substituted(self.hyperparameters, hyperparameters):
            return self.dynamics.choose(loss, value, state.variables, gradients, step)

    @part_of("dynamics")
    def numbers(self, hyperparameters, step):
        """The numeric arguments of the dynamics at a step.

        Returns:
            List of mappings from their names to tensors, one for each variable.
        """
        with substituted(self.hyperparameters, hyperparameters):
            return self.dynamics.numbers_at(step, self.start.variables)

    @part_of("dynamics")
    def update(self, state, gradients, hyperparameters, step, choice):
        """The update rule U: new variables and new slots."""
        with substituted(self.hyperparameters, hyperparameters):
            variables, slots = self.dynamics.update(
                state.variables, gradients, state.slots, step, choice
            )
        return variables, slots

    def step(self, state, hyperparameters, step, batch, replicas=ONE_REPLICA):
        """Φ: one inner step.

        Returns:
            The new state, the inner value before it, and what the dynamics chose.
        """
        oracle = replicas.mean(
            lambda shard: self.oracle(state, hyperparameters, shard), batch
        )
        return self.finish_step(state, oracle, hyperparameters, step, batch, replicas)

    def finish_step(self, state, oracle, hyperparameters, step, batch, replicas):
        """Φ from what `oracle` returned for the batch; returns what `step` does."""
        choice = self.choose(state, oracle, hyperparameters, step, batch, replicas)
        gradients, extra, value = oracle
        variables, slots = self.update(state, gradients, hyperparameters, step, choice)
        return State(variables, slots, extra), value, choice

    @part_of("inner_objective")
    def inner_value(self, state, hyperparameters, batch):
        """The inner objective, a scalar."""
        return self._value(self._inner_objective, state, hyperparameters, batch)

    @part_of("outer_objective")
    def outer_value(self, state, hyperparameters, batch):
        """E(s, λ): the outer objective, a scalar."""
        return self._value(self._outer_objective, state, hyperparameters, batch)

    def _value(self, objective, state, hyperparameters, batch):
        names = self.variables + self.extra_variables + self.hyperparameters
        values = state.variables + state.extra + hyperparameters
        with substituted(names, values):
            return objective(batch)

    def sources(self, state, hyperparameters):
        """What a tape watches of an objective: what it reads and is floating.

        Returns:
            Three lists: of variables, of extra state, of hyperparameters.
        """
        extra = tape_sources(self.extra_variables, state.extra)
        return [
            tape_sources(self.variables, state.variables),
            [source for source in extra if dtype_of(source).is_floating],
            self.hyperparameter_sources(hyperparameters),
        ]

    def hyperparameter_sources(self, hyperparameters):
        """What a tape watches of the hyperparameters: a list of sources."""
        return tape_sources(self.hyperparameters, hyperparameters)

    # What is known before the loops are compiled.

    def keep_rules(self, role, codes):
        """Lets custom gradients of an objective stand for derivatives too.

        Args:
            role: "inner_objective" or "outer_objective".
            codes: Frozen set: the functions, told by their code.
        """
        self._objective(role).kept_rules = codes

    def explained(self):
        """Within, what TensorFlow and Keras raise names the part that it came from."""
        return explained(self._labels)

    @functools.cached_property
    def report(self):
        """The `inspection.Report` on the traced parts of the problem."""
        with self.explained():
            report = outside_scope(inspection.inspect)(self)
        self.dynamics.leave([find(v, self.variables) for v in report.unread])
        return report

    @functools.cached_property
    def extra_variables(self):
        """Variables that the inner objective changes besides the trained."""
        return [
            variable
            for variable in self.report.assigned
            if find(variable, self.variables) is None
        ]

    @functools.cached_property
    def bare_variables(self):
        """The `tf.Variable`s that a run assigns, as it cannot replace them."""
        changed = self.variables + self.extra_variables + self.hyperparameters
        return [v for v in changed if isinstance(v, tf.Variable)]

    @property
    def has_episodes(self):
        """Whether some of the data are functions of (step, episode)."""
        return self.inner_data.has_episodes or self.outer_data.has_episodes

    @functools.cached_property
    def start(self):
        """The `State` that Φ_0 starts from: as the variables were at first."""

        def snapshot(variable):
            index = find(variable, self.owned)
            return read([variable])[0] if index is None else self._snapshots[index]

        return State(
            [snapshot(variable) for variable in self.variables],
            [],
            [snapshot(variable) for variable in self.extra_variables],
        )

    def state_specs(self):
        """A `State` of `tf.TensorSpec`s."""
        slots = self.dynamics.initial_slots(self.start.variables)
        return specs(self.start._replace(slots=slots))

    def check_state(self, state):
        """Refuses a `State` that is not one of this problem."""
        expected = self.state_specs()
        require(
            layout(state) == layout(expected),
            "`state` must be that of a result of this problem.",
            state=layout(state),
            expected=layout(expected),
        )

    def traced_gradients(self, values, hyperparameters, batch):
        """For the pre-flight search: the oracle before extra state is known.

        Returns:
            Gradients (with `None` where the objective does not read the
            variable, and `tf.IndexedSlices`) and the `SubstitutionScope` of the call.
        """
        with self._keras_substituted(values, hyperparameters) as scope:
            sources = tape_sources(self.variables, values)
            (gradients,), _ = self._gradients([sources], batch, scope)
        return gradients, scope

    @part_of("outer_objective")
    def traced_outer_value(self, values, hyperparameters, batch):
        """The same for the outer objective; returns its value."""
        with self._keras_substituted(values, hyperparameters):
            return self._outer_objective(batch)

    def forward_value(self, role, values, hyperparameters, batch):
        """The value of an objective before extra state is known; see `keep_rules`."""
        names = self.variables + self.hyperparameters
        with substituted(names, values + hyperparameters):
            return self._objective(role)(batch)

    def write_back(self, state):
        """Lets the model's own variables hold a state."""
        names = self.variables + self.extra_variables
        assign(names, state.variables + state.extra)

    def _objective(self, role):
        is_inner = role == "inner_objective"
        return self._inner_objective if is_inner else self._outer_objective

    def _keras_substituted(self, values, hyperparameters):
        """Replaces Keras variables; bare tf.Variables are left to be captured."""
        pairs = zip(
            self.variables + self.hyperparameters,
            values + hyperparameters,
            strict=True,
        )
        pairs = [pair for pair in pairs if isinstance(pair[0], keras.Variable)]
        return substituted([v for v, _ in pairs], [value for _, value in pairs])

    @part_of("inner_objective")
    def _gradients(self, sources, batch, scope):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            scope.tape = tape
            value = self._inner_objective(batch)
        flat = tf.nest.flatten(sources)
        gradients = tape.gradient(value, flat + scope.watched)
        scope.reads_again = any(g is not None for g in gradients[len(flat) :])
        variables, *others = tf.nest.pack_sequence_as(sources, gradients[: len(flat)])
        if not self.dynamics.reads_slices:
            variables = [dense(gradient) for gradient in variables]
        return [variables, *tf.nest.map_structure(dense, others)], value

    def _check_initial_values(self, pairs):
        checked = []
        for pair in pairs:
            if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
                raise ValueError(
                    "`initial_values` must be a list of pairs (variable, "
                    f"value). Received the element: {pair!r}"
                )
            variable, value = pair
            index = find(variable, self.variables)
            if index is None:
                name = path_of(variable) if is_variable(variable) else variable
                raise ValueError(
                    "`initial_values` names a variable that is not among the "
                    f"trained `variables`. Received: {name!r}"
                )
            if not callable(value):
                self._initial_value(index, value)  # Says what is wrong with it.
            if any(index == other for other, _ in checked):
                raise ValueError(
                    "`initial_values` must name each variable once. Received: "
                    f"`{path_of(variable)}` twice"
                )
            checked.append((index, value))
        return checked

    def _initial_value(self, index, source, outer_step=None):
        """The value of a source as a tensor that fits its variable."""
        variable = self.variables[index]
        try:
            value = source
            if is_function(source):
                value = source(outer_step) if takes_argument(source) else source()
            if value is not None:
                value = tf.identity(to_tensor(value, self.dtype))
        except Exception as error:
            raise ValueError(
                f"The initial value of `{path_of(variable)}` must be a hyperparameter, "
                "a tensor, an array, or a callable() or callable(step) that gives one. "
                f"Received: {source!r}, which fails with {told(error)}"
            ) from error
        shape = None if value is None else value.shape
        dtype = None if value is None else value.dtype.name
        require(
            shape == variable.shape and dtype == self.dtype.name,
            f"The initial value of `{path_of(variable)}` must have its shape, "
            f"{tuple(variable.shape)}, and dtype, {self.dtype.name}.",
            value=source,
            shape=shape,
            dtype=dtype,
        )
        return value


def _refuse_hyperparameters(variables):
    for variable in variables:
        require(
            not isinstance(variable, Hyperparameter),
            f"`{path_of(variable)}` is a Hyperparameter, but would be trained as a "
            "weight. Put it into `hyperparameters`, or make it a keras.Variable.",
            variables=[path_of(other) for other in variables],
        )
