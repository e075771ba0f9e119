"""Checks of one function at one point, in each of the ways that it is differentiated.

What is differentiated is a polynomial of all numbers that the function gives, so that
no part of its derivatives drops out. First derivatives are compared with differences of
values, second ones with differences of the first ones that TensorFlow computes eagerly:
a training run goes by those, right or wrong.
"""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from derivatives.differences import SMALL, difference, directions, relative_error

RIGHT, WRONG, NOT_FINITE, KINK = "right", "WRONG", "not finite", "kink"
ERROR, OTHER = "error", "other"
TURNS = 2  # Of the loop, whose sum is that of 1 and 2 times the value.


class Precision(NamedTuple):
    """The step of differences, and errors up to which numbers are taken as equal."""

    width: float
    tolerance: float
    same: float


DOUBLE = Precision(1e-4, 1e-4, 1e-6)
SINGLE = Precision(5e-3, 5e-3, 1e-3)


class Case:
    """A row at a point, as a function of one vector of real numbers.

    Args:
        function: Callable(*tensors) -> structure of tensors.
        arrays: List of float64 or complex128 arrays.
        single: Whether it works in float32.
    """

    def __init__(self, function, arrays, single=False):
        self._function = function
        self._shapes = [(np.shape(one), np.iscomplexobj(one)) for one in arrays]
        self.vector = np.concatenate(
            [
                np.ravel(part)
                for one in map(np.asarray, arrays)
                for part in ((one.real, one.imag) if np.iscomplexobj(one) else (one,))
            ]
        ).astype(np.float64)
        self._function(*self._inputs(tf.constant(self.vector)))  # It may make layers.
        outputs = self.outputs(tf.constant(self.vector))
        single = single or any(
            o.dtype in (tf.float32, tf.complex64, tf.float16) for o in outputs
        )
        self.precision = SINGLE if single else DOUBLE

    def outputs(self, vector):
        """The floating tensors that the function gives."""
        if tf.executing_eagerly():
            tf.random.set_seed(0)  # What it draws is the same each time.
        found = tf.nest.flatten(self._function(*self._inputs(vector)), True)
        found = [tf.convert_to_tensor(one) for one in found]
        return [o for o in found if o.dtype.is_floating or o.dtype.is_complex]

    def scalar(self, vector):
        """A polynomial of all numbers that the function gives."""
        total = tf.zeros((), tf.float64)
        for place, output in enumerate(self.outputs(vector)):
            parts = (output,)
            if output.dtype.is_complex:
                parts = (tf.math.real(output), tf.math.imag(output))
            for which, part in enumerate(parts):
                numbers = tf.reshape(tf.cast(part, tf.float64), [-1])
                total += _polynomial(numbers, 10 * place + which)
        return total

    def gradient(self, vector):
        """That of the scalar, as a training run takes it."""
        with tf.GradientTape() as tape:
            tape.watch(vector)
            value = self.scalar(vector)
        return _dense(tape.gradient(value, vector), vector)

    def looped(self, vector):
        """The scalar three times, summed up in a loop."""

        def turn(count, vector, total):
            factor = tf.cast(count + 1, tf.float64)
            return count + 1, vector, total + factor * self.scalar(vector)

        start = (tf.constant(0), vector, tf.zeros((), tf.float64))
        return tf.while_loop(
            lambda count, *_: count < TURNS, turn, start, maximum_iterations=TURNS
        )[2]

    def _inputs(self, vector):
        inputs, place = [], 0
        for shape, is_complex in self._shapes:
            size = int(np.prod(shape))
            parts = []
            for _ in range(1 + is_complex):
                parts.append(tf.reshape(vector[place : place + size], shape))
                place += size
            inputs.append(tf.complex(*parts) if is_complex else parts[0])
        return inputs


def _polynomial(numbers, salt):
    """Σ c (y + 0.3 y²) with coefficients that do not depend on the length."""
    if numbers.shape[0] is None:
        places = tf.cast(tf.range(tf.size(numbers)), tf.float64)
        weights = 0.4 + tf.sin(1.7 * places + 0.9 * salt) ** 2
    else:
        weights = 0.4 + np.sin(1.7 * np.arange(numbers.shape[0]) + 0.9 * salt) ** 2
    return tf.reduce_sum(weights * (numbers + 0.3 * numbers * numbers))


