"""A row in a `BilevelProblem`, under default settings, beside a plain run.

Weights w, which begin at zero, and hyperparameters h, which begin at the row's inputs,
go into the function as w + h, so that it is first looked at exactly there; the outer
objective looks at it at h. The plain run is TensorFlow's:
eager, one `tf.GradientTape` (or differences, where TensorFlow's eager kernels have no
derivative), one subtraction. Its outer value is differentiated by differences.
"""

import traceback
import warnings

import numpy as np
import tensorflow as tf

from derivatives.differences import difference, directions
from derivatives.operations import (
    ERROR,
    KINK,
    NOT_FINITE,
    WRONG,
    compared,
    describe,
)

REFUSED, WARNED = "refused", "warned"
STEPS = 2
_FARTHEST = 0.02  # That a weight moves in a step.


class Run:
    """The training run of a case.

    Args:
        case: A `Case`.
        looped: Whether its inner objective goes through a loop.
    """

    def __init__(self, case, looped=False):
        self.case, self.rate = case, 1.0
        self._scalar = case.looped if looped else case.scalar
        weights = np.cos(2.3 * np.arange(case.vector.size)) + 1.4
        self._weights = tf.constant(weights)
        self._by_tape = True
        zeros, start = tf.zeros_like(self._weights), tf.constant(case.vector)
        try:
            first = self._gradient(zeros, start)
        except Exception:  # TensorFlow has none: eager kernels may lack what XLA has.
            self._by_tape = False
            first = self._gradient(zeros, start)
        steepest = np.max(np.abs(first)) if np.all(np.isfinite(first)) else 1.0
        self.rate = _FARTHEST / max(1.0, steepest)

    def inner(self, w, h):
        """The polynomial of what the function gives, and a quadratic."""
        return self._scalar(w + h) + 0.05 * tf.reduce_sum((w - 0.5 * h) ** 2)

    def outer(self, w, h):
        """A quadratic of the weights, and the polynomial of what h alone gives."""
        reached = tf.reduce_sum(self._weights * (w + w**2 / 2)) / self.rate
        return reached + self.case.scalar(h)

    def plain(self, vector):
        """The outer value of an eager run from hyperparameters."""
        h = tf.constant(vector)
        w = tf.zeros_like(h)
        for _ in range(STEPS):
            w = w - self.rate * self._gradient(w, h)
        return float(self.outer(w, h))

    def _gradient(self, w, h):
        """That of the inner objective in w."""
        if self._by_tape:
            with tf.GradientTape() as tape:
                tape.watch(w)
                value = self.inner(w, h)
            return tf.convert_to_tensor(tape.gradient(value, w)).numpy()

        def value(point):
            return float(self.inner(tf.constant(point), h))

        width = self.case.precision.width
        axes = np.eye(self.case.vector.size)
        return np.array(
            [difference(value, np.asarray(w), axis, width).slope for axis in axes]
        )


def check(case, looped=False):
    """The hypergradient in a `BilevelProblem` against differences of a plain run."""
    import far_ho_tf as far

    run = Run(case, looped)
    every = directions(case.vector.size)
    width = case.precision.width
    slopes = [difference(run.plain, case.vector, one, width) for one in every]
    smooth = [place for place, slope in enumerate(slopes) if slope.smooth]
    if not smooth:
        return {"status": KINK}
    w = tf.Variable(tf.zeros_like(tf.constant(case.vector)), name="w")
    h = far.Hyperparameter(case.vector, dtype="float64", name="h")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            problem = far.BilevelProblem(
                lambda: run.inner(w, tf.convert_to_tensor(h)),
                lambda: run.outer(w, tf.convert_to_tensor(h)),
                [w],
                far.GradientDescent(run.rate),
                [h],
            )
            result = far.ReverseHG().compute(problem, STEPS)
        except Exception as error:  # Whatever it raises is what the row gets.
            return _raised(error)
    (hypergradient,) = result.hypergradients
    found = [hypergradient.numpy() @ every[place] for place in smooth]
    expected = [float(slopes[place].slope) for place in smooth]
    verdict = compared(found, expected, 2 * case.precision.tolerance)
    if verdict["status"] == WRONG and len(smooth) < len(every):
        verdict["status"] = KINK
    status = result.status
    verdict |= {"compiler": status.compiler, "reason": status.reason[:200]}
    texts = [str(one.message) for one in told if issubclass(one.category, UserWarning)]
    if texts:
        verdict |= {"warning": texts[0][:300]}
        if verdict["status"] == WRONG:
            verdict["status"] = WARNED
    return verdict


def _raised(error):
    import far_ho_tf as far

    text = describe(error)
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    named = "far_ho_tf" in last and ("Remedy" in str(error) or "holds" in str(error))
    status = REFUSED if named else ERROR
    if isinstance(error, far.NonFiniteError):
        status = NOT_FINITE
    return {
        "status": status,
        "text": f"{type(error).__name__}: {str(error)[:600]}" if named else text,
        "own": "far_ho_tf" in last,
    }
