"""Whether objectives may be split over replicas: are they means over examples?"""

import contextlib
import warnings
from typing import NamedTuple

import ml_dtypes
import numpy as np
import tensorflow as tf

from far_ho_tf.autodiff import once_traced, vjp, zeros_for_none
from far_ho_tf.checks import essence
from far_ho_tf.data.shares import Shares
from far_ho_tf.replicas import OnShares
from far_ho_tf.variables import path_of

# Examples of a replica that are looked at.
_EXAMPLES = 16
# How much more than `Distances.noise` rounding may make.
_NOISE = 10
# Of what TensorFlow says where shapes do not go together.
_SHAPES_DIFFER = ("imensions must", "imension must", "ncompatible shapes")
# State that Keras' BatchNormalization assigns.
_MOVING = ("/moving_mean", "/moving_variance")


class Distances(NamedTuple):
    """How far what is computed on a batch is from a mean of that on its shares.

    Vectors with an element for each tensor: the value, the gradients by variables and
    hyperparameters, and the state that is assigned.

    Attributes:
        mean, total: From the shares' weighted mean, and from their sum.
        size: Of what was added up.
        noise: How much it moves with the rounding of variables and hyperparameters.
    """

    mean: np.ndarray
    total: np.ndarray
    size: np.ndarray
    noise: np.ndarray


class Division:
    """Compares a problem's objectives on batches with the mean of those on shares.

    Their values, their gradients and the state that the inner one assigns are
    compared, on a few of the batch's examples: before the first run at the state that
    it begins with, and beside it, where nothing is equal by chance; after the first,
    second, fourth, eighth, ... run at the state that it ended with.

    Args:
        problem: A `BilevelProblem`.
        strategy: A `tf.distribute.Strategy` with several replicas.
    """

    def __init__(self, problem, strategy):
        self._problem = problem
        self._count = strategy.num_replicas_in_sync
        self._compare = once_traced(self._compared)
        self._eps = None
        self._runs = 0

    def before(self, inputs, num_steps):
        """Checks what a first run begins with.

        Args:
            inputs: `Inputs` of tensors.
            num_steps: Integer, the steps of the run.

        Raises:
            ValueError: If an objective is no mean over the examples of a batch, but
                for what BatchNormalization does.
        """
        if self._runs:
            return
        self._check(inputs, 0.0)
        beside = _beside(self._problem, _at_last(inputs, num_steps))
        try:
            self._check(beside, 0.5)
        except tf.errors.InvalidArgumentError:  # The user's own checks of the data.
            self._check(beside, 0.0)

    def after(self, inputs, num_steps, state):
        """Checks what a run ended with; see `before`."""
        self._runs += 1
        if self._runs & (self._runs - 1) == 0:
            self._check(_at_last(inputs, num_steps)._replace(start=state), 0.0)

    def _check(self, inputs, slope):
        slope = tf.constant(slope, self._problem.dtype)
        if self._eps is None:
            traced = self._compare.get_concrete_function(inputs, slope, slope)
            self._eps = tf.constant(_coarsest(traced.graph), slope.dtype)
        inner, outer = self._compare(inputs, slope, self._eps)
        problem = self._problem
        names = [path_of(v) for v in problem.variables + problem.hyperparameters]
        extra = [path_of(v) for v in problem.extra_variables]
        for role, tensors, assigned in (
            ("inner_objective", inner, extra),
            ("outer_objective", outer, []),
        ):
            found = Distances(*(part.numpy() for part in tensors))
            allowed = self._allowed(found, slice(1, len(names) + 1))
            _Verdict(role, found, allowed, names, assigned).raise_or_warn()

    def _allowed(self, found, gradients):
        """How far each tensor may be from the mean; which of them are gradients."""
        own = float(ml_dtypes.finfo(self._problem.dtype.as_numpy_dtype).eps)
        # Where a gradient vanishes, what the rounding of others leaves in it counts.
        sizes, noise = found.size[gradients], found.noise.copy()
        largest = np.max(sizes[np.isfinite(sizes)], initial=0.0)
        noise[gradients] = np.maximum(noise[gradients], float(self._eps) * largest)
        return np.sqrt(own) * found.size + _NOISE * noise

    def _compared(self, inputs, slope, eps):
        """`Distances` of the inner and the outer objective."""
        problem = self._problem
        shaken = _shaken(inputs, eps)

        def inner(inputs, batch):
            _, extra, value = problem.oracle(
                inputs.start, inputs.hyperparameters, batch
            )
            return value, extra

        def outer(inputs, batch):
            values = inputs.start, inputs.hyperparameters
            return problem.outer_value(*values, batch), []

        def compare(role, objective, source, prepared, step):
            batch = _sloped(
                _some(source.batch(prepared, step), self._count), self._count, slope
            )

            def measured(function, inputs, argument):
                return _measured(problem, function, inputs, argument)

            def on_batch(inputs):
                return measured(lambda b: objective(inputs, b), inputs, batch)

            whole, moved = on_batch(inputs), on_batch(shaken)
            shares = Shares(batch, self._count)
            if shares.size is None:
                return Distances(*[tf.zeros([len(whole)], tf.float64)] * 4)
            program = OnShares(lambda b: objective(inputs, b), batch, shares)
            parts = [shares.part(index) for index in range(self._count)]
            with _rows_explained(role, self._count):
                rows = [measured(program, inputs, part) for part in parts]
            return _distances(whole, moved, rows, [part.weight for part in parts])

        return (
            compare(
                "inner_objective",
                *(inner, problem.inner_data, inputs.inner, inputs.first_step),
            ),
            compare(
                "outer_objective",
                *(outer, problem.outer_data, inputs.outer, inputs.outer_step),
            ),
        )


