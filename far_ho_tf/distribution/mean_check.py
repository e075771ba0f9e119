"""Whether objectives may be split over replicas: are they means over examples?"""

from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

from far_ho_tf.checks import warn_user
from far_ho_tf.distribution.comparison import Distances, compare_shards, mapped
from far_ho_tf.distribution.interfaces import Inputs, Problem
from far_ho_tf.graphs.functions import once_traced
from far_ho_tf.graphs.search import coarsest
from far_ho_tf.patches.kernels import kernel_rewrites
from far_ho_tf.variables.identity import path_of
from far_ho_tf.variables.state import State

# How much more than `Distances.noise` rounding may make.
_NOISE = 10
# State that Keras' BatchNormalization assigns.
_MOVING = ("/moving_mean", "/moving_variance")


class MeanCheck:
    """Compares a problem's objectives on batches with the mean of those on shards.

    Their values, their gradients and the state that the inner one assigns are
    compared, on a few of the batch's examples: before the first run at the state that
    it begins with, and beside it, where nothing is equal by chance; after the first,
    second, fourth, eighth, ... run at the state that it ended with.

    Args:
        problem: A `PureProblem`.
        strategy: A `tf.distribute.Strategy` with several replicas.
    """

    def __init__(self, problem: Problem, strategy: tf.distribute.Strategy) -> None:
        self._problem = problem
        self._count = strategy.num_replicas_in_sync
        self._compare = once_traced(self._trace)
        self._eps = None
        self._runs = 0
        self._warned = []

    def before(self, inputs: Inputs, num_steps: int) -> None:
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

    def after(self, inputs: Inputs, num_steps: int, state: State) -> None:
        """Checks what a run ended with; see `before`."""
        self._runs += 1
        if self._runs & (self._runs - 1) == 0:
            self._check(_at_last(inputs, num_steps)._replace(start=state), 0.0)

    def _trace(self, *arguments: Any) -> tuple[Distances, Distances]:
        with kernel_rewrites(xla=False):
            return compare_shards(self._problem, self._count, *arguments)

    def _check(self, inputs: Inputs, slope: float | tf.Tensor) -> None:
        slope = tf.constant(slope, self._problem.dtype)
        if self._eps is None:
            traced = self._compare.get_concrete_function(inputs, slope, slope)
            self._eps = tf.constant(coarsest(traced.graph), slope.dtype)
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
            verdict = _Verdict(role, found, allowed, names, assigned)
            if verdict.refusal is not None:
                raise ValueError(verdict.refusal)
            if verdict.warning is not None and role not in self._warned:
                self._warned.append(role)
                warn_user(verdict.warning)

    def _allowed(self, found: Distances, gradients: slice) -> np.ndarray:
        """How far each tensor may be from the mean; which of them are gradients."""
        own = float(ml_dtypes.finfo(self._problem.dtype.as_numpy_dtype).eps)
        # Where a gradient vanishes, what the rounding of others leaves in it counts.
        sizes, noise = found.size[gradients], found.noise.copy()
        largest = np.max(sizes[np.isfinite(sizes)], initial=0.0)
        noise[gradients] = np.maximum(noise[gradients], float(self._eps) * largest)  # pyright: ignore[reportArgumentType]
        return np.sqrt(own) * found.size + _NOISE * noise


class _Verdict:
    """What `Distances` say of an objective.

    What is not finite passes: it is for the run to say so.

    Attributes:
        refusal: Why it is no mean, or `None`.
        warning: That it is none, where BatchNormalization may be the cause, or `None`.
    """

    def __init__(
        self,
        role: str,
        found: Distances,
        allowed: np.ndarray,
        names: list[str],
        assigned: list[str],
    ) -> None:
        self._role = role
        self._found = found
        self._labels = ["its value", *(f"its gradient by `{name}`" for name in names)]
        self._labels += [f"the state `{name}`, which it assigns," for name in assigned]
        self._wrong = found.mean > allowed
        normalizes = [name.endswith(_MOVING) for name in assigned]
        number = len(found.mean) - len(assigned)
        # Of BatchNormalization's statistics the mean is taken, as documented.
        self._wrong[number:] &= ~np.array(normalizes, bool)
        state_wrong = np.any(self._wrong[number:])
        # A constant term hides a sum in the value, but not in the gradients.
        gradients = slice(1, number) if np.any(self._wrong[1:number]) else slice(1)
        wrong = self._wrong[gradients]
        off_mean, off_total = (
            np.linalg.norm(one[gradients][wrong]) for one in (found.mean, found.total)
        )
        self.refusal = self.warning = None
        if state_wrong:
            self.refusal = self._assigns_no_mean()
        elif off_total < 0.5 * off_mean:
            self.refusal = self._is_sum()
        elif np.any(self._wrong) and not any(normalizes):
            self.refusal = self._is_no_mean()
        elif np.any(self._wrong):
            self.warning = self._may_normalize()

    def _assigns_no_mean(self) -> str:
        return (
            f"`{self._role}` assigns state, of which the mean is taken, to be split "
            "over replicas: it must be a mean over the examples of a batch then, and "
            f"no count of them. {self._received()}"
        )

    def _is_sum(self) -> str:
        return (
            f"`{self._role}` must be a mean over the examples of a batch, to be split "
            "over replicas: it is a sum, or divided by another number than that of the "
            f"examples that it is given. Use tf.reduce_mean. {self._received()}"
        )

    def _is_no_mean(self) -> str:
        return (
            f"`{self._role}` must be a mean over the examples of a batch (and terms "
            "that do not depend on the batch), to be split over replicas. Losses that "
            "compare examples with each other, or divide by the sum of their weights, "
            "are not, nor is a function, such as a root, of a mean; nor what draws "
            "random numbers by other means than Keras' layers and `keras.random`. "
            f"{self._received()}"
        )

    def _may_normalize(self) -> str:
        return (
            f"`{self._role}` normalizes by batches (BatchNormalization), or is in "
            "another way no mean over the examples of a batch: each replica takes its "
            "shard by itself, so that the run is another than on one. "
            f"{self._received()}"
        )

    def _received(self) -> str:
        found = self._found
        relative = np.where(self._wrong, found.mean / np.maximum(found.size, 1e-300), 0)
        row = int(np.argmax(relative))
        return (
            f"Received: {self._labels[row]} on a batch differs by {relative[row]:.1e}, "
            "relatively, from the weighted mean of those on the replicas' shards"
        )


def _at_last(inputs: Inputs, num_steps: int) -> Inputs:
    """`Inputs` of the last step: its batch may hold what the first does not."""
    return inputs._replace(first_step=inputs.first_step + (num_steps - 1))


def _beside(problem: Problem, inputs: Inputs) -> Inputs:
    """`Inputs` of another point, where nothing is equal by chance.

    With weights of zero or equal hyperparameters all examples have the same loss, and
    much is a mean that is none elsewhere.
    """
    random = np.random.RandomState(0)

    def move(tensor: tf.Tensor) -> tf.Tensor:
        array = tensor.numpy().astype(np.float64)
        array *= 1 + 0.1 * random.rand(*array.shape)
        array += 0.01 * random.rand(*array.shape)
        return tf.cast(tf.constant(array), tensor.dtype)

    moved = mapped(inputs, move)
    constraints = [getattr(h, "constraint", None) for h in problem.hyperparameters]
    return moved._replace(
        hyperparameters=[
            value if constraint is None else constraint(value)
            for value, constraint in zip(
                moved.hyperparameters, constraints, strict=True
            )
        ]
    )
