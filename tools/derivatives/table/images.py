"""Images: colours, sizes, places, and comparisons."""

import keras
import tensorflow as tf

from derivatives.rows import PROBABILITY, ZEROS, row

_IMAGE = (1, 2, 3, 3)
_BLANK = ("smooth", "zeros", "ties")
_SEED = (1, 2)


def table():
    return [*_tensorflow(), *_sizes(), *_drawn(), *_keras()]


def _row(name, *shapes, **options):
    return row(name, *shapes, **({"domain": PROBABILITY} | options))


def _tensorflow():
    i = tf.image
    return [
        _row(
            "tf.image.adjust_brightness",
            _IMAGE,
            (),
            call=i.adjust_brightness,
            single=True,
        ),
        _row("tf.image.adjust_contrast", _IMAGE, contrast_factor=1.5, single=True),
        _row(
            "tf.image.adjust_contrast (learned)",
            _IMAGE,
            (),
            single=True,
            call=i.adjust_contrast,
        ),
        _row("tf.image.adjust_gamma", _IMAGE, gamma=1.3, single=True),
        _row(
            "tf.image.adjust_gamma (learned)",
            _IMAGE,
            (),
            single=True,
            call=i.adjust_gamma,
        ),
        _row("tf.image.adjust_hue", (2, 2, 3), delta=0.1, single=True),
        _row(
            "tf.image.adjust_hue (learned)",
            (2, 2, 3),
            (),
            call=lambda x, d: i.adjust_hue(x, d / 4),
            single=True,
        ),
        _row(
            "tf.image.adjust_saturation", (2, 2, 3), saturation_factor=1.3, single=True
        ),
        _row(
            "tf.image.adjust_saturation (learned)",
            (2, 2, 3),
            (),
            single=True,
            call=i.adjust_saturation,
        ),
        _row("tf.image.central_crop", (4, 4, 1), central_fraction=0.5),
        _row("tf.image.convert_image_dtype", _IMAGE, dtype=tf.float32),
        _row(
            "tf.image.crop_and_resize",
            (1, 3, 3, 1),
            single=True,
            call=lambda x: i.crop_and_resize(x, [[0.1, 0.1, 0.8, 0.9]], [0], [2, 2]),
        ),
        _row(
            "tf.image.crop_and_resize (boxes)",
            (1, 3, 3, 1),
            (4,),
            single=True,
            call=lambda x, b: i.crop_and_resize(
                x, [b * [0.2, 0.2, 0.2, 0.2] + [0.1, 0.1, 0.6, 0.6]], [0], [2, 2]
            ),
        ),
        _row(
            "tf.image.crop_and_resize (nearest)",
            (1, 3, 3, 1),
            single=True,
            call=lambda x: i.crop_and_resize(
                x, [[0.1, 0.1, 0.8, 0.9]], [0], [2, 2], method="nearest"
            ),
        ),
        _row(
            "tf.image.crop_to_bounding_box",
            (3, 3, 1),
            call=lambda x: i.crop_to_bounding_box(x, 0, 1, 2, 2),
        ),
        _row(
            "tf.image.pad_to_bounding_box",
            (2, 2, 1),
            call=lambda x: i.pad_to_bounding_box(x, 1, 0, 4, 3),
        ),
        _row(
            "tf.image.extract_glimpse",
            (1, 4, 4, 1),
            single=True,
            call=lambda x: i.extract_glimpse(x, [2, 2], [[0.1, 0.2]]),
        ),
        _row(
            "tf.image.extract_patches",
            (1, 3, 3, 1),
            sizes=[1, 2, 2, 1],
            strides=[1, 1, 1, 1],
            rates=[1, 1, 1, 1],
            padding="VALID",
        ),
        _row("tf.image.flip_left_right", _IMAGE),
        _row("tf.image.flip_up_down", _IMAGE),
        _row("tf.image.rot90", _IMAGE),
        _row("tf.image.transpose", _IMAGE),
        _row("tf.image.grayscale_to_rgb", (2, 2, 1)),
        _row("tf.image.rgb_to_grayscale", (2, 2, 3), single=True),
        _row("tf.image.rgb_to_hsv", (1, 2, 3), points=_BLANK),
        _row("tf.image.hsv_to_rgb", (1, 2, 3), points=_BLANK),
        _row("tf.image.rgb_to_yiq", (1, 2, 3)),
        _row("tf.image.rgb_to_yuv", (1, 2, 3)),
        _row("tf.image.yiq_to_rgb", (1, 2, 3)),
        _row("tf.image.yuv_to_rgb", (1, 2, 3)),
        _row("tf.image.image_gradients", (1, 3, 3, 1)),
        _row("tf.image.sobel_edges", (1, 3, 3, 1), points=_BLANK),
        _row("tf.image.total_variation", (1, 3, 3, 1), points=_BLANK),
        _row(
            "tf.image.per_image_standardization", (3, 3, 1), points=_BLANK, single=True
        ),
        _row("tf.image.psnr", (2, 2, 1), (2, 2, 1), max_val=1.0, single=True),
        _row(
            "tf.image.ssim",
            (4, 4, 1),
            (4, 4, 1),
            max_val=1.0,
            filter_size=3,
            single=True,
        ),
        _row(
            "tf.image.ssim (equal)",
            (4, 4, 1),
            single=True,
            call=lambda x: i.ssim(x, x + 0.0, 1.0, filter_size=3),
            points=ZEROS,
        ),
        _row(
            "tf.image.ssim_multiscale",
            (8, 8, 1),
            (8, 8, 1),
            single=True,
            call=lambda x, y: i.ssim_multiscale(
                x, y, 1.0, power_factors=(0.5, 0.5), filter_size=3
            ),
        ),
        _row(
            "tf.image.draw_bounding_boxes",
            (1, 3, 3, 1),
            single=True,
            call=lambda x: i.draw_bounding_boxes(x, [[[0.1, 0.1, 0.8, 0.8]]], [[0.5]]),
        ),
        _row(
            "tf.image.non_max_suppression_overlaps",
            (2,),
            single=True,
            call=lambda x: tf.gather(
                x,
                i.non_max_suppression_overlaps(
                    tf.constant([[1.0, 0.1], [0.1, 1]]), x, 2
                ),
            ),
        ),
        _row(
            "tf.image.non_max_suppression_with_scores",
            (2, 4),
            (2,),
            single=True,
            call=lambda b, s: i.non_max_suppression_with_scores(
                b + tf.constant([0.0, 0, 1, 1]), s, 2, soft_nms_sigma=0.5
            )[1],
        ),
        _row(
            "tf.image.combined_non_max_suppression",
            (1, 2, 1, 4),
            (1, 2, 1),
            single=True,
            call=lambda b, s: i.combined_non_max_suppression(b, s, 2, 2)[0],
        ),
        row(
            "tf.raw_ops.ImageProjectiveTransformV3",
            (1, 3, 3, 1),
            single=True,
            call=_projected,
        ),
    ]