def _measured(problem, function, inputs, batch):
    """List of tensors: the value, the gradients, and the assigned state."""
    variables, _, hyperparameters = problem.sources(
        inputs.start, inputs.hyperparameters
    )
    sources = variables + hyperparameters
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        value, extra = function(batch)
    gradients = vjp(tape, value, sources, tf.ones_like(value))
    return [value, *zeros_for_none(gradients, sources), *extra]


def _distances(whole, moved, rows, weights):
    """`Distances`, of tensors on the batch and of those on its shares.

    Args:
        whole, moved: Lists of tensors, on the batch: the second of shaken inputs.
        rows: Lists of tensors, of each share.
        weights: List of scalars, the shares' parts of the examples.
    """
    # A share without examples has one that does not count.
    weights = tf.stack(weights)

    def vector(tensor):
        return tf.reshape(tf.cast(tensor, tf.float64), [-1])

    columns = []
    for tensors in zip(whole, moved, *rows, strict=True):
        one, other, *parts = map(vector, tensors)
        parts = tf.where(weights[:, None] > 0, tf.stack(parts), tf.zeros_like(parts))
        mean = tf.linalg.matvec(parts, weights, transpose_a=True)
        sizes = tf.reduce_sum(tf.norm(parts, axis=1))
        columns.append(
            [
                tf.norm(one - mean),
                tf.norm(one - tf.reduce_sum(parts, axis=0)),
                tf.maximum(tf.norm(one), sizes),
                tf.norm(one - other),
            ]
        )
    return Distances(*map(tf.stack, zip(*columns, strict=True)))


class _Verdict:
    """What `Distances` say of an objective.

    What is not finite passes: it is for the run to say so.
    """

    def __init__(self, role, found, allowed, names, assigned):
        self._role = role
        self._found = found
        self._labels = ["its value", *(f"its gradient by `{name}`" for name in names)]
        self._labels += [f"the state `{name}`, which it assigns," for name in assigned]
        self._wrong = found.mean > allowed
        normalizes = [name.endswith(_MOVING) for name in assigned]
        self._normalizes = any(normalizes)
        number = len(found.mean) - len(assigned)
        # Of BatchNormalization's statistics the mean is taken, as documented.
        self._wrong[number:] &= ~np.array(normalizes, bool)
        self._state_wrong = bool(np.any(self._wrong[number:]))
        # A constant term hides a sum in the value, but not in the gradients.
        gradients = slice(1, number) if np.any(self._wrong[1:number]) else slice(1)
        wrong = self._wrong[gradients]
        off_mean, off_total = (
            np.linalg.norm(one[gradients][wrong]) for one in (found.mean, found.total)
        )
        self._is_sum = off_total < 0.5 * off_mean

    def raise_or_warn(self):
        if not np.any(self._wrong):
            return
        must = f"`{self._role}` must be a mean over the examples of a batch"
        if self._state_wrong:
            raise ValueError(
                f"`{self._role}` assigns state, of which the mean is taken, to be "
                "split over replicas: it must be a mean over the examples of a batch "
                f"then, and no count of them. {self._received()}"
            )
        if self._is_sum:
            raise ValueError(
                f"{must}, to be split over replicas: it is a sum, or divided by "
                "another number than that of the examples that it is given. Use "
                f"tf.reduce_mean. {self._received()}"
            )
        if not self._normalizes:
            raise ValueError(
                f"{must} (and terms that do not depend on the batch), to be split over "
                "replicas. Losses that compare examples with each other, or divide by "
                "the sum of their weights, are not, nor is a function, such as a root, "
                "of a mean; nor what draws random numbers by other means than Keras' "
                f"layers and `keras.random`. {self._received()}"
            )
        warnings.warn(
            f"`{self._role}` normalizes by batches (BatchNormalization), or is in "
            "another way no mean over the examples of a batch: each replica takes its "
            "share by itself, so that the run is another than on one. "
            f"{self._received()}",
            stacklevel=5,
        )

    def _received(self):
        found = self._found
        relative = np.where(self._wrong, found.mean / np.maximum(found.size, 1e-300), 0)
        row = int(np.argmax(relative))
        return (
            f"Received: {self._labels[row]} on a batch differs by {relative[row]:.1e}, "
            "relatively, from the weighted mean of those on the replicas' shares"
        )