def _dense(gradient, like):
    if gradient is None:
        return tf.zeros_like(like)
    return tf.convert_to_tensor(gradient)


# Ways to the second derivative along a direction: callables of a function that gives
# the first one, a vector and the direction, to the first derivative and the second.


def by_tapes(gradient, vector, direction):
    """Reverse over reverse, by nothing but TensorFlow."""
    with tf.GradientTape() as tape:
        tape.watch(vector)
        first = gradient(vector)
    second = tape.gradient(first, vector, output_gradients=direction)
    return first, _dense(second, vector)


def by_reverse(gradient, vector, direction):
    """Reverse over reverse, as far_ho_tf does it."""
    from far_ho_tf.variables.derivatives import vjp

    with tf.GradientTape() as tape:
        tape.watch(vector)
        first = gradient(vector)
    return first, _dense(vjp(tape, first, vector, direction), vector)


def by_forward(gradient, vector, direction):
    """Forward over reverse, as far_ho_tf does it."""
    from far_ho_tf.variables.derivatives import linearize

    linearization = linearize(lambda: gradient(vector), vector)
    return linearization.targets, linearization.jvp(direction)


def check(case, ways, compiled=()):
    """Compares a case with differences.

    Args:
        case: A `Case`.
        ways: {name: callable(gradient, vector, direction)}, to a second derivative.
        compiled: Those of them that are taken under XLA, too.

    Returns:
        {name of a check: {"status", "error", "found", "expected"}}.
    """
    truth = _Truth(case)
    results = {"first": truth.first(), "differences": truth.second()}
    straight = {"outputs": case.outputs} | _parts(case, case.gradient, ways)
    results |= _compare("graph", _run(case, straight), truth)
    if compiled:
        kept = {name: straight[name] for name in ("outputs", "first", *compiled)}
        results |= _compare("xla", _run(case, kept, jit_compile=True), truth)
    return results


def check_loop(case):
    """The same for a loop, by reverse mode.

    Forward mode goes through no loop by itself: far_ho_tf takes another way there.
    """
    truth = _Truth(case)
    results = {"first": truth.first(), "differences": truth.second()}

    def looped(vector):
        with tf.GradientTape() as tape:
            tape.watch(vector)
            value = case.looped(vector)
        return _dense(tape.gradient(value, vector), vector)

    parts = _parts(case, looped, {"reverse": by_reverse})
    return results | _compare("loop", _run(case, parts), truth)


class _Truth:
    """What differences tell of a case."""

    def __init__(self, case):
        self._case, self.precision = case, case.precision
        self.directions = directions(case.vector.size)
        self.outputs = [o.numpy() for o in case.outputs(tf.constant(case.vector))]
        self.value = float(case.scalar(tf.constant(case.vector)))
        self._slopes = [
            difference(self._value, case.vector, one, self.precision.width)
            for one in self.directions
        ]
        try:
            self.gradient = self._gradient(case.vector)
            self.failure = None
        except Exception as error:  # Whatever TensorFlow raises is a result.
            self.gradient, self.failure = None, describe(error)
        self.product = None

    def first(self):
        """Eager first derivatives against differences of the value."""
        if self.failure:
            return {"status": ERROR, "text": self.failure}
        if not np.isfinite(self.value):
            return {"status": KINK, "text": "outside of the domain"}
        places = [i for i, slope in enumerate(self._slopes) if slope.smooth]
        found = [self.gradient @ self.directions[i] for i in places]
        expected = [float(self._slopes[i].slope) for i in places]
        result = compared(found, expected, self.precision.tolerance)
        if len(places) == len(self._slopes) and (
            result["status"] == RIGHT or self._is_linear()
        ):
            return result
        # A subgradient need not fit along one smooth direction.
        return {"status": KINK}

    def _is_linear(self):
        """Whether derivatives along two directions add up; a median's do not."""
        pair = self.directions[:2]
        joint = difference(
            self._value, self._case.vector, sum(pair), self.precision.width
        )
        apart = sum(float(slope.slope) for slope in self._slopes[:2])
        error = relative_error(joint.slope, apart)
        return joint.smooth and error <= 10 * self.precision.tolerance

    def second(self):
        """Differences of the eager first derivative; sets `product`."""
        if self.failure:
            return {"status": ERROR}
        found = difference(
            self._gradient, self._case.vector, self.directions[0], self.precision.width
        )
        if not found.smooth or not self._slopes[0].smooth:
            return {"status": KINK}
        self.product = found.slope
        return {"status": RIGHT, "expected": found.slope.tolist()}

    def _value(self, vector):
        return float(self._case.scalar(tf.constant(vector)))

    def _gradient(self, vector):
        return self._case.gradient(tf.constant(vector)).numpy()