def _projected(x):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=tf.constant([[1.0, 0.1, 0.2, -0.1, 1, 0.1, 0, 0]]),
        output_shape=[3, 3],
        fill_value=0.0,
        interpolation="BILINEAR",
    )


def _sizes():
    methods = (
        *("area", "bicubic", "bilinear", "gaussian", "lanczos3", "lanczos5"),
        *("mitchellcubic", "nearest"),
    )
    return [
        *(
            _row(
                f"tf.image.resize ({method})",
                (1, 2, 2, 1),
                size=[3, 3],
                method=method,
                single=True,
            )
            for method in methods
        ),
        *(
            _row(
                f"tf.image.resize ({method}, antialias)",
                (1, 4, 4, 1),
                size=[2, 2],
                method=method,
                antialias=True,
                single=True,
            )
            for method in ("bilinear", "bicubic", "lanczos3")
        ),
        _row(
            "tf.image.resize_with_crop_or_pad",
            (2, 2, 1),
            target_height=3,
            target_width=1,
        ),
        _row(
            "tf.image.resize_with_pad",
            (1, 2, 2, 1),
            target_height=3,
            target_width=4,
            single=True,
        ),
    ]


def _drawn():
    i = tf.image
    image = (2, 2, 3)
    return [
        _row(
            "tf.image.stateless_random_brightness",
            image,
            max_delta=0.2,
            seed=_SEED,
            single=True,
        ),
        _row(
            "tf.image.stateless_random_contrast",
            image,
            lower=0.5,
            upper=1.5,
            seed=_SEED,
            single=True,
        ),
        _row("tf.image.stateless_random_crop", (3, 3, 1), size=[2, 2, 1], seed=_SEED),
        _row("tf.image.stateless_random_flip_left_right", image, seed=_SEED),
        _row("tf.image.stateless_random_flip_up_down", image, seed=_SEED),
        _row(
            "tf.image.stateless_random_hue",
            image,
            max_delta=0.2,
            seed=_SEED,
            single=True,
        ),
        _row(
            "tf.image.stateless_random_saturation",
            image,
            lower=0.5,
            upper=1.5,
            seed=_SEED,
            single=True,
        ),
        _row(
            "tf.image.stateless_random_jpeg_quality",
            (4, 4, 3),
            single=True,
            call=lambda x: i.stateless_random_jpeg_quality(x, 70, 90, _SEED),
        ),
        _row("tf.image.random_brightness", image, max_delta=0.2, seed=1, single=True),
        _row(
            "tf.image.random_contrast", image, lower=0.5, upper=1.5, seed=1, single=True
        ),
        _row("tf.image.random_flip_left_right", image, seed=1),
        _row("tf.image.random_flip_up_down", image, seed=1),
        _row("tf.image.random_hue", image, max_delta=0.2, seed=1, single=True),
        _row(
            "tf.image.random_saturation",
            image,
            lower=0.5,
            upper=1.5,
            seed=1,
            single=True,
        ),
        _row("tf.image.random_crop", (3, 3, 1), size=[2, 2, 1], seed=1),
        _row(
            "tf.image.random_jpeg_quality",
            (4, 4, 3),
            single=True,
            call=lambda x: i.random_jpeg_quality(x, 70, 90, 1),
        ),
        _row("tf.image.adjust_jpeg_quality", (4, 4, 3), jpeg_quality=80, single=True),
    ]