@contextlib.contextmanager
def _rows_explained(role, count):
    """Within, what TensorFlow says of shapes gets a hint at their likely cause."""
    try:
        yield
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        if not any(words in str(error) for words in _SHAPES_DIFFER):
            raise
        raise ValueError(
            f"`{role}` cannot be evaluated on one of {count} shares of a batch, though "
            "on the whole batch. What holds a row for each example (weights, labels, "
            "noise) must be part of the data, or be read by tf.gather with indices "
            "that are; what does not (seeds) must have no dimensions, or not be part "
            f"of the data. Received: {essence(error)}"
        ) from error


def _coarsest(graph):
    """The largest rounding, relatively, of the floating dtypes in a graph."""
    definition = graph.as_graph_def()
    nodes = [
        *definition.node,
        *(n for f in definition.library.function for n in f.node_def),
    ]
    types = {node.attr["T"].type for node in nodes} - {0}
    dtypes = map(tf.as_dtype, types)
    return max(
        float(ml_dtypes.finfo(dtype.as_numpy_dtype).eps)
        for dtype in dtypes
        if dtype.is_floating
    )


def _at_last(inputs, num_steps):
    """`Inputs` of the last step: its batch may hold what the first does not."""
    return inputs._replace(first_step=inputs.first_step + (num_steps - 1))


def _mapped(inputs, move):
    """`Inputs` with moved variables and hyperparameters."""
    return inputs._replace(
        start=inputs.start._replace(variables=list(map(move, inputs.start.variables))),
        hyperparameters=list(map(move, inputs.hyperparameters)),
    )


def _shaken(inputs, eps):
    """`Inputs` moved by rounding: each element up or down."""

    def move(tensor):
        shape = tf.shape(tensor)
        up = tf.random.stateless_uniform(shape, [1, 2], 0, 2, tf.int32)
        signs = tf.cast(2 * up - 1, tensor.dtype)
        return tensor + tf.cast(eps, tensor.dtype) * signs * tf.maximum(
            tf.abs(tensor), tf.ones_like(tensor)
        )

    return _mapped(inputs, move)


def _beside(problem, inputs):
    """`Inputs` of another point, where nothing is equal by chance.

    With weights of zero or equal hyperparameters all examples have the same loss, and
    much is a mean that is none elsewhere.
    """
    random = np.random.RandomState(0)

    def move(tensor):
        array = tensor.numpy().astype(np.float64)
        array *= 1 + 0.1 * random.rand(*array.shape)
        array += 0.01 * random.rand(*array.shape)
        return tf.cast(tf.constant(array), tensor.dtype)

    moved = _mapped(inputs, move)
    constraints = [getattr(h, "constraint", None) for h in problem.hyperparameters]
    return moved._replace(
        hyperparameters=[
            value if constraint is None else constraint(value)
            for value, constraint in zip(
                moved.hyperparameters, constraints, strict=True
            )
        ]
    )


def _some(batch, count):
    """Examples spread over the batch, so many that their shares differ in size."""
    size, most = Shares(batch, count).size, _EXAMPLES * count + 1
    if not isinstance(size, int) or size <= most:
        return batch
    rows = np.linspace(0, size - 1, most).astype(np.int32)
    return tf.nest.map_structure(
        lambda tensor: tf.gather(tensor, rows) if tensor.shape.rank else tensor, batch
    )


def _sloped(batch, count, slope):
    """A batch whose floating tensors fall off by `slope` to the last example.

    So no two shares are alike, and weights that are all one are so no more.
    """
    size = Shares(batch, count).size
    if size is None:
        return batch
    ramp = 1 - slope * tf.linspace(tf.zeros_like(slope), tf.ones_like(slope), size)

    def scaled(tensor):
        if not (tensor.shape.rank and tensor.dtype.is_floating):
            return tensor
        shape = [-1] + [1] * (tensor.shape.rank - 1)
        return tensor * tf.cast(tf.reshape(ramp, shape), tensor.dtype)

    return tf.nest.map_structure(scaled, batch)