def compared(found, expected, tolerance, verdict=WRONG):
    """The result of a comparison."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    # Rounding of float32 is not small beside what is.
    error = relative_error(found, expected, max(SMALL, 2 * tolerance))
    status = RIGHT if error <= tolerance else verdict
    if not np.all(np.isfinite(found)):
        status = NOT_FINITE
    result = {"status": status, "error": error}
    if status != RIGHT:
        result |= {
            "found": np.ravel(found)[:6].tolist(),
            "expected": np.ravel(expected)[:6].tolist(),
        }
    return result


def describe(error):
    """Class and first line of an exception."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _parts(case, gradient, ways):
    direction = tf.constant(directions(case.vector.size)[0])
    return {"first": gradient} | {
        name: functools.partial(way, gradient, direction=direction)
        for name, way in ways.items()
    }


def _run(case, parts, jit_compile=False):
    """{name: what it gives, or a sentence about the error}.

    All at once, as tracing takes most of the time; one by one where that fails.
    """
    vector = tf.constant(case.vector)

    def together(vector):
        found = {name: part(vector) for name, part in parts.items() if name != "first"}
        return found | {"first": found["reverse"][0]}

    try:
        return _numpy(_function(together, jit_compile)(vector))
    except Exception:  # One of them raises something.
        found = {}
    for name, part in parts.items():
        try:
            found[name] = _numpy(_function(part, jit_compile)(vector))
        except Exception as error:
            found[name] = describe(error)
            if "Detected unsupported operations" in found[name]:
                return dict.fromkeys(parts, found[name])  # The others read it, too.
    return found


def _function(function, jit_compile):
    return tf.function(function, jit_compile=jit_compile, autograph=False)


def _numpy(structure):
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), structure)


def _compare(name, parts, truth):
    """Results of one kind of graph."""
    factor = TURNS * (TURNS + 1) / 2 if name == "loop" else 1
    results = {}
    for way, found in parts.items():
        key = f"{name} {way}"
        if isinstance(found, str):
            results[key] = {"status": ERROR, "text": found}
        elif way == "outputs":
            results[key] = _same_outputs(found, truth)
        elif way == "first" and truth.gradient is not None:
            if np.all(np.isfinite(truth.gradient)):
                # Also at kinks, where another choice makes another training run.
                expected = factor * truth.gradient
                tolerance = 10 * truth.precision.same
                results[key] = compared(found, expected, tolerance, OTHER)
        elif way != "first" and truth.product is not None:
            expected = factor * truth.product
            results[key] = compared(found[1], expected, truth.precision.tolerance)
    return results


def _same_outputs(found, truth):
    if [np.shape(one) for one in found] != [np.shape(o) for o in truth.outputs]:
        return {"status": OTHER, "text": "another shape"}
    worst = {"status": RIGHT, "error": 0.0}
    for one, other in zip(found, truth.outputs, strict=True):
        pair = [_real(one), _real(other)]
        same_holes = np.isfinite(pair[0]) == np.isfinite(pair[1])
        if not np.all(same_holes):
            return {
                "status": OTHER,
                "found": np.ravel(pair[0])[:6].tolist(),
                "expected": np.ravel(pair[1])[:6].tolist(),
            }
        pair = [np.where(np.isfinite(p), p, 0) for p in pair]
        result = compared(*pair, truth.precision.same, OTHER)
        if result["error"] > worst["error"]:
            worst = result
    return worst


def _real(array):
    array = np.asarray(array)
    if np.iscomplexobj(array):
        return np.stack([array.real, array.imag], -1).astype(float)
    return array.astype(float)
