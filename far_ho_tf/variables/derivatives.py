"""Small tools over TensorFlow's automatic differentiation."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, overload

import tensorflow as tf

from far_ho_tf._types import Gradient, Structure
from far_ho_tf.checks import require
from far_ho_tf.patches.custom_gradients import true_derivatives

# Elements of tensors that are not copied to be looked at together.
_LARGE = 2**18


class Slices(NamedTuple):
    """The gradient of a variable of which rows were read, as of an embedding.

    What a tape gives as `tf.IndexedSlices`, as a structure of tensors. A row that was
    read twice is there twice.

    Attributes:
        values: Tensor, for each reading the derivative by what was read.
        rows: Integer vector, the rows; `None` where they do not matter.
    """

    values: tf.Tensor
    rows: tf.Tensor | None


@overload
def dense(tensor: Gradient) -> tf.Tensor: ...


@overload
def dense(tensor: None) -> None: ...


def dense(tensor: Gradient | None) -> tf.Tensor | None:
    """Turns the `IndexedSlices` of an embedding or gather into a tensor.

    A gradient that is to be differentiated again must be dense.
    """
    if isinstance(tensor, tf.IndexedSlices):
        return tf.convert_to_tensor(tensor)
    return tensor


@overload
def as_slices(gradient: Gradient) -> tf.Tensor | Slices: ...


@overload
def as_slices(gradient: None) -> None: ...


def as_slices(gradient: Gradient | None) -> tf.Tensor | Slices | None:
    """The `Slices` of an embedding or gather; other gradients as they are."""
    if isinstance(gradient, tf.IndexedSlices):
        return Slices(gradient.values, gradient.indices)
    return gradient


def values_of(
    gradients: Iterable[tf.Tensor | tf.IndexedSlices | Slices | None],
) -> list[Any]:
    """A list of gradients without the rows of those that have some: tensors."""
    kinds = Slices, tf.IndexedSlices
    return [g.values if isinstance(g, kinds) else g for g in gradients]


def vjp(
    tape: tf.GradientTape, targets: Structure, sources: Structure, cotangents: Structure
) -> Structure:
    """Vector–Jacobian products of what `tape` recorded.

    Args:
        tape: A `tf.GradientTape` that watched `sources`.
        targets: Structure of tensors.
        sources: Structure of tensors or `tf.Variable`s.
        cotangents: Structured as `targets`; a `None` stands for zero.

    Returns:
        Structured as `sources`: dense tensors, or `None` where no target with
        a cotangent depends on the source.
    """
    pairs = [
        (target, cotangent)
        for target, cotangent in zip(
            tf.nest.flatten(targets), tf.nest.flatten(cotangents), strict=True
        )
        if cotangent is not None
    ]
    flat = tf.nest.flatten(sources)
    gradients = [dense(gradient) for gradient in _gradients(tape, pairs, flat)]
    for gradient, source in zip(gradients, flat, strict=True):
        if gradient is not None:
            gradient.set_shape(source.shape)  # Which a gather's does not know.
    return tf.nest.pack_sequence_as(sources, gradients)


def _gradients(
    tape: tf.GradientTape,
    pairs: Sequence[tuple[tf.Tensor, tf.Tensor]],
    sources: Sequence[tf.Tensor | tf.Variable],
) -> Sequence[Gradient | None]:
    """What a tape gives for pairs (target, cotangent): a list with `None`."""
    if not (pairs and sources):
        return [None] * len(sources)
    targets, cotangents = zip(*pairs, strict=True)
    with true_derivatives():
        return tape.gradient(list(targets), sources, output_gradients=list(cotangents))


class Linearization(NamedTuple):
    """A function's value at a point, and its derivative there.

    Attributes:
        targets: The value, a structure of floating tensors.
        jvp: Callable(tangents) -> tangents of the targets. It takes one
            tensor per source, structured as the sources are.
        depends: Structured as the sources: does a target depend on it?
    """

    targets: Structure
    jvp: Callable[[Structure], Structure]
    depends: Structure


def linearize(function: Callable[[], Structure], sources: Structure) -> Linearization:
    """Jacobian–vector products by transposing a vector–Jacobian product.

    uᵀJ is linear in u; its derivative in u along v is J v. The function runs
    once, and only what is linear in the tangents remains to be run for each.
    Unlike `tf.autodiff.ForwardAccumulator` this goes through `tf.while_loop`.

    Args:
        function: Callable() -> structure of floating tensors.
        sources: Structure of tensors or `tf.Variable`s that it reads.

    Returns:
        A `Linearization`.

    Source: the double-vjp trick, J. Townsend 2017 ("A new trick for
    calculating Jacobian vector products").
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(sources)
            targets = function()
        # Any would do, as the map is linear, but some of TensorFlow's linear maps
        # take a logarithm on the way, which has no derivative at zero.
        cotangents = tf.nest.map_structure(tf.ones_like, targets)
        outer.watch(cotangents)
        transposed = vjp(inner, targets, sources, cotangents)
    flags = [gradient is not None for gradient in tf.nest.flatten(transposed)]
    depends = tf.nest.pack_sequence_as(sources, flags)
    return Linearization(targets, _transposed(outer, transposed, cotangents), depends)


def _transposed(
    tape: tf.GradientTape, gradients: Structure, sources: Structure
) -> Callable[[Structure], Structure]:
    """Callable(tangents) -> ∂⟨gradients, tangents⟩/∂sources, zeros for `None`."""
    flat = tf.nest.flatten(gradients)

    def jvp(tangents: Structure) -> Structure:
        pairs = _given(flat, tangents)
        gradients, tangents = zip(*pairs, strict=True) if pairs else ((), ())
        return zeros_for_none(vjp(tape, gradients, sources, tangents), sources)

    return jvp


def _given(
    gradients: Sequence[tf.Tensor | None], tangents: Structure
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Pairs of a list of gradients, without `None`, and a structure of tangents."""
    pairs = zip(gradients, tf.nest.flatten(tangents), strict=True)
    return [pair for pair in pairs if pair[0] is not None]  # pyright: ignore[reportReturnType]


def linearize_gradient(
    function: Callable[[], Structure], sources: Sequence[Structure]
) -> Linearization:
    """`linearize` of a scalar's gradient, by the symmetry of second derivatives.

    The derivative of ∇_w L along (ẇ, λ̇) is ∇_w ⟨∇L, (ẇ, λ̇)⟩: one transposition
    where `linearize` has two. That of a loop is another loop, over all that the first
    one kept, which takes long to trace, and XLA compiles no third one. Not for custom
    gradients, whose derivatives need not be symmetric.

    Where rows of w are read, once, ⟨∇L, (ẇ, λ̇)⟩ depends on w by these readings alone,
    and its derivative by them is that of ∇L by them.

    Args:
        function: Callable() -> ∇L, structured as the sources, with `None` where L
            does not depend on one; for some of w `tf.IndexedSlices` of one reading.
        sources: List of structures of tensors or `tf.Variable`s; the first is a list,
            w.

    Returns:
        A `Linearization` of ∇_w L, of the values of `tf.IndexedSlices`. What it says of
        w itself is whether L depends on it.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)
        gradients = function()
        partials = tf.nest.map_structure(dense, gradients)
    targets = values_of(filled(gradients[0], sources[0]))
    depends = tf.nest.map_structure(lambda partial: partial is not None, partials)
    # What L depends on its gradient in w need not: L may be a sum.
    flags = tf.nest.flatten(depends[1:])
    read = [s for s, f in zip(tf.nest.flatten(sources[1:]), flags, strict=True) if f]
    found = iter(vjp(tape, targets, read, tf.nest.map_structure(tf.ones_like, targets)))
    flags = [flag and next(found) is not None for flag in flags]
    depends = [depends[0], *tf.nest.pack_sequence_as(depends[1:], flags)]

    def jvp(tangents: Structure) -> Structure:
        pairs = _given(tf.nest.flatten(partials), tangents)
        found = zip(gradients[0], _gradients(tape, pairs, sources[0]), strict=True)
        return zeros_for_none([_by_reading(*pair) for pair in found], targets)

    return Linearization(targets, jvp, depends)


def add(
    first: Iterable[tf.Tensor | None], second: Iterable[tf.Tensor | None]
) -> list[tf.Tensor | None]:
    """Adds two lists of tensors, where `None` stands for zero."""
    return [
        b if a is None else a if b is None else a + b
        for a, b in zip(first, second, strict=True)
    ]


def filled(
    gradients: Sequence[Gradient | None], like: Sequence[tf.Tensor]
) -> list[Gradient]:
    """Gradients as a tape gives them, zeros for `None`, with the shapes that are known.

    Args:
        gradients: List of tensors, `tf.IndexedSlices` and `None`.
        like: List of tensors.
    """
    for gradient, other in zip(gradients, like, strict=True):
        if isinstance(gradient, tf.IndexedSlices):
            gradient.values.set_shape([None, *other.shape[1:]])
    return [
        gradient
        if isinstance(gradient, tf.IndexedSlices)
        else zeros_for_none(gradient, other)
        for gradient, other in zip(gradients, like, strict=True)
    ]


def _by_reading(gradient: Gradient, derivative: Gradient | None) -> tf.Tensor | None:
    """A derivative by w, or by what was read of it where the gradient is."""
    if not isinstance(gradient, tf.IndexedSlices) or derivative is None:
        return dense(derivative)
    require(
        isinstance(derivative, tf.IndexedSlices),
        "Rows of a variable that are read once have a derivative by that reading.",
        derivative=derivative,
    )
    return derivative.values


def with_values(
    gradients: Iterable[tf.Tensor | Slices], values: Iterable[tf.Tensor]
) -> list[tf.Tensor | Slices]:
    """`Slices` of other values, or cotangents, where gradients are such; else these."""
    return [
        Slices(value, None) if isinstance(gradient, Slices) else value
        for gradient, value in zip(gradients, values, strict=True)
    ]


def map_slices(function: Callable[[Slices], Any], structure: Structure) -> Structure:
    """A structure of lists and tuples with what a function makes of its `Slices`."""
    if isinstance(structure, Slices):
        return function(structure)
    if not isinstance(structure, (list, tuple)):
        return structure
    parts = [map_slices(function, part) for part in structure]
    is_named = hasattr(structure, "_fields")
    return type(structure)(*parts) if is_named else type(structure)(parts)


def zeros_for_none(tensors: Structure, like: Structure) -> Structure:
    """Replaces each `None` by zeros of the shape and dtype of its `like`."""

    def fill(tensor: tf.Tensor | None, other: tf.Tensor) -> tf.Tensor:
        if tensor is None:
            return tf.zeros_like(other)
        tensor.set_shape(other.shape)
        return tensor

    flat = [
        fill(tensor, other)
        for tensor, other in zip(
            tf.nest.flatten(tensors), tf.nest.flatten(like), strict=True
        )
    ]
    return tf.nest.pack_sequence_as(like, flat)


def floating(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """Those tensors of a list that have a floating dtype."""
    return [tensor for tensor in tensors if tensor.dtype.is_floating]


def all_finite(structure: Structure) -> tf.Tensor:
    """A scalar boolean: is every floating element of `structure` finite?"""
    groups = {}
    for tensor in floating(tf.nest.flatten(structure)):
        size = tensor.shape.num_elements()
        large = size is None or size > _LARGE
        # Each group is a kernel more to compile.
        groups.setdefault(id(tensor) if large else tensor.dtype, []).append(tensor)
    flags = []
    for tensors in groups.values():
        flat = [tf.reshape(tensor, [-1]) for tensor in tensors]
        joined = tf.concat(flat, axis=0) if len(flat) > 1 else flat[0]
        flags.append(tf.reduce_all(tf.math.is_finite(joined)))
    return tf.reduce_all(tf.stack(flags)) if flags else tf.constant(True)
