"""Rows of the table: a function of floating tensors, and points to look at it.

Nothing is made before a row is asked for it, so that a process that checks twenty rows
builds twenty layers and not all of them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Interval(NamedTuple):
    """Numbers that a function takes; those around zero are left to other points."""

    low: float
    high: float

    def numbers(self, shape, salt=0):
        """Numbers that are the same in each process, and whichever rows there are."""
        size = int(np.prod(shape))
        random = np.random.RandomState(100 * size + salt)
        numbers = random.uniform(self.low, self.high, size)
        return (numbers + (self.low < 0) * 0.1 * np.sign(numbers)).reshape(shape)

    def middle(self):
        return 0.4 if self.low <= 0.4 <= self.high else (self.low + self.high) / 2


REAL, UNIT = Interval(-1.3, 1.3), Interval(-0.7, 0.7)
POSITIVE, PROBABILITY = Interval(0.4, 2.2), Interval(0.15, 0.85)
ABOVE_ONE = Interval(1.2, 3.0)


class Row(NamedTuple):
    """A function, and points at which it is looked at.

    Attributes:
        name: The function's public name and, in parentheses, how it is called.
        points: Tuple of names.
        make: Callable() -> (function, {name of a point: list of arrays}).
        single: Whether it works in float32 inside, whatever it is given.
    """

    name: str
    points: tuple
    make: Callable
    single: bool = False

    @property
    def public(self):
        """The name without what is in parentheses."""
        return self.name.split(" (")[0]


def resolve(name):
    """The object of a name such as `tf.math.sin`."""
    first, *rest = name.split(".")
    return functools.reduce(getattr, rest, {"tf": tf, "keras": keras}[first])


SMOOTH = ("smooth",)
ZEROS = ("smooth", "zeros")
TIES = ("smooth", "zeros", "ties")
EACH = ("smooth", "a zero", "zeros", "ties")
COMPLEX = ("complex", "complex zeros")


def row(name, *shapes, call=None, domain=REAL, points=SMOOTH, single=False, **keywords):
    """A row for a public function.

    Args:
        name: Public name, perhaps with a case in parentheses.
        *shapes: A shape for each of its floating tensors.
        call: Callable(*tensors); `None` calls it by its name with the keywords.
        domain: An `Interval`, or one for each tensor.
        points: Tuple of names of points, as `point` knows them.
        single: See `Row`.
        **keywords: What is given besides.
    """
    domains = domain if isinstance(domain, list) else [domain] * len(shapes)

    def make():
        function = call
        if function is None:
            function = functools.partial(resolve(name.split(" (")[0]), **keywords)
        given = {one: point(one, shapes, domains) for one in points}
        return (in_single(function) if single else function), given

    return Row(name, points, make, single)


def rows(prefix, names, *shapes, **options):
    """A row for each of several names, divided by spaces, of one module."""
    return [row(f"{prefix}.{name}", *shapes, **options) for name in names.split()]


def point(name, shapes, domains):
    """The inputs at a point: "smooth", "zeros", "a zero", "ties", "complex" ..."""
    smooth = [
        domain.numbers(shape, salt)
        for salt, (shape, domain) in enumerate(zip(shapes, domains, strict=True))
    ]
    if name.startswith("complex"):
        imaginary = [REAL.numbers(shape, 10 + i) for i, shape in enumerate(shapes)]
        smooth = [a + 0.7j * b for a, b in zip(smooth, imaginary, strict=True)]
        name = name.removeprefix("complex").strip() or "smooth"
    if name == "zeros":
        return [np.zeros_like(one) for one in smooth]
    if name == "ties":
        return [
            np.full_like(one, domain.middle())
            for one, domain in zip(smooth, domains, strict=True)
        ]
    if name == "a zero":
        for one in smooth:
            one.reshape(-1)[0] = 0
    elif name == "identity":
        return [np.broadcast_to(np.eye(a.shape[-1]), a.shape) for a in smooth]
    elif name != "smooth":
        raise ValueError(f"No such point. Received: {name}")
    return smooth


def in_single(function):
    """The function on float32 or complex64."""

    def single(*tensors):
        return function(
            *(
                tf.cast(one, tf.complex64 if one.dtype.is_complex else tf.float32)
                for one in tensors
            )
        )

    return single
