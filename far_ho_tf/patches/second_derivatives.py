"""Second derivatives that TensorFlow lacks, or leaves out in silence.

Most are those of linear operations: what takes a gradient back is linear in it, too,
and its own derivative is the operation itself.
"""

from collections.abc import Callable

import tensorflow as tf

from far_ho_tf.patches.custom_gradients import true_gradient
from far_ho_tf.patches.registry import REPLACED, derivative_of


@derivative_of("SoftsignGrad")
def _softsign(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    gradient, x = operation.inputs
    size = 1 + tf.abs(x)
    slope = cotangent / tf.square(size)
    return slope, -2 * tf.sign(x) * gradient * slope / size


@derivative_of("ResizeBicubicGrad", "ResizeBilinearGrad", "ResizeNearestNeighborGrad")
def _resize(operation: tf.Operation, cotangent: tf.Tensor) -> tuple[tf.Tensor, None]:
    if operation.inputs is None:
        raise LookupError(f"Tapes do not keep what {operation.type} read.")
    return _resized(operation, cotangent, operation.inputs[0]), None


@derivative_of("ResizeBilinear")
def _resize_bilinear(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None]:
    """TensorFlow's, with its own derivative, which a tape keeps no size for."""

    @true_gradient
    def back(
        cotangent: tf.Tensor,
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        gradient, _ = REPLACED["ResizeBilinear"](operation, cotangent)
        return gradient, lambda again: _resized(operation, again, cotangent)

    return back(cotangent), None


def _resized(operation: tf.Operation, images: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Images in the size of others, as an operation or its gradient would do it."""
    resize = getattr(tf.raw_ops, operation.type.removesuffix("Grad"))
    options = ("align_corners", "half_pixel_centers")
    return resize(
        images=images,
        size=tf.shape(like)[1:3],
        **{name: operation.get_attr(name) for name in options},
    )


@derivative_of("ScaleAndTranslateGrad")
def _scale_and_translate(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None, None, None]:
    gradient, _, scale, translation = operation.inputs
    of_gradient = tf.raw_ops.ScaleAndTranslate(
        images=cotangent,
        size=tf.shape(gradient)[1:3],
        scale=scale,
        translation=translation,
        kernel_type=operation.get_attr("kernel_type"),
        antialias=operation.get_attr("antialias"),
    )
    return of_gradient, None, None, None


@derivative_of("CropAndResizeGradImage")
def _crop_and_resize(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor | None, None, None]:
    gradient, boxes, indices, _ = operation.inputs
    crop = {"image": cotangent, "boxes": boxes, "box_ind": indices}
    method = operation.get_attr("method")
    of_gradient = tf.raw_ops.CropAndResize(
        crop_size=tf.shape(gradient)[1:3], method=method, **crop
    )
    of_boxes = None
    if method == b"bilinear":
        of_boxes = tf.raw_ops.CropAndResizeGradBoxes(grads=gradient, **crop)
    return of_gradient, of_boxes, None, None


@derivative_of(
    "SparseSegmentMeanGrad", "SparseSegmentSqrtNGrad", "SparseSegmentSumGrad"
)
def _sparse_segment(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[tf.Tensor, None, None, None]:
    indices = operation.inputs[1]
    return _segments(operation, cotangent, indices), None, None, None


@derivative_of(
    "SparseSegmentMeanGradV2", "SparseSegmentSqrtNGradV2", "SparseSegmentSumGradV2"
)
def _sparse_segment_of_rows(
    operation: tf.Operation, cotangent: tf.Tensor, _: tf.Tensor
) -> tuple[tf.Tensor, None, None, None]:
    """Of those rows alone that were read, in their order."""
    indices = operation.inputs[1]
    rows = tf.sort(tf.unique(indices)[0])
    places = tf.searchsorted(rows, indices)
    return _segments(operation, cotangent, places), None, None, None


def _segments(
    operation: tf.Operation, data: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """What the gradient of an operation on segments is the gradient of."""
    gradient, _, segments, _ = operation.inputs
    kind = operation.type.removesuffix("V2").removesuffix("Grad")
    return getattr(tf.raw_ops, f"{kind}WithNumSegments")(
        data=data,
        indices=indices,
        segment_ids=segments,
        num_segments=tf.shape(gradient)[0],
    )


@derivative_of("MaxPoolGradWithArgmax")
def _max_pool_with_argmax(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tuple[None, tf.Tensor, None]:
    _, gradient, places = operation.inputs
    count = 1 if operation.get_attr("include_batch_in_index") else tf.shape(places)[0]
    flat = tf.reshape(cotangent, [count, -1])
    chosen = tf.gather(flat, tf.reshape(places, [count, -1]), batch_dims=1)
    return None, tf.reshape(chosen, tf.shape(gradient)), None


@derivative_of("LRN")
def _local_response_normalization(
    operation: tf.Operation, cotangent: tf.Tensor
) -> tf.Tensor:
    """Of y = x s^−β, with s = bias + α W x² and W the sums over a window."""
    (x,) = operation.inputs
    radius, bias, alpha, beta = (
        operation.get_attr(name) for name in ("depth_radius", "bias", "alpha", "beta")
    )
    depth = tf.shape(x)[-1]
    radius = tf.minimum(radius, depth - 1)
    window = tf.linalg.band_part(tf.ones([depth, depth], x.dtype), radius, radius)
    sums = bias + alpha * tf.tensordot(tf.square(x), window, 1)
    through = tf.tensordot(cotangent * x * sums ** (-beta - 1), window, 1)
    return cotangent * sums**-beta - 2 * alpha * beta * x * through
