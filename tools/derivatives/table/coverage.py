"""Which public functions the table leaves out, so that none is left out in silence."""

import inspect

from derivatives.rows import resolve

NAMESPACES = (
    "keras.layers",
    "keras.activations",
    "keras.losses",
    "keras.ops",
    "keras.ops.image",
    "tf",
    "tf.math",
    "tf.math.special",
    "tf.linalg",
    "tf.signal",
    "tf.image",
    "tf.nn",
    "tf.sparse",
    "tf.ragged",
    "tf.quantization",
)


def without_row(rows):
    """Public names without a row, but those that are known to have no derivative.

    Args:
        rows: Iterable of `Row`s.

    Returns:
        List of names, sorted.
    """
    objects = set()
    for row in rows:
        try:
            objects.add(id(resolve(row.public)))
        except AttributeError:  # A name that another release has not.
            continue
    return sorted(
        name
        for namespace in NAMESPACES
        for name in _public(namespace)
        if name not in WITHOUT_DERIVATIVE and id(resolve(name)) not in objects
    )


def _public(namespace):
    module = resolve(namespace)
    for short in dir(module):
        thing = getattr(module, short, None)
        if short.startswith("_") or not callable(thing):
            continue
        if namespace == "tf" and inspect.isclass(thing):
            continue
        yield f"{namespace}.{short}"


# Base classes, integers, truth values, strings, shapes, files, other backends, what
# draws or decodes, and what has no kernel on a CPU.
_NAMES = {
    "keras.activations": ("deserialize get serialize"),
    "keras.layers": (
        "CategoryEncoding Discretization FlaxLayer HashedCrossing Hashing Input "
        "InputLayer InputSpec IntegerLookup JaxLayer Layer MaxNumBoundingBoxes "
        "StringLookup TFSMLayer TextVectorization TorchModuleWrapper "
        "deserialize serialize"
    ),
    "keras.losses": ("Loss deserialize get serialize"),
    "keras.ops": (
        "all allclose any argmin argpartition bitwise_and bitwise_invert "
        "bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift "
        "bitwise_xor convert_to_numpy convert_to_tensor ctc_decode digitize "
        "dtype empty empty_like equal eye gcd greater_equal is_tensor isclose "
        "isin isinf isnan isneginf isposinf isreal lcm left_shift less "
        "less_equal logical_and logical_not logical_or logical_xor nanargmax "
        "nanargmin ndim nonzero not_equal ones ones_like right_shift "
        "searchsorted shape size tri unravel_index vectorize zeros zeros_like"
    ),
    "tf": (
        "Assert as_dtype as_string assert_equal assert_greater assert_less "
        "assert_rank broadcast_dynamic_shape broadcast_static_shape "
        "check_pinned constant control_dependencies convert_to_tensor "
        "custom_gradient device edit_distance executing_eagerly fingerprint "
        "get_current_name_scope get_logger get_static_value group hessians "
        "histogram_fixed_width_bins import_graph_def init_scope inside_function "
        "is_symbolic_tensor is_tensor load_library load_op_library logical_and "
        "logical_not logical_or make_ndarray make_tensor_proto no_gradient "
        "no_op nondifferentiable_batch_function ones ones_like parallel_stack "
        "print ragged_fill_empty_rows ragged_fill_empty_rows_grad "
        "random_index_shuffle rank register_tensor_conversion_function "
        "required_space_to_batch_paddings shape shape_n size timestamp "
        "type_spec_from_value unravel_index variable_creator_scope zeros "
        "reduce_all reduce_any approx_top_k conv2d_backprop_filter_v2 "
        "conv2d_backprop_input_v2 fftnd ifftnd rfftnd irfftnd"
    ),
    "tf.math": (
        "approx_min_k in_top_k invert_permutation is_finite is_inf is_nan "
        "is_non_decreasing is_strictly_increasing logical_and logical_not "
        "logical_or logical_xor reduce_all reduce_any sobol_sample"
    ),
    "tf.linalg": ("LinearOperator"),
    "tf.signal": ("inverse_stft_window_fn"),
    "tf.image": (
        "ResizeMethod decode_and_crop_jpeg decode_bmp decode_gif decode_image "
        "decode_jpeg decode_jxl decode_png decode_webp encode_jpeg encode_png "
        "extract_jpeg_shape generate_bounding_box_proposals is_jpeg "
        "non_max_suppression non_max_suppression_padded "
        "sample_distorted_bounding_box stateless_sample_distorted_bounding_box"
    ),
    "tf.nn": (
        "RNNCellDeviceWrapper RNNCellDropoutWrapper RNNCellResidualWrapper "
        "all_candidate_sampler approx_min_k collapse_repeated "
        "compute_accidental_hits ctc_beam_search_decoder ctc_greedy_decoder "
        "ctc_unique_labels fixed_unigram_candidate_sampler in_top_k "
        "learned_unigram_candidate_sampler"
    ),
    "tf.sparse": ("SparseTensor cross cross_hashed to_indicator"),
    "tf.ragged": (
        "constant cross cross_hashed row_splits_to_segment_ids "
        "segment_ids_to_row_splits"
    ),
    "tf.quantization": ("dequantize quantize quantized_concat"),
}
WITHOUT_DERIVATIVE = frozenset(
    f"{namespace}.{name}" for namespace in _NAMES for name in _NAMES[namespace].split()
)
