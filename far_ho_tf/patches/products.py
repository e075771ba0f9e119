"""Cumulative products, and those of segments, right where an element is zero.

TensorFlow divides by the elements, and calls what it gets where these are zero zero:
[1, 0, 0] for the gradient of the last of the products of (0, .85, ...). That is wrong,
and so are the second derivatives of `tf.reduce_prod`, which go through it; of complex
numbers there is no conjugate, besides.
"""

import functools

import tensorflow as tf

from far_ho_tf.patches.registry import REPLACED, derivative_of

# Elements, times those of a segment, up to which products of pairs are made.
_LARGEST = 2**22


@derivative_of("Cumprod")
def _cumulative_product(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None]:
    """∂/∂xₖ = (Π before k) · Sₖ, with Sₖ = ȳₖ + xₖ₊₁ Sₖ₊₁ from the last one on."""
    x, axis = operation.inputs
    exclusive, reverse = (operation.get_attr(a) for a in ("exclusive", "reverse"))
    order = _axis_first(axis, tf.rank(x))
    back = tf.math.invert_permutation(order)
    x, cotangent = (tf.transpose(one, order) for one in (tf.math.conj(x), cotangent))
    if reverse:
        x, cotangent = x[::-1], cotangent[::-1]
    before = tf.math.cumprod(x, exclusive=True)
    if exclusive:  # y₀ is constant, and yₖ₊₁ the product up to k.
        cotangent = tf.concat([cotangent[1:], tf.zeros_like(cotangent[:1])], 0)
    following = tf.concat([x[1:], tf.zeros_like(x[:1])], 0)
    gradient = before * _sums_backwards(cotangent, following)
    return tf.transpose(gradient[::-1] if reverse else gradient, back), None


def _axis_first(axis: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
    axis = tf.cast(axis, tf.int32) % rank
    others = tf.range(rank - 1)
    return tf.concat([[axis], others + tf.cast(others >= axis, tf.int32)], 0)


def _sums_backwards(terms: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Sₖ = termsₖ + factorsₖ · Sₖ₊₁ along the first axis, by doubling distances."""
    length = terms.shape[0]
    count = tf.shape(terms)[0] if length is None else length
    places = tf.reshape(
        tf.range(count), tf.concat([[-1], tf.ones([tf.rank(terms) - 1], tf.int32)], 0)
    )

    def ahead(tensor: tf.Tensor, distance: int | tf.Tensor) -> tf.Tensor:
        return tf.where(
            places + distance < count,
            tf.roll(tensor, -distance, 0),
            tf.zeros_like(tensor),
        )

    def double(
        distance: int | tf.Tensor, terms: tf.Tensor, factors: tf.Tensor
    ) -> tuple[int | tf.Tensor, tf.Tensor, tf.Tensor]:
        terms = terms + factors * ahead(terms, distance)
        return 2 * distance, terms, factors * ahead(factors, distance)

    if length is None:
        _, terms, _ = tf.while_loop(
            lambda distance, *_: distance < count, double, (1, terms, factors)
        )
        return terms
    distance = 1
    while distance < length:
        distance, terms, factors = double(distance, terms, factors)
    return terms


def _segment_product(
    kind: str, operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor | None, ...]:
    """ȳ times the product of all others of a segment.

    TensorFlow divides, or has what is left without zeros, whose second derivatives are
    lost where there are two zeros. Long vectors are left to it.
    """
    data, segments, *others = operation.inputs
    rows = segments.shape.num_elements()
    size = data.shape.num_elements()
    if rows is None or size is None or rows * size > _LARGEST:
        of_data, *none = REPLACED[kind](operation, tf.math.conj(cotangent))
        return tf.math.conj(of_data), *none
    flat = tf.reshape(segments, [rows])
    values = tf.reshape(tf.math.conj(data), [rows, size // max(rows, 1)])
    is_other = (flat[:, tf.newaxis] == flat) & ~tf.cast(tf.eye(rows), tf.bool)
    factors = tf.where(is_other[..., tf.newaxis], values, tf.ones_like(values))
    product = tf.reduce_prod(factors, axis=1)
    kept = tf.reshape(tf.gather(cotangent, tf.maximum(segments, 0)), tf.shape(values))
    counts = flat[:, tf.newaxis] >= 0  # Others are left out.
    of_data = tf.where(counts, kept * product, tf.zeros_like(product))
    return tf.reshape(of_data, tf.shape(data)), None, *[None for _ in others]


for _kind in ("SegmentProd", "UnsortedSegmentProd"):
    derivative_of(_kind)(functools.partial(_segment_product, _kind))