def _keras():
    k = keras.ops.image
    corners = tf.constant([[[0.0, 0], [0, 3], [3, 0], [3, 3]]])
    return [
        _row(
            "keras.ops.image.affine_transform",
            (1, 3, 3, 1),
            call=lambda x: k.affine_transform(
                x, tf.constant([[1.0, 0.1, 0.2, -0.1, 1, 0.1, 0, 0]])
            ),
            single=True,
        ),
        _row(
            "keras.ops.image.affine_transform (learned)",
            (1, 3, 3, 1),
            (1, 8),
            single=True,
            call=lambda x, t: k.affine_transform(
                x,
                0.1 * t * [[1.0, 1, 1, 1, 1, 1, 0, 0]]
                + [[1.0, 0.1, 0.1, 0.1, 1, 0.1, 0, 0]],
            ),
        ),
        _row(
            "keras.ops.image.affine_transform (reflected, learned)",
            (1, 3, 3, 1),
            (1, 8),
            single=True,
            call=lambda x, t: k.affine_transform(
                x,
                0.1 * t * [[1.0, 1, 1, 1, 1, 1, 0, 0]]
                + [[1.0, 0.1, 0.1, 0.1, 1, 0.1, 0, 0]],
                fill_mode="reflect",
            ),
        ),
        _row(
            "keras.ops.image.perspective_transform",
            (1, 4, 4, 1),
            single=True,
            call=lambda x: k.perspective_transform(x, corners + 0.2, corners),
        ),
        _row(
            "keras.ops.image.perspective_transform (learned)",
            (1, 4, 4, 1),
            (1, 4, 2),
            single=True,
            call=lambda x, p: k.perspective_transform(x, corners + 0.3 * p, corners),
        ),
        _row(
            "keras.ops.image.crop_images",
            (1, 3, 3, 1),
            top_cropping=1,
            left_cropping=0,
            target_height=2,
            target_width=2,
        ),
        _row(
            "keras.ops.image.pad_images",
            (1, 2, 2, 1),
            top_padding=1,
            left_padding=0,
            target_height=4,
            target_width=3,
        ),
        _row(
            "keras.ops.image.elastic_transform",
            (1, 4, 4, 1),
            seed=1,
            single=True,
            alpha=2.0,
            sigma=1.0,
        ),
        _row("keras.ops.image.extract_patches", (1, 3, 3, 1), size=(2, 2), strides=1),
        _row("keras.ops.image.extract_patches_3d", (1, 2, 2, 2, 1), size=(2, 2, 2)),
        _row("keras.ops.image.gaussian_blur", (1, 3, 3, 1), single=True),
        _row(
            "keras.ops.image.gaussian_blur (learned sigma)",
            (1, 3, 3, 1),
            (2,),
            single=True,
            call=lambda x, s: k.gaussian_blur(x, sigma=s),
        ),
        _row("keras.ops.image.hsv_to_rgb", (1, 1, 2, 3), points=_BLANK),
        _row("keras.ops.image.rgb_to_hsv", (1, 1, 2, 3), points=_BLANK),
        _row("keras.ops.image.rgb_to_grayscale", (1, 1, 2, 3)),
        _row(
            "keras.ops.image.map_coordinates",
            (3, 3),
            (2, 2),
            call=lambda x, c: k.map_coordinates(x, 2 * c, order=1),
        ),
        _row(
            "keras.ops.image.map_coordinates (order 0)",
            (3, 3),
            (2, 2),
            call=lambda x, c: k.map_coordinates(x, 2 * c, order=0),
        ),
        _row(
            "keras.ops.image.map_coordinates (reflected)",
            (3, 3),
            (2, 2),
            call=lambda x, c: k.map_coordinates(x, 4 * c, order=1, fill_mode="reflect"),
        ),
        *(
            _row(
                f"keras.ops.image.resize ({method})",
                (1, 2, 2, 1),
                size=(3, 3),
                interpolation=method,
                single=True,
            )
            for method in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
        ),
        _row(
            "keras.ops.image.scale_and_translate",
            (1, 3, 3, 1),
            single=True,
            call=lambda x: k.scale_and_translate(
                x,
                (1, 3, 3, 1),
                tf.constant([1.2, 0.9]),
                tf.constant([0.1, 0.2]),
                (1, 2),
                "linear",
            ),
        ),
        _row(
            "keras.ops.image.scale_and_translate (learned)",
            (1, 3, 3, 1),
            (2,),
            (2,),
            single=True,
            call=lambda x, s, t: k.scale_and_translate(
                x, (1, 3, 3, 1), s + 0.5, t, (1, 2), "linear"
            ),
        ),
        _row("keras.ops.image.sobel_edges", (1, 3, 3, 1)),
        _row(
            "keras.ops.image.ssim",
            (1, 4, 4, 1),
            (1, 4, 4, 1),
            max_val=1.0,
            filter_size=3,
        ),
    ]
